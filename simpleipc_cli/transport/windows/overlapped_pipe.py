"""One end of a pipe on Windows, made to look as if it could be asked what is ready.

A read is always going, into a small buffer of ours: what it brought can be taken without
waiting, and that it fails is how one learns that the other end has closed. At most one write
is going; what it writes is counted as written only when the system has taken it, so that
closing behind that loses nothing: the other end can still read it.
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
"""Bytes that the system is asked to keep each way. Larger writes wait for their reader."""

_FIRST_ROOM = 4 * 1024  # bytes to read into; most connections never need more
_MOST_AT_ONCE = 64 * 1024  # bytes read or written at once, at will


class OverlappedPipe(Pollable):
    """One end of a pipe. Reading is for one thread at a time, writing for another."""

    def __init__(self, handle: int, *, writes: bool = True, attached: bool = False) -> None:
        """Takes over a handle that was opened for overlapped use. Raises OSError.

        `attached`: the port has it already. Without `writes` it can only be read.
        """
        if not attached:
            completion_port().attach(handle)
        super().__init__()
        self._handle = handle
        self._writes = writes
        self._lock = _thread.allocate_lock()
        self._reading: Any = None
        self._room = bytearray(_FIRST_ROOM)
        self._got = memoryview(b"")
        self._ended = False  # nothing more will come
        self._lost = False  # the other end is closed
        self._writing: Any = None
        self._written = 0  # bytes that a write has brought home and nobody has been told of

    def ready(self, wanted: int) -> int:
        """See Pollable."""
        with self._lock:
            if wanted != WRITE:  # else a thread might begin it that only writes, and then ends
                self._read_on()
            flags = READ if self._got or self._ended else 0
            if self._writes and (self._writing is None or self._lost):
                flags |= WRITE
            if self._lost and not self._got:
                flags |= HANGUP
            return flags

    # -- reading ---------------------------------------------------------------------------

    def read_nowait(self, buffer: Buffer) -> int:
        """Put what has come into `buffer`; 0 at the end. Raises BlockingIOError."""
        with self._lock:
            self._read_on()
            if not self._got:
                if self._ended:
                    return 0
                raise BlockingIOError
            size = min(len(self._got), len(buffer))
            memoryview(buffer)[:size] = self._got[:size]
            self._got = self._got[size:]
            self._read_on()
            return size

    def peek_nowait(self) -> bool:
        """Whether a byte has come; False at the end. Raises BlockingIOError."""
        with self._lock:
            self._read_on()
            if not self._got and not self._ended:
                raise BlockingIOError
            return bool(self._got)

    def _read_on(self) -> None:
        """See that a read is going, unless what it brought is still there. Under the lock."""
        while self._reading is None and not self._got and not self._ended:
            try:
                self._reading = completion_port().start(
                    lambda operation: operation.ReadFileInto(self._handle, self._room),
                    self._on_read,
                )
            except OSError:
                self._lose()
                return
            if self._reading.pending:
                return
            self._take_read()

    def _on_read(self, operation: Any) -> None:
        """The port: a read is done. It may have been seen to before."""
        with self._lock:
            if operation is self._reading:
                self._take_read()
        self.notify()

    def _take_read(self) -> None:
        operation, self._reading = self._reading, None
        try:
            size = operation.getresult()
        except OSError:
            self._lose()
            return
        self._got = memoryview(self._room)[:size]  # empty for an empty message: no end
        if size == len(self._room) < _MOST_AT_ONCE:
            self._room = bytearray(_MOST_AT_ONCE)  # for the next; this one lives on in _got

    def _lose(self) -> None:
        self._ended = self._lost = True

    # -- writing ---------------------------------------------------------------------------

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write some of `buffers`; how many bytes. Raises BlockingIOError, PeerGone.

        Behind BlockingIOError the same bytes must be offered again: they may be on their way.
        """
        with self._lock:
            if self._writing is not None and not self._writing.pending:
                self._take_write()
            if self._written:
                size, self._written = self._written, 0
                return size
            if self._lost:
                raise PeerClosed("the other end has hung up")
            if self._writing is not None:
                raise BlockingIOError
            piece = _first(buffers)
            try:
                self._writing = completion_port().start(
                    lambda operation: operation.WriteFile(self._handle, piece), self._on_written
                )
            except OSError:
                self._lost = True  # what it wrote before can still be read
                raise PeerClosed("the other end has hung up") from None
            if self._writing.pending:
                raise BlockingIOError
            self._take_write()
            size, self._written = self._written, 0
        if not size:
            raise PeerClosed("the other end has hung up")
        return size

    @property
    def unreported(self) -> int:
        """How many bytes have been written that write_now() is still to tell of."""
        with self._lock:
            if self._writing is not None and not self._writing.pending:
                self._take_write()
            return self._written

    def _on_written(self, operation: Any) -> None:
        """The port: a write is done. It may have been seen to before."""
        with self._lock:
            if operation is self._writing:
                self._take_write()
        self.notify()

    def _take_write(self) -> None:
        operation, self._writing = self._writing, None
        try:
            self._written = operation.getresult()
        except OSError:
            self._lost = True

    # -- the end ---------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close the handle. Whoever waits on this end, or the other, sees a hang-up."""
        with self._lock:
            handle, self._handle = self._handle, 0
            if not handle:
                return
            for operation in (self._reading, self._writing):
                if operation is not None:
                    operation.cancel()
            self._reading = self._writing = None
            self._lose()
            win32.api.CloseHandle(handle)
        self.notify()

    def close(self) -> None:
        """Hang up. What was written can still be read at the other end."""
        self.shutdown()
        self.unregister()


def _first(buffers: Sequence[Buffer]) -> bytes:
    """The first bytes of `buffers`, as a copy: a write may go on when they are gone."""
    if len(buffers[0]) >= _MOST_AT_ONCE:
        return bytes(buffers[0][:_MOST_AT_ONCE])
    pieces: list[Buffer] = []
    left = _MOST_AT_ONCE
    for buffer in buffers:
        pieces.append(buffer[:left])
        left -= len(pieces[-1])
        if not left:
            break
    return b"".join(pieces)
