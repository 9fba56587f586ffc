"""Unix domain sockets, the client's half: a stream, and connecting to a path.

Knows nothing of packets. Imports `_socket` in place of `socket`, whose enums cost more
than all the rest of a small exchange.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

from simpleipc_cli.errors import (
    EndpointError,
    NotASocket,
    NotListening,
    PathNotFound,
    PeerClosed,
    PermissionDenied,
    ServerBusy,
    SipcError,
    TimedOut,
)
from simpleipc_cli.message import MAX_BUFFERS
from simpleipc_cli.transport.base import Peer, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer

MAX_ADDRESS = 107
"""Bytes of a path that fit into a socket address, its closing NUL not counted (unix(7))."""

_UCRED_SIZE = 12  # bytes: three numbers of the kernel's (unix(7), struct ucred)
_LONGEST_WAIT = 1.0
"""Seconds in the kernel at once, at will. Python looks for signals only outside: one that comes
just before the call would not be seen before its end."""

_LATE = "no complete answer in time"
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class UnixStream(Stream):
    """One connection over a Unix domain socket."""

    __slots__ = ("_patience", "_socket")

    def __init__(self, connected: _socket.socket) -> None:
        """Takes over a connected socket: a blocking one, if what waits is ever to be called."""
        self._socket = connected
        self._patience = 0.0  # of the kernel, in a read; 0 is without end

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def peer(self) -> Peer:
        """Who connected, or who listened, from SO_PEERCRED."""
        found = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_SIZE)
        return Peer(*memoryview(found).cast("i"))

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        """See Stream."""
        while True:
            left = deadline.remaining()
            if left == 0.0:  # also when bytes are there: somebody may never stop writing
                raise TimedOut(_LATE)
            patience = _LONGEST_WAIT if left is None else min(left, _LONGEST_WAIT)
            if patience != self._patience:
                self._patience = patience
                _limit(self._socket, _socket.SO_RCVTIMEO, patience)
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return 0

    def read_nowait(self, buffer: Buffer) -> int:
        """See Stream."""
        try:
            return self._socket.recv_into(buffer, 0, _socket.MSG_DONTWAIT)
        except ConnectionResetError:
            return 0

    def peek_nowait(self) -> bool:
        """See Stream."""
        try:
            return bool(self._socket.recv(1, _socket.MSG_DONTWAIT | _socket.MSG_PEEK))
        except ConnectionResetError:
            return False

    def write(self, buffers: Sequence[Buffer]) -> int:
        """See Stream."""
        return self._send(buffers, 0)

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """See Stream."""
        return self._send(buffers, _socket.MSG_DONTWAIT)

    def _send(self, buffers: Sequence[Buffer], flags: int) -> int:
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0], flags | _socket.MSG_NOSIGNAL)
            return self._socket.sendmsg(buffers[:MAX_BUFFERS], (), flags | _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in _GONE:
                raise PeerClosed("the other end has hung up") from None
            raise SipcError(f"cannot write to the connection: {error.strerror}") from error

    def shut_down(self) -> None:
        """See Stream."""
        try:
            self._socket.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass  # the other end was faster

    def close(self) -> None:
        """See Stream."""
        self._socket.close()


def connect(path: str, deadline: Deadline) -> UnixStream:
    """Connect to the socket at `path`; while its queue is full, wait for room.

    Raises NotListening (Busy if there was no room until the deadline), PathNotFound,
    InvalidPath, NotPermitted.
    """
    return _connected(path, deadline)


def connect_nowait(path: str) -> UnixStream:
    """Connect if there is room at once. Only what never waits may be asked of the stream.

    Raises what connect() raises.
    """
    return _connected(path, None)


def _connected(path: str, deadline: Deadline | None) -> UnixStream:
    """Connect without waiting; if there is no room, and a deadline, connect and wait."""
    connecting = new_socket(path, _socket.SOCK_NONBLOCK)
    try:
        with SocketAddress(path) as address:
            try:
                connecting.connect(address)
            except BlockingIOError:
                if deadline is None or deadline.remaining() == 0.0:
                    raise
                connecting.setblocking(True)
                _connect(connecting, address, deadline)
            else:
                if deadline is not None:
                    connecting.setblocking(True)
    except BaseException as error:
        connecting.close()
        if isinstance(error, OSError):
            raise endpoint_error(error, path) from None
        raise
    return UnixStream(connecting)


def new_socket(path: str, flags: int = 0) -> _socket.socket:
    """A stream socket. Raises EndpointError when the system has none; `path` is for the text."""
    try:
        return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | flags)
    except OSError as error:
        raise EndpointError(
            f"no socket for {path}: {error.strerror}", "allow more descriptors with ulimit -n"
        ) from None


def _connect(connecting: _socket.socket, address: str | bytes, deadline: Deadline) -> None:
    """Connect, blocking: a non-blocking connect takes a full queue for a failure (EAGAIN).

    The kernel's own time limit (SO_SNDTIMEO) ends the wait, and it ends at once when there
    is room. Python takes a connect that a stop signal interrupted for one that goes on in
    the background, which on Unix sockets it does not: so ask whether there is a peer.
    """
    while True:
        left = deadline.remaining()
        if left == 0.0:
            connecting.setblocking(False)
        elif left is not None:
            _limit(connecting, _socket.SO_SNDTIMEO, left)
        connecting.connect(address)
        try:
            connecting.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            continue
        break
    connecting.setblocking(True)
    if left is not None:
        _limit(connecting, _socket.SO_SNDTIMEO, None)


def _limit(limited: _socket.socket, option: int, seconds: float | None) -> None:
    """Set a kernel time limit; None for none, and never 0, which would mean none."""
    micros = 0 if seconds is None else max(1, int(seconds * 1_000_000))
    value = memoryview(bytearray(16)).cast("l")[:2]  # struct timeval; `struct` is slow to load
    value[0], value[1] = divmod(micros, 1_000_000)
    limited.setsockopt(_socket.SOL_SOCKET, option, value)


class SocketAddress:
    """A path as a socket address takes it, whatever the path's length.

    A path that does not fit is opened, and named by its descriptor. Used in a `with`.
    """

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: str) -> None:
        """Nothing is opened yet. Raises InvalidPath for a name that no file can have."""
        if not path or "\0" in path:
            raise NotASocket("the path is empty" if not path else "the path has a NUL in it")
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> str | bytes:
        """The address. Raises OSError."""
        raw = os.fsencode(self._path)
        if len(raw) <= MAX_ADDRESS:
            return raw
        self._descriptor = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        """Close what was opened."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


def endpoint_error(error: OSError, path: str) -> EndpointError:  # noqa: PLR0911
    """What an operating system error says about the endpoint."""
    match error.errno:
        case errno.ECONNREFUSED:
            return _refused(path)
        case errno.EAGAIN:
            return ServerBusy(f"{path} is busy: its queue is full")
        case errno.ENOENT:
            return PathNotFound(f"{path} does not exist")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return PermissionDenied(f"{path}: {_words(error)}")
        case errno.EPROTOTYPE:
            return NotASocket(f"{path} is a socket of another type, not a stream")
        case errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG | errno.EINVAL:
            return NotASocket(f"{path}: {_words(error)}")
        case _:
            return EndpointError(f"{path}: {_words(error)}")


def _words(error: OSError) -> str:
    """The system's own words, beginning small, as they stand behind a colon."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def _refused(path: str) -> EndpointError:
    """Linux refuses for stale sockets, and for everything else that is no socket."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return PathNotFound(f"{path} does not exist any more")
    if stat.S_ISSOCK(mode):
        return NotListening(f"nobody is listening on {path}")
    return NotASocket(f"{path} is {file_type(mode)}, not a socket")


def file_type(mode: int) -> str:
    """What a file with this `st_mode` is, in words."""
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a socket" if stat.S_ISSOCK(mode) else "a device or pipe"
