"""Listeners on Unix domain sockets: created by this process, or inherited.

A socket gets its path only when it listens: it is first bound to a temporary name in the same
directory. Then the server checks, while it holds git's `PATH.lock`, that no other server has the
path. So if several servers start at the same time, git's own included, exactly one gets the path
(git: unix-stream-server.c).
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from simpleipc_cli.errors import NotASocket, PermissionDenied, SipcError
from simpleipc_cli.system import absolute_path
from simpleipc_cli.transport.base import OutOfDescriptors
from simpleipc_cli.transport.base_server import Listener
from simpleipc_cli.transport.unix.lock import ParentFolder, PathLock, is_listening
from simpleipc_cli.transport.unix.stream import (
    IS_LINUX,
    UnixStream,
    endpoint_error,
    is_bound,
    lower_strerror,
    new_socket,
    socket_hint,
)

if sys.platform == "linux":
    AcceptedStream = UnixStream
else:
    from simpleipc_cli.transport.unix.portable_stream import PortableStream

    AcceptedStream = PortableStream

_MAX_ABORTED = 1000  # clients in a row that have closed before they were accepted (tunable)
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SOCKET_UNIT = "use a socket unit that has ListenStream= with a path"


class UnixListener(Listener):
    """A listening Unix domain socket that has a path."""

    def __init__(self, listening: _socket.socket, path: str, identity: tuple[int, int]) -> None:
        """Own the socket; `identity` is the path's device and inode number.

        The kernel reuses inode numbers, but not this one while the socket is open.
        """
        self.path = path
        self._socket = listening
        self._identity = identity

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> UnixStream:
        for _ in range(_MAX_ABORTED):
            try:
                if not IS_LINUX:
                    # XNU closes the connection if accept(2) finds no free descriptor: try before.
                    os.close(os.dup(self._socket.fileno()))
                descriptor, _ = self._socket._accept()  # type: ignore[attr-defined]
                break
            except BlockingIOError:
                raise
            except ConnectionAbortedError:
                continue  # that client has closed; on FreeBSD, also after stop_listening()
            except OSError as error:
                if error.errno == errno.EINVAL:  # no longer listening, and the queue is empty
                    raise BlockingIOError from None
                if error.errno in _OUT_OF_DESCRIPTORS:
                    raise OutOfDescriptors from None
                what = f"cannot accept on {self.path}: {error.strerror}"
                raise SipcError(what, socket_hint(error)) from error
        else:
            raise BlockingIOError
        return AcceptedStream(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor))

    def owns_path(self) -> bool:
        try:
            return self._is_at_path()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # unknown: a folder may be inaccessible for a moment

    def _is_at_path(self) -> bool:
        found = os.lstat(self.path)
        return (found.st_dev, found.st_ino) == self._identity

    def stop_listening(self) -> str | None:
        """Remove the path. No lock is needed: no server takes a path on which another listens."""
        warning = None
        try:
            if self._is_at_path():
                os.unlink(self.path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            warning = f"cannot remove {self.path}: {error.strerror}"
        # Fails except on Linux, where a client that has found the path before is now refused.
        with suppress(OSError):
            self._socket.shutdown(_socket.SHUT_RD)
        return warning

    def close(self) -> None:
        self._socket.close()


def listen(
    path: str,
    *,
    mode: int,
    backlog: int,
    group: int | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> UnixListener:
    """Listen on `path`, which is created with this mode and group.

    A stale socket is replaced. Raises AddressInUse if a server listens there, NotASocket if
    another file is there, PathNotFound if the folder is missing, PermissionDenied, and Cancelled if
    `cancelled` returns True while another process holds the lock.
    """
    try:
        with ParentFolder(path) as folder:
            return _listen(folder, mode, group, backlog, cancelled)
    except OSError as error:
        raise endpoint_error(error, path) from error


def _listen(
    folder: ParentFolder, mode: int, group: int | None, backlog: int, cancelled: Callable[[], bool]
) -> UnixListener:
    folder.check_path()
    listening = new_socket(folder.path)
    try:
        with suppress(OSError):  # EINVAL except on Linux; no client can connect before listen()
            os.fchmod(listening.fileno(), mode)  # bind() takes this mode, less the umask
        name = folder.bind(listening)
        try:
            if group is not None:
                _chgrp(group, name, folder)
            os.chmod(name, mode, dir_fd=folder.descriptor)  # just created: not a link
            listening.listen(backlog)
            listening.setblocking(False)
            _check_accept(listening, folder.path)
            with PathLock(folder, cancelled):
                # link(2) cannot replace these two calls: some file systems have none, and on others
                # the new name is another inode, at which clients do not find the socket.
                folder.check_path()
                folder.rename(name)
                name = folder.name
                found = folder.stat(name)
                _check_reachable(folder.path)
        except BaseException:
            with suppress(OSError):  # the first error is reported
                folder.unlink(name)
            raise
    except BaseException:
        listening.close()
        raise
    return UnixListener(listening, folder.path, (found.st_dev, found.st_ino))


def _check_accept(listening: _socket.socket, path: str) -> None:
    """Raise SipcError if a sandbox forbids to accept connections."""
    try:  # no client knows the socket yet
        os.close(listening._accept()[0])  # type: ignore[attr-defined]
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOSYS}:
            what = f"cannot accept on {path}: {error.strerror}"
            raise SipcError(what, "allow accept4(2) in the sandbox") from error


def _check_reachable(path: str) -> None:
    # The second check takes a place in the queue; gVisor passes only that one.
    if not is_bound(path) and not is_listening(path):
        raise NotASocket(
            f"no client can connect to {path}: its file system cannot hold a socket",
            "choose a path on another file system",
        )


def _chgrp(group: int, name: str, folder: ParentFolder) -> None:
    try:
        os.chown(name, -1, group, dir_fd=folder.descriptor, follow_symlinks=False)
    except PermissionError:
        raise PermissionDenied(
            f"{folder.path} cannot be given to group {group}", "name a group that you are in"
        ) from None


class UnixInheritedListener(UnixListener):
    """A listening socket that the service manager created and keeps open.

    The server never shuts it down or removes its path: clients that connect while no server runs
    wait in the queue for the next server (sd_listen_fds(3)).
    """

    is_externally_owned = True
    can_lose_path = False

    def __init__(self, listening: _socket.socket) -> None:
        super().__init__(listening, _name_of(listening), (0, 0))

    def is_at(self, path: str) -> bool:
        """Return whether `path` leads to this socket."""
        if isinstance(self._socket.getsockname(), bytes):  # abstract: no file (unix(7))
            return path == self.path
        try:
            return os.path.samefile(path, self.path)
        except (OSError, ValueError):
            return absolute_path(path) == self.path

    def owns_path(self) -> bool:
        """Return True: the service manager owns the path."""
        return True

    def stop_listening(self) -> None:
        """Do nothing: clients may still connect."""


def listener_from_fd(descriptor: int) -> UnixInheritedListener:
    """Return the listener of a descriptor that this process inherited.

    Raises NotASocket if it is not a listening Unix stream socket, SipcError if it is not open.
    """
    try:
        given = _socket.socket(-1, -1, -1, descriptor)  # -1: use the socket's own values
    except OSError as error:
        kind = NotASocket if error.errno == errno.ENOTSOCK else SipcError
        what = f"descriptor {descriptor} of LISTEN_FDS: {lower_strerror(error)}"
        raise kind(what, _SOCKET_UNIT) from error
    try:
        _check_listening(given, descriptor)
        given.setblocking(False)
        return UnixInheritedListener(given)
    except BaseException:
        given.close()
        raise


def _check_listening(given: _socket.socket, descriptor: int) -> None:
    what = f"the socket at descriptor {descriptor}"
    if given.family != _socket.AF_UNIX:
        raise NotASocket(f"{what} is not a Unix domain socket", _SOCKET_UNIT)
    if given.type != _socket.SOCK_STREAM:
        raise NotASocket(f"{what} is not a stream socket", _SOCKET_UNIT)
    if not given.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
        raise NotASocket(f"{what} does not listen", "use a socket unit that has Accept=no")


def _name_of(listening: _socket.socket) -> str:
    """Return the absolute path, or an abstract name with "@" for NUL, as in /proc/net/unix."""
    name: str | bytes = listening.getsockname()
    if isinstance(name, bytes):
        return os.fsdecode(name.replace(b"\0", b"@"))
    return absolute_path(name)
