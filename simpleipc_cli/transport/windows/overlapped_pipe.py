"""One end of a pipe on Windows, with readiness made from overlapped reads and writes.

A read into a small buffer of ours is always pending: what it brings can be taken without waiting,
and its failure reports that the other end has closed. At most one write is pending. Its bytes count
as written only when the system has taken them, so that they are not lost if we close afterwards.
"""

from __future__ import annotations

import _thread

from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.transport.base import HANGUP, READ, WRITE
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.poller import Pollable, completion_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from simpleipc_cli.pktline import Buffer

PIPE_BUFFER = 64 * 1024
"""Bytes that the system is asked to buffer each way. Larger writes wait for their reader."""

_FIRST_BUFFER = 4 * 1024  # bytes to read into; most connections need no more
_CHUNK = 64 * 1024  # bytes read or written at once (tunable)


class OverlappedPipe(Pollable):
    """One end of a pipe. One thread at a time may read, and another one write."""

    def __init__(self, handle: int, *, writes: bool = True, attached: bool = False) -> None:
        """Take over a handle that was opened for overlapped use. Raises OSError.

        `attached`: the completion port has it already. Without `writes` it can only be read.
        """
        if not attached:
            completion_port().attach(handle)
        super().__init__()
        self._handle = handle
        self._writes = writes
        self._lock = _thread.allocate_lock()
        self._read: Any = None  # the pending operation
        self._buffer = bytearray(_FIRST_BUFFER)
        self._received = memoryview(b"")
        self._is_at_end = False  # no more data will come
        self._is_closed = False  # closed by the peer
        self._write: Any = None  # the pending operation
        self._written = 0  # bytes of a completed write that write_nowait() has not returned yet

    def ready(self, wanted: int) -> int:
        with self._lock:
            if wanted != WRITE:  # the system cancels a read when the thread that started it exits
                self._start_read()
            flags = READ if self._received or self._is_at_end else 0
            if self._writes and (self._write is None or self._is_closed):
                flags |= WRITE
            if self._is_closed and not self._received:
                flags |= HANGUP
            return flags

    # -- reading ---------------------------------------------------------------------------

    def read_nowait(self, buffer: Buffer) -> int:
        """Copy received bytes into `buffer`; return their number, 0 at the end of the stream.

        Raises BlockingIOError.
        """
        with self._lock:
            self._start_read()
            if not self._received:
                if self._is_at_end:
                    return 0
                raise BlockingIOError
            size = min(len(self._received), len(buffer))
            memoryview(buffer)[:size] = self._received[:size]
            self._received = self._received[size:]
            self._start_read()
            return size

    def peek_nowait(self) -> bool:
        """Return whether data has been received; False at the end. Raises BlockingIOError."""
        with self._lock:
            self._start_read()
            if not self._received and not self._is_at_end:
                raise BlockingIOError
            return bool(self._received)

    def _start_read(self) -> None:
        """Start a read, unless one is pending or its data has not been taken. Under the lock."""
        while self._read is None and not self._received and not self._is_at_end:
            try:
                self._read = completion_port().start(
                    lambda operation: operation.ReadFileInto(self._handle, self._buffer),
                    self._on_read,
                )
            except OSError:
                self._mark_closed()
                return
            if self._read.pending:
                return
            self._finish_read()

    def _on_read(self, operation: Any) -> None:
        """Finish a completed read, unless another method has."""
        with self._lock:
            if operation is self._read:
                self._finish_read()
        self.notify()

    def _finish_read(self) -> None:
        operation, self._read = self._read, None
        try:
            size = operation.getresult()
        except OSError:
            self._mark_closed()
            return
        self._received = memoryview(self._buffer)[:size]  # empty for an empty message: no end
        if size == len(self._buffer) < _CHUNK:
            self._buffer = bytearray(_CHUNK)  # the next one; _received keeps this one alive

    def _mark_closed(self) -> None:
        self._is_at_end = self._is_closed = True

    # -- writing ---------------------------------------------------------------------------

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write some of `buffers`; return how many bytes. Raises BlockingIOError, PeerClosed.

        After BlockingIOError the same bytes must be offered again: their write may be pending.
        """
        with self._lock:
            if self._write is not None and not self._write.pending:
                self._finish_write()
            if self._written:
                size, self._written = self._written, 0
                return size
            if self._is_closed:
                raise PeerClosed("the other end has hung up")
            if self._write is not None:
                raise BlockingIOError
            chunk = _copy_chunk(buffers)
            try:
                self._write = completion_port().start(
                    lambda operation: operation.WriteFile(self._handle, chunk), self._on_written
                )
            except OSError:
                self._is_closed = True  # bytes that the peer wrote before can still be read
                raise PeerClosed("the other end has hung up") from None
            if self._write.pending:
                raise BlockingIOError
            self._finish_write()
            size, self._written = self._written, 0
        if not size:
            raise PeerClosed("the other end has hung up")
        return size

    @property
    def unreported(self) -> int:
        """How many bytes have been written that write_nowait() has not returned yet."""
        with self._lock:
            if self._write is not None and not self._write.pending:
                self._finish_write()
            return self._written

    def _on_written(self, operation: Any) -> None:
        """Finish a write, unless another method has."""
        with self._lock:
            if operation is self._write:
                self._finish_write()
        self.notify()

    def _finish_write(self) -> None:
        operation, self._write = self._write, None
        try:
            self._written = operation.getresult()
        except OSError:
            self._is_closed = True

    # -- the end ---------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close the handle. Threads that wait for this end, or the other, see a hang-up."""
        with self._lock:
            handle, self._handle = self._handle, 0
            if not handle:
                return
            for operation in (self._read, self._write):
                if operation is not None:
                    operation.cancel()
            self._read = self._write = None
            self._mark_closed()
            win32.api.CloseHandle(handle)
        self.notify()

    def close(self) -> None:
        """Hang up. The other end can still read what was written."""
        self.shutdown()
        self.unregister()


def _copy_chunk(buffers: Sequence[Buffer]) -> bytes:
    """Copy the first bytes of `buffers`, which a pending write may outlive."""
    if len(buffers[0]) >= _CHUNK:
        return bytes(buffers[0][:_CHUNK])
    pieces: list[Buffer] = []
    left = _CHUNK
    for buffer in buffers:
        pieces.append(buffer[:left])
        left -= len(pieces[-1])
        if not left:
            break
    return b"".join(pieces)
