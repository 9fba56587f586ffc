"""What click makes of the command line: the group of verbs, help, and errors of usage.

Each verb lives in a module of its own, loaded when it is called.
"""

from __future__ import annotations

from importlib import import_module

import click

from simpleipc_cli.cli import VERBS
from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.options import option_given
from simpleipc_cli.system import UNSUPPORTED_OPTIONS

EPILOG = """\b
Examples:
  sipc serve demo.sock --exec ./handler.sh
  echo hello | sipc send demo.sock

`sipc VERB --help` tells more about each."""


class _Verbs(click.Group):
    """A group that imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order in which one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a verb."""
        if cmd_name not in VERBS:
            return None
        command = getattr(import_module(f"simpleipc_cli.cli.{cmd_name}.command"), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101
        return _hide_unsupported_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a verb; of a mistyped one say what was probably meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

            close = get_close_matches(args[0], VERBS, n=1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of verbs, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _hide_unsupported_options(command: click.Command) -> click.Command:
    """Have options refused, and left out of the help, that make no sense on this system."""
    for option in command.params if UNSUPPORTED_OPTIONS else ():
        if isinstance(option, click.Option) and not UNSUPPORTED_OPTIONS.isdisjoint(option.opts):
            option.hidden = True
            option.type = click.STRING  # whatever the value would be checked against
            option.callback = _refuse
    return command


def _refuse(ctx: click.Context, option: click.Parameter, value: object) -> object:
    if option.name is not None and option_given(ctx, option.name):
        raise click.UsageError(f"{option.opts[-1]}: there is no such thing on this system")
    return value


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog=EPILOG,
)
@click.version_option(package_name="simpleipc-cli", prog_name="sipc")
def app() -> None:
    """Speak Simple-IPC, git's protocol between local processes.

    One request over a Unix domain socket, one response: serve them, send them, see whether
    anybody is listening, and measure how fast the answers come.
    """


def run() -> int:
    """Run the verb that the command line names; the status to end with."""
    try:
        status = app.main(prog_name="sipc", standalone_mode=False)
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    return status if isinstance(status, int) else ExitCode.OK


def _show(error: click.ClickException) -> None:
    try:
        error.show()
    except OSError:
        pass  # nobody can read it; the status says it, too
