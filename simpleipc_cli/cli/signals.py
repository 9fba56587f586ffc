"""Signals, as far as every call needs them: without `signal`, which loads enums.

Those take longer than all the rest of a small exchange. Numbers are plain integers here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # private to Python, but `signal` stands on it

from simpleipc_cli import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

SIGINT: int = _signal.SIGINT
SIGPIPE = 13  # also where there is none its number tells

_ENDING: list[int] = [getattr(_signal, name) for name in system.ENDING_SIGNALS]


def hear(handler: Callable[[int, object], NoReturn]) -> None:
    """Have those that ask for the end call `handler`; those that were ignored stay so."""
    for number in _ENDING:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, handler)


def ignore() -> None:
    """From now on nothing that asks for the end is heard."""
    for number in _ENDING:
        _signal.signal(number, _signal.SIG_IGN)


def die_of_sigpipe() -> None:
    """End as every other program in a pipeline does whose reader has gone, if that is possible."""
    system.exit_by_signal(SIGPIPE)
