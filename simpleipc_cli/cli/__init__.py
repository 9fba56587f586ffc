"""The command line: the only place that knows click, exit statuses and the environment.

Everything that goes wrong on purpose ends here, as one line on stderr and the status that
belongs to it. Loads little: the plain forms of `send` and `probe` do without click.
"""

from __future__ import annotations

import os
import sys

from simpleipc_cli import system
from simpleipc_cli.cli import signals
from simpleipc_cli.cli.exitcodes import SIGNALLED, Terminated, exit_code
from simpleipc_cli.cli.fastpath import fast_path
from simpleipc_cli.cli.parse import VERBS
from simpleipc_cli.cli.stderr import format_error, print_error
from simpleipc_cli.cli.stdio import fill_standard_fds
from simpleipc_cli.errors import SipcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from sys import UnraisableHookArgs
    from typing import NoReturn

_MOMENT = 0.001  # seconds: when Python has left what it was in the middle of, at will


def main() -> NoReturn:
    """Run the command line and exit."""
    fill_standard_fds()
    quick = fast_path(sys.argv[1:])
    if quick is not None:
        status = _status(sys.argv[1], quick)
        # It leaves nothing in buffers, and Python's own end takes a tenth of its time.
        os._exit(status)
    verb = next((word for word in sys.argv[1:] if word in VERBS), "")
    sys.exit(_status(verb, _by_click))


def _by_click() -> int:
    from simpleipc_cli.cli.app import run  # noqa: PLC0415 - takes longer than an exchange

    return run()


def _on_signal(number: int, _frame: object) -> NoReturn:
    signals.ignore()  # a second one must not cut short the clearing up
    raise Terminated(number)


def _reraise_lost_signal(lost: UnraisableHookArgs) -> None:
    """What is raised in a callback of Python's, as behind many an import, is lost: once more."""
    error = lost.exc_value
    if not isinstance(error, Terminated):
        sys.__unraisablehook__(lost)
        return
    number = error.number

    def ring(_number: int, _frame: object) -> None:
        if sys.unraisablehook is _reraise_lost_signal:  # there is no status yet
            raise Terminated(number)

    system.set_timer(_MOMENT, ring)


def _status(verb: str, run: Callable[[], int]) -> int:
    """Run a verb; whatever becomes of it, it becomes an exit status.

    Signals are heard from here on, until there is a status: also while an error is told.
    """
    sys.unraisablehook = _reraise_lost_signal
    try:
        signals.hear(_on_signal)
        status = _told(verb, run)
        signals.ignore()
    except Terminated as cut:
        if cut.number == signals.SIGPIPE:
            signals.die_of_sigpipe()
        return SIGNALLED + cut.number
    finally:
        sys.unraisablehook = sys.__unraisablehook__
    return status


def _told(verb: str, run: Callable[[], int]) -> int:
    """Run a verb; of what goes wrong on purpose one line is left, and a status."""
    try:
        return run()
    except Exception as error:
        explained = _explained(error)
        print_error(format_error(verb, explained))
        return exit_code(explained)


def _explained(error: Exception) -> SipcError:
    """An error as the user gets to see it."""
    if isinstance(error, SipcError):
        return error
    if isinstance(error, OSError):  # what click prints goes where nothing can be written
        what = f"cannot write to standard output: {error.strerror}"
        return SipcError(what, "check where it goes")
    # A defect of ours; still one line, and what we know of it.
    return SipcError(f"unexpected {type(error).__name__}: {error}", "please report this")
