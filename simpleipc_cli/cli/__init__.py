"""The command line: the only place that knows click, exit statuses and the environment.

Everything that goes wrong on purpose ends here, as one line on stderr and the status that
belongs to it. Loads little: the plain forms of `send` and `probe` do without click.
"""

from __future__ import annotations

import os
import sys

from simpleipc_cli.cli import signals
from simpleipc_cli.cli.exitcodes import SIGNALLED, Terminated, exit_code
from simpleipc_cli.cli.fastpath import fast_path
from simpleipc_cli.cli.stderr import format_error, print_error
from simpleipc_cli.cli.stdio import STDERR, STDOUT, fill_standard_fds
from simpleipc_cli.errors import SipcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from sys import UnraisableHookArgs
    from typing import NoReturn

_raised: list[int] = []
"""The signals for which a CutShort was raised."""

VERBS = {
    "serve": "Answer requests with a command.",
    "send": "Send one request and print the answer.",
    "probe": "See whether anybody is listening.",
    "bench": "Measure how fast and how steady an endpoint answers.",
}


def main() -> NoReturn:
    """Run the command line and exit."""
    fill_standard_fds()
    quick = fast_path(sys.argv[1:])
    if quick is not None:
        status = _status(sys.argv[1], quick)
        # It leaves nothing in buffers, and Python's own end takes a tenth of its time.
        os._exit(status)
    verb = next((word for word in sys.argv[1:] if word in VERBS), "")
    status = _status(verb, _by_click)
    _discard_unwritten_output()
    sys.exit(status)


def _discard_unwritten_output() -> None:
    """Drop output that could not be written: Python would try again, and change the status."""
    for number, stream in ((STDOUT, sys.stdout), (STDERR, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


def _by_click() -> int:
    from simpleipc_cli.cli.app import run  # noqa: PLC0415 - takes longer than an exchange

    return run()


def _on_signal(number: int, _frame: object) -> None:
    """End the verb, unless it is ending: a second signal must not interrupt the cleanup.

    Python can lose the exception: what a callback raises, such as importlib's after an import,
    is only reported; compile() drops it where it computes 2**31 (seen in 3.11 to 3.13). So the
    signal is sent again a moment later, to the handler that is installed then. No module is
    loaded for that: an import may be what the signal has interrupted.
    """
    if not _is_ending():
        _raised.append(number)
        signals.send_again(number)
        raise Terminated(number)


def _is_ending() -> bool:
    """Return whether the code that runs now runs because a CutShort was raised."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Terminated):
        error = error.__context__
    return error is not None


def _report_unraisable(lost: UnraisableHookArgs) -> None:
    """Report an exception that Python cannot raise, unless it is a signal's: that comes again."""
    if not isinstance(lost.exc_value, Terminated):
        sys.__unraisablehook__(lost)


def _status(verb: str, run: Callable[[], int]) -> int:
    """Run a verb; whatever becomes of it, it becomes an exit status.

    Signals are heard from here on, until there is a status: also while an error is told.
    """
    sys.unraisablehook = _report_unraisable
    try:
        signals.hear(_on_signal)
        status = _told(verb, run)
        signals.ignore()
    except Terminated as cut:
        signals.ignore()
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
        print_error(format_error(verb, explained), error_for_journal=verb == "serve")
        return exit_code(explained)


def _explained(error: Exception) -> SipcError:
    """An error as the user gets to see it."""
    if isinstance(error, SipcError):
        return error
    if isinstance(error, OSError):  # what click prints goes where nothing can be written
        what = f"cannot write to standard output: {error.strerror}"
        return SipcError(what, "check where it goes")
    if _raised:  # Python puts a SyntaxError or RuntimeError in its place here and there
        raise Terminated(_raised[0])
    # A defect of ours; still one line, and what we know of it.
    return SipcError(f"unexpected {type(error).__name__}: {error}", "please report this")
