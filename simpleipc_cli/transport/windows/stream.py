"""Streams over Windows named pipes, the names of pipes, and connecting to one.

Does not parse packets. A path is converted to the name of a pipe as in git (git:
compat/simple-ipc/ipc-win32.c). The pipe is not a file: no file exists at the path.

The system reports completed reads and writes, not readiness. So a read into a small buffer is
always pending: read_nowait() returns its data, and its failure reports that the peer has closed. At
most one write is pending. write_nowait() counts its bytes as written only when the write is
complete, so that closing the stream afterwards loses none of them. While bytes are not counted, no
HANGUP is reported: the peer may have read them before it closed.
"""

from __future__ import annotations

import _thread
import os

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import (
    EndpointError,
    NotASocket,
    OutOfResources,
    PathNotFound,
    PeerClosed,
    PermissionDenied,
    ServerBusy,
    TimedOut,
)
from simpleipc_cli.transport.base import HANGUP, READ, WRITE, Peer, Stream
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.poller import Pollable, WinPoller, completion_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from simpleipc_cli.pktline import Buffer

PREFIX = "\\\\.\\pipe\\"
MAX_NAME = 256
"""Maximum number of characters in a pipe's full name (CreateNamedPipe)."""

PIPE_BUFFER = 64 * 1024
"""Size in bytes of the system's buffer per direction. Larger writes wait for their reader."""

_FIRST_BUFFER = 4 * 1024  # bytes in the first read buffer; enough for most connections
_CHUNK = 64 * 1024  # bytes per read or write (tunable)
_POLL_INTERVAL = 0.05  # seconds; Ctrl-C does not interrupt the wait for an instance


def pipe_name(path: str) -> str:
    """Return the name of the pipe for a path. Raises NotASocket if no pipe can have it."""
    if not path or "\0" in path:
        raise NotASocket("the path is empty" if not path else "the path has a NUL in it")
    if path.startswith(PREFIX):
        name = path
    else:
        real = os.path.realpath(path).replace("/", "\\")
        name = PREFIX + (real[0] + "_" + real[2:] if real[1:2] == ":" else real)
    if len(name) > MAX_NAME:
        raise NotASocket(f"{path} is too long for the name of a pipe")
    return name


class OverlappedPipe(Pollable):
    """One end of a pipe. One thread at a time may read, and another one write."""

    def __init__(self, handle: int, *, writes: bool = True, attached: bool = False) -> None:
        """Own a handle that was opened for overlapped operations. Raises OSError.

        `attached`: the handle is attached to the completion port. Without `writes` it is read-only.
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
            if wanted != WRITE:  # the system cancels a read if the thread that started it exits
                self._start_read()
            flags = READ if self._received or self._is_at_end else 0
            if self._write is not None:
                return flags  # the peer may have read its bytes before it closed
            if self._writes:
                flags |= WRITE
            if self._is_closed and not self._received and not self._written:
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
        """Start a read, unless one is pending or its data is unread. Hold the lock."""
        while self._read is None and not self._received and not self._is_at_end:
            try:
                self._read = completion_port().start(
                    lambda operation: operation.ReadFileInto(self._handle, self._buffer),
                    self._on_done,
                )
            except OSError:
                self._mark_closed()
                return
            if self._read.pending:
                return
            self._finish_read()

    def _on_done(self, operation: Any) -> None:
        """Finish a completed read or write, unless another method has done so."""
        with self._lock:
            if operation is self._read:
                self._finish_read()
            elif operation is self._write:
                self._finish_write()
        self.notify()

    def _finish_read(self) -> None:
        operation, self._read = self._read, None
        try:
            size = operation.getresult()
        except OSError:
            self._mark_closed()
            return
        self._received = memoryview(self._buffer)[:size]  # empty: an empty write, not the end
        if size == len(self._buffer) < _CHUNK:
            self._buffer = bytearray(_CHUNK)  # for the next read; _received keeps the old one

    def _mark_closed(self) -> None:
        self._is_at_end = self._is_closed = True

    # -- writing ---------------------------------------------------------------------------

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write a part of `buffers`; return its size. Raises BlockingIOError, PeerClosed.

        After BlockingIOError, pass the same bytes again: their write may be pending.
        """
        with self._lock:
            if self._write is not None and not self._write.pending:
                self._finish_write()
            if self._written:
                size, self._written = self._written, 0
                return size
            if self._write is not None:
                raise BlockingIOError
            if self._is_closed:
                raise PeerClosed("the peer has closed the connection")
            chunk = _copy_chunk(buffers)
            try:
                self._write = completion_port().start(
                    lambda operation: operation.WriteFile(self._handle, chunk), self._on_done
                )
            except OSError:
                self._is_closed = True  # bytes that the peer wrote earlier can still be read
                raise PeerClosed("the peer has closed the connection") from None
            if self._write.pending:
                raise BlockingIOError
            self._finish_write()
            size, self._written = self._written, 0
        if not size:
            raise PeerClosed("the peer has closed the connection")
        return size

    @property
    def unreported(self) -> int:
        """Number of written bytes that write_nowait() has not returned yet."""
        with self._lock:
            if self._write is not None and not self._write.pending:
                self._finish_write()
            return self._written

    def _finish_write(self) -> None:
        operation, self._write = self._write, None
        try:
            self._written = operation.getresult()
        except OSError:
            self._is_closed = True

    # -- the end ---------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close the handle. Threads that wait for either end get HANGUP."""
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
        """Close the pipe. The peer can still read the bytes that were written."""
        self.shutdown()
        self.unregister()


def _copy_chunk(buffers: Sequence[Buffer]) -> bytes:
    """Copy the first bytes of `buffers`: the caller may change them while the write is pending."""
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


class WinStream(OverlappedPipe, Stream):
    """One connection over a named pipe."""

    def __init__(self, handle: int, *, accepted: bool) -> None:
        """Own a connected pipe; an accepted pipe is already attached to the completion port.

        After an OSError the caller still owns the pipe.
        """
        super().__init__(handle, attached=accepted)
        self._waiters: dict[int, WinPoller] = {}  # by event: reader and writer may be two threads
        self._peer: Peer | None = None
        if accepted:  # now, as the system does not know it after the client has closed
            self._peer = Peer(win32.peer_pid(handle, of_client=True), -1, -1)

    def peer(self) -> Peer:
        """Return the peer; users have no numbers on Windows."""
        if self._peer is None:  # on demand: few clients need the peer, and ctypes loads slowly
            self._peer = Peer(win32.peer_pid(self._handle, of_client=False), -1, -1)
        return self._peer

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        while True:
            left = deadline.remaining()
            if left == 0.0:  # even if data is available: the peer may write without end
                raise TimedOut("no complete response in time")
            try:
                return self.read_nowait(buffer)
            except BlockingIOError:
                self._wait(READ, left)

    def write(self, buffers: Sequence[Buffer]) -> int:
        while True:
            try:
                return self.write_nowait(buffers)
            except BlockingIOError:
                self._wait(WRITE, None)

    def _wait(self, event: int, timeout: float | None) -> None:
        if event not in self._waiters:
            self._waiters[event] = WinPoller()
            self._waiters[event].register(self.descriptor, event)
        self._waiters[event].wait(timeout)

    def close(self) -> None:
        super().close()
        for poller in self._waiters.values():
            poller.close()


def connect(path: str, deadline: Deadline) -> WinStream:
    """Connect to the pipe of `path`; wait while all its instances are in use.

    Raises ServerBusy if no instance is free until the deadline, PathNotFound, NotASocket,
    PermissionDenied.
    """
    name = pipe_name(path)
    while True:
        try:
            return _connect(name)
        except OSError as error:
            left = deadline.remaining()
            if win32.winerror(error) != win32.PIPE_BUSY or left == 0.0:
                raise endpoint_error(error, path) from None
        seconds = _POLL_INTERVAL if left is None else min(left, _POLL_INTERVAL)
        try:
            win32.api.WaitNamedPipe(name, max(1, int(seconds * 1000)))
        except OSError:
            pass  # no instance is free, or the pipe was closed: the next try shows which


def connect_nowait(path: str) -> WinStream:
    """Connect if an instance is free. Raises the errors of connect()."""
    return connect(path, Deadline(0.0))


def _connect(name: str) -> WinStream:
    api = win32.api
    flags = api.FILE_FLAG_OVERLAPPED | win32.IDENTIFY_ONLY
    handle = api.CreateFile(
        name, api.GENERIC_READ | api.GENERIC_WRITE, 0, api.NULL, api.OPEN_EXISTING, flags, api.NULL
    )
    try:
        return WinStream(handle, accepted=False)
    except BaseException:
        api.CloseHandle(handle)
        raise


def endpoint_error(error: OSError, path: str) -> EndpointError:
    """Translate an operating system error about the endpoint."""
    match win32.winerror(error):
        case win32.PIPE_BUSY:
            return ServerBusy(f"{path} is busy: all its instances are in use")
        case win32.FILE_NOT_FOUND | win32.PATH_NOT_FOUND:
            return PathNotFound(f"{path} does not exist")
        case win32.ACCESS_DENIED:
            return PermissionDenied(f"{path}: {win32.strerror(error)}", "check whose server it is")
        case win32.INVALID_NAME | win32.BAD_PATHNAME | win32.NAME_TOO_LONG | win32.BAD_NETPATH:
            return NotASocket(f"{path}: {win32.strerror(error)}")
        case _:
            kind = OutOfResources if win32.is_scarce(error) else EndpointError
            hint = win32.hint(error, "try again later, or choose another path")
            return kind(f"{path}: {win32.strerror(error)}", hint)


def endpoint_info(path: str) -> dict[str, object]:  # noqa: ARG001 - see unix.stream
    """Return only the type: reading owner and mode of a pipe would open it."""
    return {"type": "named pipe", "owner": None, "mode": None}
