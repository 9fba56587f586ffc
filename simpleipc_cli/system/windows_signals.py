"""Signals on Windows: see signals_unix.py. There Ctrl-C and Ctrl-Break are all there is of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simpleipc_cli.system.windows import ENDING_SIGNALS

_ENDING = [getattr(signal, name) for name in ENDING_SIGNALS]


class BlockedSignals:
    """See signals_unix. Nothing makes them wait there, so they are taken note of."""

    def __enter__(self) -> BlockedSignals:
        """See signals_unix. Only in the main thread."""
        self._came: list[int] = []
        self._handlers: dict[int, Any] = {}
        self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        """See signals_unix."""
        self._release()

    @contextmanager
    def unblocked(self) -> Iterator[None]:
        """See signals_unix."""
        try:
            self._release()
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        for number in _ENDING:
            handler = signal.getsignal(number)
            if callable(handler):  # neither ignored nor left to the system
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self._came.append(number)

    def _release(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        came, self._came = self._came, []
        for number in came:
            self._handlers[number](number, None)


@contextmanager
def block_terminal_signals() -> Iterator[None]:
    """See signals_unix. Nobody can be started so: see deafen()."""
    yield


def ignore_interrupt() -> None:
    """See signals_unix. From here on it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
