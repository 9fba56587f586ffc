"""The click commands: the group of verbs, help, and usage errors.

The module of a verb is loaded when the verb is used.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.options import option_given
from simpleipc_cli.cli.parse import VERBS
from simpleipc_cli.cli.stdio import write_error
from simpleipc_cli.system import UNSUPPORTED_OPTIONS


class _Verbs(click.Group):
    """A group that imports the module of a verb when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command = getattr(import_module(f"simpleipc_cli.cli.{cmd_name}.command"), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101
        return _hide_unsupported_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; suggest one for a misspelled name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415 - only for usage errors

            close = get_close_matches(args[0], VERBS, n=1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from None

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        from simpleipc_cli.cli.help import HELP  # noqa: PLC0415 - seldom needed

        formatter.write(f"{HELP}\n")


def _hide_unsupported_options(command: click.Command) -> click.Command:
    """Refuse options that this system does not support, and hide them in the help."""
    for option in command.params if UNSUPPORTED_OPTIONS else ():
        if isinstance(option, click.Option) and not UNSUPPORTED_OPTIONS.isdisjoint(option.opts):
            option.hidden = True
            if not option.is_flag:
                option.type = click.STRING  # so that the value is not checked before
            option.callback = _refuse
    return command


def _refuse(ctx: click.Context, option: click.Parameter, value: object) -> object:
    if option.name is not None and option_given(ctx, option.name):
        raise click.UsageError(f"{option.opts[-1]}: not supported on this platform")
    return value


@click.group(
    cls=_Verbs,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 80,
        "show_default": True,
    },
)
@click.version_option(package_name="simpleipc-cli", prog_name="sipc")
def app() -> None:
    """Run `sipc`."""


def run() -> int:
    """Run the verb on the command line and return the exit status."""
    try:
        status = app.main(prog_name="sipc", standalone_mode=False)
        if sys.stdout is not None:  # None if the caller closed it
            sys.stdout.flush()
    except OSError as error:  # of --help or --version; Verb handles errors of verbs
        raise write_error("standard output", error) from error
    except click.ClickException as error:
        return _show(error)
    return status if isinstance(status, int) else ExitCode.OK


def show_usage_error(verb: str, message: str) -> int:
    """Report a usage error of a verb that click did not parse; return the exit status."""
    parent = click.Context(app, info_name="sipc", **app.context_settings)
    command = app.get_command(parent, verb)
    assert command is not None  # noqa: S101
    return _show(click.UsageError(message, click.Context(command, parent, info_name=verb)))


def _show(error: click.ClickException) -> int:
    try:
        error.show()
    except OSError:
        pass  # standard error cannot be written: only the exit status reports the error
    return error.exit_code
