"""Named pipes of Windows, the client's half: a stream, names, and connecting to one.

Knows nothing of packets. A path becomes the name of a pipe as in git (git:
compat/simple-ipc/ipc-win32.c). The pipe is not a file: nothing exists at the path.
"""

from __future__ import annotations

import os

from simpleipc_cli.errors import (
    EndpointError,
    NotASocket,
    PathNotFound,
    PermissionDenied,
    ServerBusy,
    TimedOut,
)
from simpleipc_cli.transport.base import READ, WRITE, Peer, Stream
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.overlapped_pipe import OverlappedPipe
from simpleipc_cli.transport.windows.poller import WinPoller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer

PREFIX = "\\\\.\\pipe\\"
MAX_NAME = 256
"""Characters of a pipe's whole name (CreateNamedPipe)."""

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


class WinStream(Stream):
    """One connection over a named pipe."""

    __slots__ = ("_handle", "_peer", "_pipe", "_read_poller", "_write_poller")

    def __init__(self, handle: int, *, accepted: bool) -> None:
        """Take over a connected pipe; an accepted one is attached to the completion port.

        If it raises OSError, the caller still owns the pipe.
        """
        self._pipe = OverlappedPipe(handle, attached=accepted)
        self._read_poller: WinPoller | None = None
        self._write_poller: WinPoller | None = None
        self._peer: Peer | None = None
        self._handle = handle
        if accepted:  # unknown once the client has closed
            self._peer = Peer(win32.peer_pid(handle, of_client=True), -1, -1)

    def fileno(self) -> int:
        return self._pipe.descriptor

    def peer(self) -> Peer:
        """Return the peer; users have no numbers on Windows."""
        if self._peer is None:  # few clients need it, and ctypes loads slowly
            self._peer = Peer(win32.peer_pid(self._handle, of_client=False), -1, -1)
        return self._peer

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        while True:
            left = deadline.remaining()
            if left == 0.0:  # even if data is available: the peer may never stop writing
                raise TimedOut("no complete response in time")
            try:
                return self._pipe.read_nowait(buffer)
            except BlockingIOError:
                if self._read_poller is None:
                    self._read_poller = self._poller_for(READ)
                self._read_poller.wait(left)

    def read_nowait(self, buffer: Buffer) -> int:
        return self._pipe.read_nowait(buffer)

    def peek_nowait(self) -> bool:
        return self._pipe.peek_nowait()

    def write(self, buffers: Sequence[Buffer]) -> int:
        while True:
            try:
                return self._pipe.write_nowait(buffers)
            except BlockingIOError:
                if self._write_poller is None:  # not the reader's, which another thread uses
                    self._write_poller = self._poller_for(WRITE)
                self._write_poller.wait(None)

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        return self._pipe.write_nowait(buffers)

    def shutdown(self) -> None:
        self._pipe.shutdown()

    def close(self) -> None:
        self._pipe.close()
        for poller in (self._read_poller, self._write_poller):
            if poller is not None:
                poller.close()

    def _poller_for(self, events: int) -> WinPoller:
        poller = WinPoller()
        poller.register(self._pipe.descriptor, events)
        return poller


def connect(path: str, deadline: Deadline) -> WinStream:
    """Connect to the pipe of `path`; while all its instances are in use, wait for one.

    Raises ServerBusy if none was free until the deadline, PathNotFound, NotASocket,
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
            pass  # no instance is free, or the pipe is gone: the next try shows which


def connect_nowait(path: str) -> WinStream:
    """Connect if an instance is free. Raises the errors of connect()."""
    try:
        return _connect(pipe_name(path))
    except OSError as error:
        raise endpoint_error(error, path) from None


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
            return EndpointError(
                f"{path}: {win32.strerror(error)}", "end some programs, or choose another path"
            )


def endpoint_info(path: str) -> dict[str, object]:  # noqa: ARG001 - see unix.stream
    """Return the type: owner and mode of a pipe cannot be read without opening it."""
    return {"type": "named pipe", "owner": None, "mode": None}
