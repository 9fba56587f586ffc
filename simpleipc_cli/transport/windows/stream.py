"""Named pipes of Windows, the client's half: a stream, names, and connecting to one.

Knows nothing of packets. A path becomes the name of a pipe as git has it (git:
compat/simple-ipc/ipc-win32.c): the pipe is no file, and nothing is at the path.
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

_LATE = "no complete answer in time"
_LOOK_EVERY = 0.05  # seconds; waiting for an instance cannot be cut short by Ctrl-C


def pipe_name(path: str) -> str:
    """The pipe that a path means. Raises InvalidPath for one that no pipe can have."""
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

    __slots__ = ("_asked", "_end", "_peer", "_readable", "_writable")

    def __init__(self, handle: int, *, accepted: bool) -> None:
        """Takes over a connected pipe; one that was accepted is the port's already.

        Raises OSError, and does not take it then.
        """
        self._end = OverlappedPipe(handle, attached=accepted)
        self._readable: WinPoller | None = None
        self._writable: WinPoller | None = None
        self._peer: Peer | None = None
        self._asked = handle
        if accepted:  # once the other end is closed, nobody knows any more
            self._peer = Peer(win32.process_at_other_end(handle, of_client=True), -1, -1)

    def fileno(self) -> int:
        """See Stream."""
        return self._end.descriptor

    def peer(self) -> Peer:
        """Whose process connected, or listened. Windows has no numbers for users."""
        if self._peer is None:  # most clients never ask, and what asks the system loads slowly
            self._peer = Peer(win32.process_at_other_end(self._asked, of_client=False), -1, -1)
        return self._peer

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        """See Stream."""
        while True:
            left = deadline.remaining()
            if left == 0.0:  # also when bytes are there: somebody may never stop writing
                raise TimedOut(_LATE)
            try:
                return self._end.read_nowait(buffer)
            except BlockingIOError:
                if self._readable is None:
                    self._readable = self._poller_for(READ)
                self._readable.wait(left)

    def read_nowait(self, buffer: Buffer) -> int:
        """See Stream."""
        return self._end.read_nowait(buffer)

    def peek_nowait(self) -> bool:
        """See Stream."""
        return self._end.peek_nowait()

    def write(self, buffers: Sequence[Buffer]) -> int:
        """See Stream."""
        while True:
            try:
                return self._end.write_nowait(buffers)
            except BlockingIOError:
                if self._writable is None:  # not the reader's: that is another thread
                    self._writable = self._poller_for(WRITE)
                self._writable.wait(None)

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """See Stream. Behind BlockingIOError, offer the same bytes again."""
        return self._end.write_nowait(buffers)

    def shutdown(self) -> None:
        """See Stream."""
        self._end.shutdown()

    def close(self) -> None:
        """See Stream."""
        self._end.close()
        for poller in (self._readable, self._writable):
            if poller is not None:
                poller.close()

    def _poller_for(self, wanted: int) -> WinPoller:
        poller = WinPoller()
        poller.register(self._end.descriptor, wanted)
        return poller


def connect(path: str, deadline: Deadline) -> WinStream:
    """Connect to the pipe of `path`; while all its instances are taken, wait for one.

    Raises NotListening (Busy if none was free until the deadline), PathNotFound,
    InvalidPath, NotPermitted.
    """
    name = pipe_name(path)
    while True:
        try:
            return _connect(name)
        except OSError as error:
            left = deadline.remaining()
            if win32.winerror(error) != win32.PIPE_BUSY or left == 0.0:
                raise endpoint_error(error, path) from None
        _wait_for_instance(name, _LOOK_EVERY if left is None else min(left, _LOOK_EVERY))


def connect_nowait(path: str) -> WinStream:
    """Connect if an instance is free at once. Raises what connect() raises."""
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


def _wait_for_instance(name: str, seconds: float) -> None:
    """Wait a while for a free instance, for which others wait, too."""
    try:
        win32.api.WaitNamedPipe(name, max(1, int(seconds * 1000)))
    except OSError:
        pass  # none, or no pipe any more: trying again tells


def endpoint_error(error: OSError, path: str) -> EndpointError:
    """What an operating system error says about the endpoint."""
    match win32.winerror(error):
        case win32.PIPE_BUSY:
            return ServerBusy(f"{path} is busy: all its instances are taken")
        case win32.FILE_NOT_FOUND | win32.PATH_NOT_FOUND:
            return PathNotFound(f"{path} does not exist")
        case win32.ACCESS_DENIED:
            return PermissionDenied(f"{path}: {win32.strerror(error)}")
        case win32.INVALID_NAME | win32.BAD_PATHNAME | win32.NAME_TOO_LONG | win32.BAD_NETPATH:
            return NotASocket(f"{path}: {win32.strerror(error)}")
        case _:
            return EndpointError(f"{path}: {win32.strerror(error)}")


def inspect(path: str) -> dict[str, object]:  # noqa: ARG001 - see transport.unix_inspect
    """A pipe is no file: it has no owner and no mode that could be read without opening it."""
    return {"type": "named pipe", "owner": None, "mode": None}
