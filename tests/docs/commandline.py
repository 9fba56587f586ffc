"""The command line as its click commands define it: what man pages and completions must say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module

import click

from simpleipc_cli.cli import VERBS
from simpleipc_cli.cli.app import app


@dataclass(frozen=True)
class Option:
    """One option of one verb."""

    flags: tuple[str, ...]
    """As they are typed, short ones first: -d, --data."""
    value: str | None
    """What stands for its value, such as FILE; None if it takes none."""
    choices: tuple[str, ...]
    """The possible values, if they are few."""
    help: str
    """What --help says, the default included."""
    repeatable: bool


def options_of(command: click.Command) -> list[Option]:
    """Its options in the order of --help, which comes last."""
    context = click.Context(app, info_name="sipc", **app.context_settings)
    if command is not app:
        context = click.Context(command, context, info_name=command.name)
    return [
        _option(parameter, context)
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and not parameter.hidden
    ]


def _option(option: click.Option, context: click.Context) -> Option:
    record = option.get_help_record(context)
    assert record is not None
    typed, help_text = record
    choices = option.type.choices if isinstance(option.type, click.Choice) else ()
    value = None if option.is_flag or option.count else option.make_metavar(context)
    flags = sorted([*option.opts, *option.secondary_opts], key=lambda flag: flag.startswith("--"))
    assert all(flag in typed for flag in flags)
    return Option(
        flags=tuple(flags),
        value=value,
        choices=tuple(map(str, choices)),
        help=re.sub(r"\s+", " ", help_text).strip(),
        repeatable=option.multiple,
    )


def commands() -> dict[str, click.Command]:
    """The verbs by name, in the order of --help."""
    return {
        verb: getattr(import_module(f"simpleipc_cli.cli.{verb}.command"), verb) for verb in VERBS
    }


def verbs() -> dict[str, list[Option]]:
    """Their options."""
    return {verb: options_of(command) for verb, command in commands().items()}


def group_options() -> list[Option]:
    """Those of `sipc` itself."""
    return options_of(app)
