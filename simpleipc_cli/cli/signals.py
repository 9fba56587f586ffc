"""Signals, as far as every call needs them: without `signal`, which loads enums.

Those take longer than all the rest of a small exchange. Numbers are plain integers here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # private to Python, but `signal` stands on it

from simpleipc_cli import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGINT: int = _signal.SIGINT
SIGPIPE = 13  # also where there is none its number tells

_ENDING: list[int] = [getattr(_signal, name) for name in system.ENDING_SIGNALS]
_MOMENT = 0.05  # seconds until a signal is sent again (tunable)


def hear(handler: Callable[[int, object], None]) -> None:
    """Have the signals that ask for the end call `handler`, whatever signal state was inherited.

    SIGINT and SIGHUP that were ignored stay so: shells and nohup(1) ask for that. SIGTERM does
    not: nothing but SIGKILL might be left to end the process.
    """
    for number in _ENDING:
        if number == _signal.SIGTERM or _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, handler)
    system.reset_signals()


def ignore() -> None:
    """From now on nothing that asks for the end is heard."""
    for number in _ENDING:
        _signal.signal(number, _signal.SIG_IGN)
    system.stop_alarm()


def send_again(number: int) -> None:
    """Send a signal to this process, once, a moment later."""
    system.set_timer(_MOMENT, lambda _number, _frame: _signal.raise_signal(number))


def die_of_sigpipe() -> None:
    """End as every other program in a pipeline does whose reader has gone, if that is possible."""
    system.exit_by_signal(SIGPIPE)
