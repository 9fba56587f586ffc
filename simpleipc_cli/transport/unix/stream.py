"""Streams over Unix domain sockets, and connecting to a path, as Linux does it best.

Other systems use the subclass in portable_stream.py. Does not parse packets. Imports `_socket` in
place of `socket`, whose enums take longer to load than the rest of a small exchange takes.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat
import sys

from simpleipc_cli.errors import (
    EndpointError,
    NotASocket,
    NotListening,
    OutOfResources,
    PathNotFound,
    PeerClosed,
    PermissionDenied,
    ServerBusy,
    SipcError,
    TimedOut,
    errno_hint,
    file_hint,
)
from simpleipc_cli.pktline import MAX_BUFFERS
from simpleipc_cli.transport.base import Peer, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer

IS_LINUX = sys.platform == "linux"
"""Whether the system calls have the meanings that Linux gives them. See portable_stream.py."""

MAX_ADDRESS = 107 if IS_LINUX else 103
"""Bytes of a path that fit into a socket address, not counting its NUL (unix(7), unix(4))."""

_MAX_TEMPORARY = 64  # bytes of $TMPDIR that leave space for "/sipc-XXXXXXXX/s/.sipc-XXXXXXXX"

O_PATH = getattr(os, "O_PATH", 0)
"""Flag to open a file without permission to read it; 0 (open for reading) if not supported."""

# Python ignores SIGPIPE, so systems without the flag do not need it.
_NO_SIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
_NONBLOCKING = getattr(_socket, "SOCK_NONBLOCK", 0)
_SO_PEERCRED = getattr(_socket, "SO_PEERCRED", 0)
_UCRED_SIZE = 12  # bytes of a struct ucred: three numbers (unix(7))
_MAX_BLOCKED = 1.0
"""Maximum time, in seconds, of one system call (tunable). Python handles signals only between
calls: a signal that arrives just before a call is handled after it."""

_MAX_SECONDS = 10 * 365 * 24 * 3600.0  # for the kernel's timers (tunable)

_CLOSED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class UnixStream(Stream):
    """One connection over a Unix domain socket."""

    __slots__ = ("_receive_timeout", "_socket")

    def __init__(self, connected: _socket.socket) -> None:
        """Own a connected socket, which must be blocking for read() and write()."""
        self._socket = connected
        self._receive_timeout = 0.0  # current SO_RCVTIMEO in seconds; 0: none

    def fileno(self) -> int:
        return self._socket.fileno()

    def peer(self) -> Peer:
        found = self._socket.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, _UCRED_SIZE)
        return Peer(*memoryview(found).cast("i"))

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        while True:
            left = deadline.remaining()
            if left == 0.0:  # even if data is available: the peer may write without end
                raise TimedOut("no complete response in time")
            timeout = _MAX_BLOCKED if left is None else min(left, _MAX_BLOCKED)
            if timeout != self._receive_timeout:
                self._receive_timeout = timeout
                _set_timeout(self._socket, _socket.SO_RCVTIMEO, timeout)
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return 0
            except OSError as error:
                raise read_error(error) from error

    def read_nowait(self, buffer: Buffer) -> int:
        try:
            return self._socket.recv_into(buffer, 0, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except ConnectionResetError:
            return 0
        except OSError as error:
            raise read_error(error) from error

    def peek_nowait(self) -> bool:
        try:
            return bool(self._socket.recv(1, _socket.MSG_DONTWAIT | _socket.MSG_PEEK))
        except ConnectionResetError:
            return False

    def write(self, buffers: Sequence[Buffer]) -> int:
        return self._send(buffers, 0)

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        return self._send(buffers, _socket.MSG_DONTWAIT)

    def _send(self, buffers: Sequence[Buffer], flags: int) -> int:
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0], flags | _NO_SIGNAL)
            return self._socket.sendmsg(buffers[:MAX_BUFFERS], (), flags | _NO_SIGNAL)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in _CLOSED:
                raise PeerClosed("the peer has closed the connection") from None
            what = f"cannot write to the connection: {error.strerror}"
            raise SipcError(what, socket_hint(error)) from error

    def shutdown(self) -> None:
        try:
            self._socket.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass  # the peer has closed

    def close(self) -> None:
        self._socket.close()


def read_error(error: OSError) -> SipcError:
    """Translate an operating system error about reading."""
    what = f"cannot read from the connection: {error.strerror}"
    return SipcError(what, socket_hint(error))


def connect(path: str, deadline: Deadline) -> UnixStream:
    """Connect to the socket at `path`; wait while its queue is full.

    Raises NotListening, ServerBusy if the queue stays full until the deadline, OutOfResources,
    PathNotFound, NotASocket, PermissionDenied.
    """
    return _connect(path, deadline)


def connect_nowait(path: str) -> UnixStream:
    """Connect without blocking. Use only the *_nowait methods of the stream.

    Raises the errors of connect().
    """
    return _connect(path, None)


def _connect(path: str, deadline: Deadline | None) -> UnixStream:
    """Connect; if the queue is full, block until the deadline, if there is one."""
    connecting = new_socket(path, _socket.SOCK_STREAM | _NONBLOCKING)
    try:
        if path.isascii() and 0 < len(path) <= MAX_ADDRESS and "\0" not in path:
            _connect_socket(connecting, path, deadline)  # most paths are addresses themselves
        else:
            with SocketAddress(path) as address:
                _connect_socket(connecting, address, deadline)
    except BaseException as error:
        connecting.close()
        if isinstance(error, BlockingIOError):
            raise busy_error(path) from None
        if isinstance(error, OSError):
            raise endpoint_error(error, path) from None
        raise
    return UnixStream(connecting)


def _connect_socket(
    connecting: _socket.socket, address: str | bytes, deadline: Deadline | None
) -> None:
    """Connect; make the socket blocking if there is a deadline. Raises OSError."""
    try:
        connecting.connect(address)
    except BlockingIOError:
        if deadline is None or deadline.remaining() == 0.0:
            raise
        connecting.setblocking(True)
        _connect_blocking(connecting, address, deadline)
    if deadline is not None:
        connecting.setblocking(True)


def busy_error(path: str) -> ServerBusy:
    """Return the error about a full queue."""
    return ServerBusy(f"{path} is busy: its queue is full")


def new_socket(path: str, kind: int = _socket.SOCK_STREAM) -> _socket.socket:
    """Return a socket. Raises EndpointError, which names `path`."""
    try:
        return _socket.socket(_socket.AF_UNIX, kind)
    except OSError as error:
        what = f"cannot create a socket for {path}: {error.strerror}"
        raise _other_error(what, error, socket_hint(error)) from None


def _connect_blocking(connecting: _socket.socket, address: str | bytes, deadline: Deadline) -> None:
    """Connect, blocking: a non-blocking connect fails while the queue is full (EAGAIN).

    The kernel's timeout (SO_SNDTIMEO) ends the wait. After a stop signal, Python assumes that
    connect() continues in the background. It does not for Unix sockets: so check for a peer.
    """
    while True:
        left = deadline.remaining()
        if left == 0.0:
            connecting.setblocking(False)
        elif left is not None:
            _set_timeout(connecting, _socket.SO_SNDTIMEO, left)
        connecting.connect(address)
        try:
            connecting.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            continue
        break
    if left is not None:
        _set_timeout(connecting, _socket.SO_SNDTIMEO, None)


def _set_timeout(target: _socket.socket, option: int, seconds: float | None) -> None:
    """Set a kernel timeout; None means no timeout."""
    value = _MAX_TIMEVAL if seconds == _MAX_BLOCKED else _timeval(seconds or 0.0)
    target.setsockopt(_socket.SOL_SOCKET, option, value)


def _timeval(seconds: float) -> memoryview:
    """Return a struct timeval. 0 means no timeout; any other time is rounded up to 1 us."""
    micros = max(1, int(min(seconds, _MAX_SECONDS) * 1_000_000)) if seconds else 0
    value = memoryview(bytearray(16)).cast(_TIMEVAL_CODE)[:2]  # `struct` loads slowly
    value[0], value[1] = divmod(micros, 1_000_000)
    return value


def timeval_code(option: int) -> Literal["q", "l"]:
    """Return the type of the two numbers of a struct timeval, as in the module `struct`.

    `option`: SO_RCVTIMEO or SO_SNDTIMEO. 66 and 67 take 64-bit numbers on a 32-bit system, too
    (SO_RCVTIMEO_NEW in asm-generic/socket.h).
    """
    return "q" if option in (66, 67) else "l"


_TIMEVAL_CODE = timeval_code(_socket.SO_RCVTIMEO)
_MAX_TIMEVAL = _timeval(_MAX_BLOCKED)  # most calls need no other


class SocketAddress:
    """A path as a socket address, in a `with`.

    A path that is too long is reached by a short name: through /proc/self/fd, or without /proc by a
    symbolic link in a private directory.
    """

    __slots__ = ("_descriptor", "_folder", "_is_new", "_path")

    def __init__(self, path: str, *, is_new: bool = False) -> None:
        """`is_new`: the file does not exist yet, its folder does, and its name is short.

        Raises NotASocket if no file can have this name.
        """
        if not path or "\0" in path:
            raise NotASocket("the path is empty" if not path else "the path has a NUL in it")
        self._path = path
        self._is_new = is_new
        self._descriptor = -1
        self._folder = ""

    def __enter__(self) -> str | bytes:
        """Return the address. Raises OSError about the path, EndpointError."""
        raw = os.fsencode(self._path)
        if len(raw) <= MAX_ADDRESS:
            return raw
        if not self._is_new:
            return self._shorten(self._path)
        folder, name = os.path.split(self._path)
        return f"{self._shorten(folder)}/{name}"

    def _shorten(self, path: str) -> str:
        if O_PATH:
            self._descriptor = os.open(path, O_PATH | os.O_CLOEXEC)
            short = fd_path(self._descriptor)
            if os.path.lexists(short):
                return short
        import tempfile  # noqa: PLC0415 - only for long paths without /proc

        try:
            parent = tempfile.gettempdir()
            if len(os.fsencode(parent)) > _MAX_TEMPORARY:
                parent = "/tmp"  # noqa: S108 - a new folder with a random name
            self._folder = tempfile.mkdtemp(prefix="sipc-", dir=parent)
            os.symlink(os.path.abspath(path), f"{self._folder}/s")
        except BaseException as error:
            self.__exit__()
            if not isinstance(error, OSError):
                raise
            raise EndpointError(
                f"cannot create a short name for {path}: {lower_strerror(error)}",
                file_hint(error, "choose a shorter path"),
            ) from error
        return f"{self._folder}/s"

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._folder:
            try:
                os.unlink(f"{self._folder}/s")
            except FileNotFoundError:
                pass  # the link was not created
            os.rmdir(self._folder)


def fd_path(descriptor: int) -> str:
    """Return a short path to an open file or folder (proc(5))."""
    return f"/proc/self/fd/{descriptor}"


def is_bound(path: str) -> bool:
    """Return False if the kernel reports that no process has the socket at `path` open.

    Use a datagram socket: its connect() fails with EPROTOTYPE, also while the queue is full, and
    the server gets no connection (unp_connect() of XNU and the BSDs, unix_find_bsd() of Linux).

    Raises EndpointError without descriptors.
    """
    probing = new_socket(path, _socket.SOCK_DGRAM)
    try:
        with SocketAddress(path) as address:
            probing.connect(address)
    except ConnectionRefusedError:
        return False
    except OSError:
        pass  # EPROTOTYPE; or EACCES, if the mode denies access
    finally:
        probing.close()
    return True


def endpoint_error(error: OSError, path: str) -> EndpointError:  # noqa: PLR0911
    """Translate an operating system error about the endpoint."""
    match error.errno:
        case errno.ECONNREFUSED | errno.ENOTSOCK:
            return _refused(path)
        case errno.ENOENT:
            return PathNotFound(f"{path} does not exist")
        case errno.EACCES | errno.EPERM:
            return PermissionDenied(f"{path}: {lower_strerror(error)}")
        case errno.EROFS:
            return PermissionDenied(f"{path}: {lower_strerror(error)}", "choose another path")
        case errno.EPROTOTYPE:
            return NotASocket(f"{path} is a socket, but not a stream socket")
        case errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG | errno.EINVAL:
            return NotASocket(f"{path}: {lower_strerror(error)}")
        case _:
            hint = file_hint(error, socket_hint(error))
            return _other_error(f"{path}: {lower_strerror(error)}", error, hint)


def _other_error(text: str, error: OSError, hint: str) -> EndpointError:
    is_scarce = error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
    return (OutOfResources if is_scarce else EndpointError)(text, hint)


def socket_hint(error: OSError) -> str:
    """Return advice for an error about a socket that has no class of its own."""
    if error.errno in (errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES, errno.ENOSYS):
        return "allow Unix domain sockets in this process's sandbox"
    return errno_hint(error, "try again later")


def lower_strerror(error: OSError) -> str:
    """Return the system's message with a small first letter, for use after a colon."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def _refused(path: str) -> EndpointError:
    """Explain ECONNREFUSED: Linux returns it for a stale socket and for any other type of file.

    For other types of files, other systems return ENOTSOCK.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return PathNotFound(f"{path} no longer exists")
    except OSError as error:
        return endpoint_error(error, path)
    if stat.S_ISSOCK(mode):
        return NotListening(f"no server is listening on {path}")
    return NotASocket(f"{path} is {file_type(mode)}, not a socket")


def file_type(mode: int) -> str:
    """Describe the type in a file's `st_mode`."""
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a socket" if stat.S_ISSOCK(mode) else "a device or pipe"


def endpoint_info(path: str) -> dict[str, object]:
    """Return type, owner's name (or number) and mode of the file at `path`; None if unknown."""
    import pwd  # noqa: PLC0415 - `send` does not need it

    try:
        found = os.stat(path)
    except OSError:
        return {"type": None, "owner": None, "mode": None}
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return {
        "type": file_type(found.st_mode).split(" ", 1)[1],
        "owner": owner,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
    }
