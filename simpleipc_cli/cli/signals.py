"""Signals, as far as every call needs them: without `signal`, which loads enums.

Those take longer than all the rest of a small exchange. Numbers are plain integers here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # private to Python, but `signal` stands on it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

SIGHUP: int = _signal.SIGHUP
SIGINT: int = _signal.SIGINT
SIGPIPE: int = _signal.SIGPIPE
SIGTERM: int = _signal.SIGTERM

_ENDING = (SIGINT, SIGTERM, SIGHUP)


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
    """End as every other program in a pipeline does whose reader has gone."""
    _signal.signal(SIGPIPE, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [SIGPIPE])
    _signal.raise_signal(SIGPIPE)
