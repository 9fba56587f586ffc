"""Unix domain sockets, the server's half: taking a path, accepting, giving it back.

A path is taken in a way that never shows a half-made endpoint: the socket is bound to a
temporary name beside it, made to listen, and only then renamed to the path. Whether the
path may be taken is decided while holding git's `PATH.lock`, so that of servers starting
at the same instant, git's own included, exactly one wins (git: unix-stream-server.c).
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import (
    AddressInUse,
    Cancelled,
    NotASocket,
    PathNotFound,
    PermissionDenied,
    SipcError,
)
from simpleipc_cli.transport.base import OutOfDescriptors
from simpleipc_cli.transport.base_listening import Listener
from simpleipc_cli.transport.unix.stream import UnixStream, endpoint_error, file_type, new_socket

LOCK_STALE_AFTER = 5.0
"""Seconds after which a lock with nobody listening was left behind. Git holds it for moments."""

_LOCK_PATIENCE = 12.0  # seconds; long enough to see a lock become stale, at will otherwise
_LOCK_PAUSE = 0.01  # seconds between looks at a lock, at will
_MAX_NAME = 255  # bytes in a file's name (NAME_MAX of Linux)
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class UnixListener(Listener):
    """A listening Unix domain socket that has a path."""

    def __init__(self, listening: _socket.socket, path: str, identity: tuple[int, int]) -> None:
        """Takes over the socket; `identity` is the path's device and inode number.

        Inode numbers are used again at once, but not this one while the socket is open.
        """
        self._socket = listening
        self._path = path
        self._identity = identity

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def accept(self) -> UnixStream:
        """See Listener."""
        try:
            descriptor, _ = self._socket._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EINVAL:  # withdrawn, and nobody is left
                raise BlockingIOError from None
            if error.errno in _NO_ROOM:
                raise OutOfDescriptors from None
            raise SipcError(f"cannot accept on {self._path}: {error.strerror}") from error
        return UnixStream(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor))

    def owns_path(self) -> bool:
        """See Listener."""
        try:
            found = os.lstat(self._path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def stop_listening(self) -> None:
        """See Listener. Needs no lock: nobody takes a path on which somebody listens."""
        if self.owns_path():
            try:
                os.unlink(self._path)
            except OSError:
                pass  # not ours any more, or no longer permitted: it is stale from now on
        self._socket.shutdown(_socket.SHUT_RD)

    def close(self) -> None:
        """See Listener."""
        self._socket.close()


def listen(
    path: str,
    *,
    mode: int,
    backlog: int,
    group: int | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> UnixListener:
    """Listen on `path`, whose mode and group are exactly these from the first instant.

    A stale socket is replaced. Raises InUse if somebody listens there, InvalidPath if
    anything but a socket is there, PathNotFound without the folder, NotPermitted, and
    GivenUp if `give_up` says so while another one's lock is waited for.
    """
    try:
        with _Folder(path) as folder:
            return _listen(folder, mode, group, backlog, give_up)
    except OSError as error:
        raise endpoint_error(error, path) from error


class _Folder:
    """The folder of a path, held open: short names for long paths, and one folder throughout."""

    def __init__(self, path: str) -> None:
        self.path = path
        parent, self.name = os.path.split(path)
        if not self.name or "\0" in path:
            raise NotASocket(f"{path!r} is not a name that a socket can have")
        self._parent = parent or "."
        self.descriptor = -1

    def __enter__(self) -> _Folder:
        try:
            self.descriptor = os.open(self._parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PathNotFound(
                f"there is no folder {self._parent}", "make it first, or choose another path"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def address(self, name: str) -> str:
        """A socket address for a name in the folder, short however long the folder's path."""
        return f"/proc/self/fd/{self.descriptor}/{name}"

    def lstat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def link(self, temporary: str) -> None:
        """Give the path to a temporary name, too. Raises FileExistsError, and replaces nothing."""
        where = self.descriptor
        os.link(temporary, self.name, src_dir_fd=where, dst_dir_fd=where, follow_symlinks=False)

    def rename(self, temporary: str) -> None:
        """Give the path to a temporary name, in place of what is there."""
        where = self.descriptor
        os.rename(temporary, self.name, src_dir_fd=where, dst_dir_fd=where)


def _listen(
    folder: _Folder, mode: int, group: int | None, backlog: int, give_up: Callable[[], bool]
) -> UnixListener:
    """Bind under a temporary name, listen, then rename, if the path may be taken."""
    _check_free(folder)
    listening = new_socket(folder.path)
    temporary = f".sipc-{os.urandom(8).hex()}"
    try:
        os.fchmod(listening.fileno(), mode)  # no instant with more rights; the umask narrows it
        listening.bind(folder.address(temporary))
        try:
            if group is not None:
                _give_to(group, temporary, folder)
            os.chmod(temporary, mode, dir_fd=folder.descriptor)  # fresh, ours: not a link
            found = folder.lstat(temporary)
            listening.listen(backlog)
            listening.setblocking(False)
            with PathLock(folder, give_up):
                _take_path(folder, temporary)
        except BaseException:
            folder.unlink(temporary)
            raise
    except BaseException:
        listening.close()
        raise
    return UnixListener(listening, folder.path, (found.st_dev, found.st_ino))


def _give_to(group: int, name: str, folder: _Folder) -> None:
    try:
        os.chown(name, -1, group, dir_fd=folder.descriptor, follow_symlinks=False)
    except PermissionError:
        raise PermissionDenied(
            f"{folder.path} cannot be given to group {group}", "name a group that you are in"
        ) from None


def _take_path(folder: _Folder, temporary: str) -> None:
    """Give the path to the temporary name, if it may be taken."""
    if not _check_free(folder):
        folder.rename(temporary)
        return
    try:
        folder.link(temporary)
    except FileExistsError:  # somebody who asks for no lock was faster: say who
        _check_free(folder)
        raise
    folder.unlink(temporary)


def _check_free(folder: _Folder) -> bool:
    """True if nothing has the name, False if a stale socket has. Else raise what is in the way."""
    try:
        descriptor = os.open(
            folder.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.descriptor
        )
    except FileNotFoundError:
        return True
    try:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISSOCK(kind):
            raise NotASocket(f"{folder.path} is {file_type(kind)}, not a socket")
        if _is_alive(descriptor, folder.path):
            raise AddressInUse(f"another server is listening on {folder.path}")
    finally:
        os.close(descriptor)
    return False


def _is_alive(descriptor: int, path: str) -> bool:
    """Whether somebody listens on the socket behind an O_PATH descriptor.

    A full queue is somebody, too. Raises InvalidPath for a live socket that is no stream.
    """
    looking = new_socket(path)
    try:
        looking.setblocking(False)
        looking.connect(f"/proc/self/fd/{descriptor}")
    except BlockingIOError:
        return True
    except ConnectionRefusedError:
        return False
    except PermissionError:
        raise PermissionDenied(f"{path} is somebody else's socket") from None
    finally:
        looking.close()
    return True


class PathLock:
    """git's lock on a path: the file PATH.lock, there while somebody decides who gets PATH.

    Beyond git's rule the holder keeps a flock on the file, so that nobody takes a lock
    for stale whose holder lives, and nobody removes a lock that took the stale one's place.
    """

    def __init__(self, folder: _Folder, give_up: Callable[[], bool]) -> None:
        self._folder = folder
        self._give_up = give_up
        # Names that leave no room for the ending cannot be git's; they may share a lock.
        raw = os.fsencode(folder.name)[: _MAX_NAME - len(".lock")]
        self._name = os.fsdecode(raw) + ".lock"
        self._path = os.path.join(os.path.dirname(folder.path), self._name)
        self._descriptor = -1
        self._seen: tuple[int, float] = (0, 0.0)  # inode of the lock in our way, since when

    def __enter__(self) -> None:
        patience = Deadline(_LOCK_PATIENCE)
        while not self._take():
            _check_free(self._folder)
            self._remove_stale()
            if self._give_up():
                raise Cancelled(f"told to stop while waiting for {self._path}")
            if patience.passed():
                raise SipcError(
                    f"{self._path} is held by another program",
                    "wait for it to start or to end, or remove the file if none is running",
                )
            time.sleep(_LOCK_PAUSE)

    def __exit__(self, *_: object) -> None:
        if self._is_at_name(self._descriptor):
            self._folder.unlink(self._name)
        os.close(self._descriptor)

    def _open(self, flags: int) -> int:
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._name, flags, 0o666, dir_fd=self._folder.descriptor)

    def _take(self) -> bool:
        """Make the file, unless there is one."""
        try:
            self._descriptor = self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        if _flock(self._descriptor) and self._is_at_name(self._descriptor):
            return True
        os.close(self._descriptor)  # held up so long that another took ours for stale
        return False

    def _remove_stale(self) -> None:
        """Remove the file in our way if it was left behind."""
        try:
            descriptor = self._open(os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, PermissionError):  # gone, or not ours to judge
            return
        except OSError as error:
            raise self._in_the_way(error.strerror) from error
        try:
            if not stat.S_ISREG(kind := os.fstat(descriptor).st_mode):
                raise self._in_the_way(f"it is {file_type(kind)}")
            # The flock comes before the look: whoever holds it decides about this very file.
            if self._is_old(descriptor) and _flock(descriptor) and self._is_at_name(descriptor):
                self._folder.unlink(self._name)
        finally:
            os.close(descriptor)

    def _in_the_way(self, what: object) -> SipcError:
        return SipcError(f"the lock {self._path} cannot be taken: {what}", "remove it")

    def _is_old(self, descriptor: int) -> bool:
        """By its own time, or, as clocks may be set back, by how long we have looked at it."""
        found = os.fstat(descriptor)
        now = time.monotonic()
        if self._seen[0] != found.st_ino:
            self._seen = (found.st_ino, now)
        age = max(time.time() - found.st_mtime, now - self._seen[1])
        return age > LOCK_STALE_AFTER

    def _is_at_name(self, descriptor: int) -> bool:
        """Whether the lock's name leads to this open file."""
        try:
            there = self._folder.lstat(self._name)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))


def _flock(descriptor: int) -> bool:
    """Lock an open file, without waiting; a file system without locks gives every lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
