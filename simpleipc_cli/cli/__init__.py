"""The command line: the only place that knows click, exit statuses and the environment.

Each verb lives in a module of its own, loaded when it is called. Everything that goes
wrong on purpose ends here, as one line on stderr and the status that belongs to it.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import NoReturn

import click

from simpleipc_cli.cli.exitcodes import SIGNALLED, CutShort, ExitCode, exit_code
from simpleipc_cli.cli.render import error_line, say
from simpleipc_cli.cli.streams import fill_standard_streams
from simpleipc_cli.errors import SipcError

VERBS = {
    "serve": "Answer requests with a command.",
    "send": "Send one request and print the answer.",
    "probe": "See whether anybody is listening.",
    "bench": "Measure how fast and how steady an endpoint answers.",
}


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
        command = getattr(import_module(f"simpleipc_cli.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101
        return command

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


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> NoReturn:
    """Run the command line and exit."""
    fill_standard_streams()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _cut_short)
    verb = next((word for word in sys.argv[1:] if word in VERBS), "")
    status = _status(verb)
    _ignore_signals()
    sys.exit(status)


def _cut_short(number: int, _frame: object) -> NoReturn:
    _ignore_signals()  # a second one must not cut short the clearing up
    raise CutShort(number)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _status(verb: str) -> int:
    """Run a verb; whatever becomes of it, it becomes an exit status."""
    try:
        status = app.main(prog_name="sipc", standalone_mode=False)
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except CutShort as cut:
        if cut.number == signal.SIGPIPE:
            _die_of_sigpipe()
        return SIGNALLED + cut.number
    except Exception as error:
        explained = _explained(error)
        say(error_line(verb, explained))
        return exit_code(explained)
    return status if isinstance(status, int) else ExitCode.OK


def _die_of_sigpipe() -> None:
    """End as every other program in a pipeline does whose reader has gone."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
    signal.raise_signal(signal.SIGPIPE)


def _explained(error: Exception) -> SipcError:
    """An error as the user gets to see it."""
    if isinstance(error, SipcError):
        return error
    if isinstance(error, OSError):  # what click prints goes where nothing can be written
        what = f"cannot write to standard output: {error.strerror}"
        return SipcError(what, "check where it goes")
    # A defect of ours; still one line, and what we know of it.
    return SipcError(f"unexpected {type(error).__name__}: {error}", "please report this")


def _show(error: click.ClickException) -> None:
    try:
        error.show()
    except OSError:
        pass  # nobody can read it; the status says it, too
