"""The command line: the only package that uses click, exit statuses and the environment.

It reports every error as one line on standard error and an exit status. It imports few modules: the
common forms of `serve`, `send` and `probe` are parsed without click. `signal` is not imported, as
its enums take longer to load than a small exchange takes; so signals are plain numbers here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # private to Python; `signal` is built on it
import gc
import os
import sys

from simpleipc_cli import system
from simpleipc_cli.cli.exitcodes import SIGPIPE, ExitCode, Terminated, exit_code
from simpleipc_cli.cli.parse import OPTIONS, VERBS, NeedsClick, parse_simple
from simpleipc_cli.cli.stdio import (
    STDERR,
    STDOUT,
    fill_standard_fds,
    format_error,
    is_journal,
    print_error,
    print_line,
    unexpected_error,
    with_priority,
)
from simpleipc_cli.errors import SipcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from sys import UnraisableHookArgs
    from typing import Any, NoReturn

_ENDING: list[int] = [getattr(_signal, name) for name in system.ENDING_SIGNALS]
_COMPLETION = "_SIPC_COMPLETE"  # if this variable is set, click prints completions
_ERROR_PRIORITY = 3  # syslog(3)
_RESEND_DELAY = 0.05  # seconds (tunable)

_raised: list[int] = []
"""The signals for which Terminated was raised."""


def main() -> NoReturn:
    """Run the command line and exit."""
    fill_standard_fds()
    verb = next((word for word in sys.argv[1:] if word in VERBS), "")
    run = fast_path(sys.argv[1:])
    status = _status(verb, run or _run_click)
    if run is not None and verb != "serve":
        # All buffers are empty, and Python's normal exit would take a tenth of the run time.
        os._exit(status)
    _discard_unwritten_output()
    sys.exit(status)


def fast_path(arguments: Sequence[str]) -> Callable[[], int] | None:
    """Return the function to run for these arguments; None if click must parse them."""
    if not arguments or _COMPLETION in os.environ:
        return None
    if len(arguments) == 1 and arguments[0] in {"-h", "--help"}:
        return _print_help
    if arguments[0] not in OPTIONS:
        return None
    try:
        given = parse_simple(arguments[0], arguments[1:])
    except NeedsClick:
        return None
    return lambda: _run_parsed(arguments[0], given)


def _print_help() -> int:
    from simpleipc_cli.cli.help import HELP  # noqa: PLC0415 - seldom needed

    print_line(HELP)
    return ExitCode.OK


def _collect_garbage() -> None:
    """Switch the garbage collector on; it skips the objects that exist by now."""
    if not gc.isenabled():  # switched off by __main__.py
        gc.freeze()
        gc.enable()


def _run_parsed(verb: str, given: dict[str, Any]) -> int:
    if verb == "serve":
        return _run_serve(given)
    given["has_wait"] = "wait" in given
    if verb == "send":
        from simpleipc_cli.cli.send import run as send  # noqa: PLC0415 - only one verb is loaded

        _collect_garbage()
        return send.run(send.SendOptions(**given))
    from simpleipc_cli.cli.probe import run as probe  # noqa: PLC0415

    _collect_garbage()
    return probe.run(probe.ProbeOptions(**given))


def _run_serve(given: dict[str, Any]) -> int:
    from simpleipc_cli.cli.serve import UsageError  # noqa: PLC0415 - only one verb is loaded
    from simpleipc_cli.cli.serve.start import start  # noqa: PLC0415

    _collect_garbage()
    try:
        return start(given)
    except UsageError as error:
        from simpleipc_cli.cli.app import show_usage_error  # noqa: PLC0415 - only for usage errors

        return show_usage_error("serve", str(error))


def _discard_unwritten_output() -> None:
    """Drop output that cannot be written: Python would try again at exit, and change the status."""
    for number, stream in ((STDOUT, sys.stdout), (STDERR, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


def _run_click() -> int:
    from simpleipc_cli.cli.app import run  # noqa: PLC0415 - takes longer than an exchange

    _collect_garbage()
    return run()


def _status(verb: str, run: Callable[[], int]) -> int:
    """Run a verb and return its exit status, also after an error.

    Signals are handled until the exit status is known, also while an error is reported.
    """
    sys.unraisablehook = _report_unraisable
    try:
        _handle_signals()
        status = _run_and_report(verb, run)
        _ignore_signals()
    except Terminated as error:
        _ignore_signals()
        if error.number == SIGPIPE:
            system.exit_by_signal(SIGPIPE)  # like every other program in a pipeline, if possible
        return exit_code(error)
    finally:
        sys.unraisablehook = sys.__unraisablehook__
    return status


def _run_and_report(verb: str, run: Callable[[], int]) -> int:
    try:
        return run()
    except Exception as error:
        shown = _error_to_show(error)
        if os.environ.get("SIPC_DEBUG") == "1":
            sys.__excepthook__(type(error), error, error.__traceback__)
        line = format_error(verb, shown)
        if verb == "serve" and is_journal():
            line = with_priority(line, _ERROR_PRIORITY)
        print_error(line)
        return exit_code(shown)


def _error_to_show(error: Exception) -> SipcError:
    if isinstance(error, SipcError):
        return error
    if _raised:  # Python sometimes replaces Terminated by a SyntaxError or RuntimeError
        raise Terminated(_raised[0])
    return unexpected_error(error)


def _handle_signals() -> None:
    """Handle the signals that end a program, in any inherited signal state.

    If SIGINT or SIGHUP is ignored, it stays ignored: shells and nohup(1) rely on that. SIGTERM is
    always handled: otherwise only SIGKILL could end the process.
    """
    for number in _ENDING:
        if number == _signal.SIGTERM or _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _on_signal)
    system.reset_signals()


def _ignore_signals() -> None:
    for number in _ENDING:
        _signal.signal(number, _signal.SIG_IGN)
    system.stop_timer()


def _on_signal(number: int, _frame: object) -> None:
    """Terminate the verb, except during its termination: no second signal may interrupt that.

    Python can lose the exception: if it is raised in a callback, such as importlib's after an
    import, Python only reports it; compile() drops it while it computes 2**31 (seen in 3.11 to
    3.13). So a timer sends the signal again, to the process: in a server, another thread may
    receive signals by then. The handler must not import a module: the signal may have interrupted
    an import.
    """
    if not _is_ending():
        _raised.append(number)
        system.set_timer(_RESEND_DELAY, lambda _number, _frame: os.kill(os.getpid(), number))
        raise Terminated(number)


def _is_ending() -> bool:
    """Return whether a Terminated is being handled."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Terminated):
        error = error.__context__
    return error is not None


def _report_unraisable(lost: UnraisableHookArgs) -> None:
    """Report an exception that Python cannot raise, except Terminated: its signal is sent again."""
    if not isinstance(lost.exc_value, Terminated):
        sys.__unraisablehook__(lost)
