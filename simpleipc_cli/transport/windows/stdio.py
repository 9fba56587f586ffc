"""Read and write standard streams on Windows, in threads, so that the caller does not block.

On Windows, a standard stream is mostly a pipe: the system does not report whether a write would
block, and a blocked read cannot be interrupted. Such a thread does not keep the process running.
"""

from __future__ import annotations

import _thread
import os
from functools import partial
from queue import SimpleQueue
from typing import Any

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport.base import READ, WRITE
from simpleipc_cli.transport.base_server import FileReader, FileWriter
from simpleipc_cli.transport.windows.poller import Pollable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 64 * 1024  # bytes read or written at once (tunable)
_WRITE_TIMEOUT = 0.2  # seconds to wait for a fast reader after a write (tunable)


class ThreadedFile(Pollable):
    """A file with a thread that makes one read or write call at a time."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._file = descriptor
        self._calls: SimpleQueue[Callable[[], object]] | None = None  # once it has a thread
        self._busy = _thread.allocate_lock()  # held while a call runs
        self._outcome: Any = None  # the last call's result, or its OSError

    def _start(self, call: Callable[[], object]) -> None:
        """Start a call. The file must be idle and its last outcome taken. Raises SipcError."""
        if self._calls is None:
            calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
            try:
                _thread.start_new_thread(self._run, (calls,))
            except RuntimeError as error:
                raise SipcError(f"{error} to wait for a file", "end some programs") from None
            self._calls = calls
        self._busy.acquire()
        self._calls.put(call)

    def _run(self, calls: SimpleQueue[Callable[[], object]]) -> None:
        while True:
            call = calls.get()
            try:
                self._outcome = call()
            except OSError as error:
                self._outcome = error
            self._busy.release()
            self.notify()

    @property
    def _is_idle(self) -> bool:
        return not self._busy.locked()

    def _take_outcome(self) -> Any:
        """Return the outcome of the last call, once, then None. Raises OSError."""
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, OSError):
            raise outcome
        return outcome


class WinFileReader(ThreadedFile, FileReader):
    """Reads a file in a thread; pollers can poll it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._left = b""

    def ready(self, wanted: int) -> int:
        if self._left or (self._is_idle and self._outcome is not None):
            return READ
        if wanted & READ and self._is_idle:
            self._start(partial(os.read, self._file, _CHUNK))
        return 0

    def read_nowait(self, limit: int) -> bytes:
        if not self._left:
            found: bytes | None = self._take_outcome() if self._is_idle else None
            if found is None:
                raise BlockingIOError
            self._left = found
        data, self._left = self._left[:limit], self._left[limit:]
        return data


class WinFileWriter(ThreadedFile, FileWriter):
    """Writes to a file in a thread; pollers can poll it."""

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - every change calls notify()
        return WRITE if self._is_idle else 0

    def write_nowait(self, payload: memoryview) -> int:
        """Write; wait for a short time, in case the reader is fast."""
        written = 0
        while self._is_idle:
            written += self._take_outcome() or 0
            if written == len(payload):
                break
            piece = bytes(payload[written : written + _CHUNK])
            self._start(partial(os.write, self._file, piece))
            if self._busy.acquire(timeout=_WRITE_TIMEOUT):
                self._busy.release()
        return written
