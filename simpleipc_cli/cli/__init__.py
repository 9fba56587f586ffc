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

from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode, exit_code
from simpleipc_cli.cli.render import error_line, say
from simpleipc_cli.errors import SipcError

VERBS = {
    "serve": "Answer requests with a command.",
    "send": "Send one request and print the answer.",
    "probe": "See whether anybody is listening.",
}


class CutShort(BaseException):
    """A signal asked us to end. No error: nobody who handles errors may take it for one."""

    def __init__(self, number: int) -> None:
        """`number` is the signal's."""
        super().__init__(number)
        self.number = number


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of verbs, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`sipc VERB --help` tells more about each.",
)
@click.version_option(package_name="simpleipc-cli", prog_name="sipc")
def app() -> None:
    """Speak Simple-IPC, git's protocol between local processes.

    One request over a Unix domain socket, one response: serve them, send them, and see
    whether anybody is listening.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _cut_short)
    verb = next((word for word in sys.argv[1:] if word in VERBS), "")
    sys.exit(_status(verb))


def _cut_short(number: int, _frame: object) -> NoReturn:
    raise CutShort(number)


def _status(verb: str) -> int:
    """Run a verb; whatever becomes of it, it becomes an exit status."""
    try:
        status = app.main(prog_name="sipc", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return SIGNALLED + signal.SIGINT
    except CutShort as cut:
        return SIGNALLED + cut.number
    except SipcError as error:
        say(error_line(verb, error))
        return exit_code(error)
    except Exception as error:  # a defect of ours; still one line, and what we know of it
        what = f"unexpected {type(error).__name__}: {error}"
        say(error_line(verb, SipcError(what, "please report this")))
        return ExitCode.FAILURE
    return status if isinstance(status, int) else ExitCode.OK
