"""The options of the click commands, for man pages and completions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module

import click

from simpleipc_cli.cli.app import app
from simpleipc_cli.cli.parse import VERBS


@dataclass(frozen=True)
class Option:
    """One option of one verb."""

    flags: tuple[str, ...]
    """Short names first: -d, --data."""
    value: str | None
    """The placeholder of its value, such as FILE; None for a flag."""
    choices: tuple[str, ...]
    """The possible values, if there is a list of them."""
    help: str
    """The text of --help, with the default."""
    repeatable: bool


def options_of(command: click.Command) -> list[Option]:
    """Return the options in the order of --help, which is the last one."""
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
    """Return the commands by verb, in the order of --help."""
    return {
        verb: getattr(import_module(f"simpleipc_cli.cli.{verb}.command"), verb) for verb in VERBS
    }


def verbs() -> dict[str, list[Option]]:
    """Return the options by verb."""
    return {verb: options_of(command) for verb, command in commands().items()}


def group_options() -> list[Option]:
    """Return the options of `sipc` without a verb."""
    return options_of(app)
