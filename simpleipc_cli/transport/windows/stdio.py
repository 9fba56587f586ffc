"""Files that are read and written without waiting, on Windows: threads do it, and wait.

A standard stream there is whatever it was opened as, mostly a pipe that cannot be asked
whether it takes a byte, and reads of which nothing can cut short. A thread that waits in one
is no reason for the process to stay: it ends with that.
"""

from __future__ import annotations

import _thread
import os
from queue import SimpleQueue

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport.base import READ, WRITE
from simpleipc_cli.transport.base_polling import FileReader, FileWriter
from simpleipc_cli.transport.windows.poller import Pollable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_AT_ONCE = 64 * 1024  # bytes that are read or written at once, at will
_MOMENT = 0.2  # seconds in which a reader that keeps up has taken what is written, at will


class ThreadedFile(Pollable):
    """A source that has things done by a thread of its own, one after the other."""

    def __init__(self, descriptor: int) -> None:
        """The thread starts when it is first needed."""
        super().__init__()
        self._file = descriptor
        self._orders: SimpleQueue[Callable[[], int | bytes]] | None = None
        self._working = _thread.allocate_lock()  # held from an order until it is done
        self._outcome: int | bytes | OSError | None = None

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self.descriptor

    def _begin(self, order: Callable[[], int | bytes]) -> None:
        """Have it done; only with nothing going, and the last outcome taken. Raises SipcError."""
        if self._orders is None:
            orders: SimpleQueue[Callable[[], int | bytes]] = SimpleQueue()
            try:
                _thread.start_new_thread(self._run, (orders,))
            except RuntimeError as error:
                raise SipcError(f"{error} to wait for a file", "end some programs") from None
            self._orders = orders
        self._working.acquire()
        self._orders.put(order)

    def _run(self, orders: SimpleQueue[Callable[[], int | bytes]]) -> None:
        while True:
            order = orders.get()
            try:
                self._outcome = order()
            except OSError as error:
                self._outcome = error
            self._working.release()
            self.notify()

    @property
    def _is_idle(self) -> bool:
        return not self._working.locked()

    def _take(self) -> int | bytes | None:
        """What has become of the last order, once. Raises OSError."""
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, OSError):
            raise outcome
        return outcome


class WinFileReader(ThreadedFile, FileReader):
    """A file that a thread reads when somebody waits for it."""

    def __init__(self, descriptor: int) -> None:
        """Reads nothing yet."""
        super().__init__(descriptor)
        self._left = b""

    def ready(self, wanted: int) -> int:
        """See Pollable."""
        if self._left or (self._is_idle and self._outcome is not None):
            return READ
        if wanted & READ and self._is_idle:
            self._begin(lambda: os.read(self._file, _AT_ONCE))
        return 0

    def read_nowait(self, limit: int) -> bytes:
        """See FileReader. Something is read only while a poller watches for it."""
        if not self._left:
            found = self._take() if self._is_idle else None
            if found is None:
                raise BlockingIOError
            assert isinstance(found, bytes)  # noqa: S101
            self._left = found
        data, self._left = self._left[:limit], self._left[limit:]
        return data


class WinFileWriter(ThreadedFile, FileWriter):
    """A file that a thread writes to."""

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - changes are told anyway
        """See Pollable."""
        return WRITE if self._is_idle else 0

    def write_nowait(self, payload: memoryview) -> int:
        """See FileWriter. Waits a moment, in which who reads at all has read it."""
        taken = 0
        while self._is_idle:
            taken += self._written()
            if taken == len(payload):
                break
            self._write(bytes(payload[taken : taken + _AT_ONCE]))
            if self._working.acquire(timeout=_MOMENT):
                self._working.release()
        return taken

    def _write(self, piece: bytes) -> None:
        self._begin(lambda: os.write(self._file, piece))

    def _written(self) -> int:
        count = self._take() or 0
        assert isinstance(count, int)  # noqa: S101
        return count
