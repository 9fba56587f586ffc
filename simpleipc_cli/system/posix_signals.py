"""Signals on Unix, as far as not every call needs them: see system.py, which loads this."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class BlockedSignals:
    """In a `with`, signals that ask for our end wait, but for where they are let in."""

    def __enter__(self) -> BlockedSignals:
        """From now on they wait."""
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        return self

    def __exit__(self, *_: object) -> None:
        """They are heard as before."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    @contextmanager
    def unblocked(self) -> Iterator[None]:
        """They are heard in here."""
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


@contextmanager
def block_terminal_signals() -> Iterator[None]:
    """Processes of `multiprocessing` that start in here never hear what a terminal sends to all.

    Nor what a CI system does, not even before they run our code.
    """
    from multiprocessing import resource_tracker  # noqa: PLC0415 - only for those

    resource_tracker.ensure_running()  # else starting it would end the deafness
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupt() -> None:
    """For a process that was started in deaf(): it is."""
