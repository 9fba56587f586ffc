"""Two locks for each path: one to listen on it, one to start a server for it.

PathLock is git's `PATH.lock`. A server holds it while it checks that the path is free. StartLock is
another file in the same directory. If several clients find no server, the holder of this lock
starts one. Both use flock(2), which the kernel releases when the holder ends or is killed.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat
import time
from collections.abc import Callable

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import (
    AddressInUse,
    Cancelled,
    EndpointError,
    NotASocket,
    PathNotFound,
    PermissionDenied,
    SipcError,
    file_hint,
)
from simpleipc_cli.system.posix import is_at_path, lock_nowait
from simpleipc_cli.transport.unix.stream import (
    IS_LINUX,
    MAX_ADDRESS,
    O_PATH,
    SocketAddress,
    file_type,
    is_bound,
    lower_strerror,
    new_socket,
)

_STALE_AFTER = 5.0  # seconds; git holds the lock for milliseconds, a killed server leaves it
_TIMEOUT = 12.0  # seconds; long enough for a lock to become stale (tunable)
_POLL_INTERVAL = 0.01  # seconds between tries to get the lock (tunable)
_MAX_NAME = 255  # bytes in a file's name (NAME_MAX of Linux)

# What open(2) returns for a link with O_NOFOLLOW, and for a socket: on Linux, and on FreeBSD.
_NO_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EOPNOTSUPP)
_FOLDER_FLAGS = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_START_LOCK_MODE = 0o600
# Some file systems require O_RDWR for a lock. O_NONBLOCK: another user may have made a FIFO.
_START_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ParentFolder:
    """The folder of a path. In a `with` it is open, so that all operations use the same folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        parent, self.name = os.path.split(path)
        if not self.name or "\0" in path:
            raise NotASocket(f"{path!r} cannot be the name of a socket")
        self._parent = parent or "."
        self.descriptor = -1

    def __enter__(self) -> ParentFolder:
        try:
            self.descriptor = os.open(self._parent, _FOLDER_FLAGS)
        except FileNotFoundError:
            raise _no_folder(self._parent) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def bind(self, listening: _socket.socket) -> str:
        """Bind the socket to a new name in the folder; return the name.

        `ss` and getpeername() always show this name: the path and a suffix, if both fit.
        """
        suffix = f".sipc-{os.urandom(4).hex()}"
        path = os.path.abspath(self.path) + suffix
        if len(os.fsencode(path)) > MAX_ADDRESS:
            path = os.path.join(self._parent, suffix)
        with SocketAddress(path, is_new=True) as address:
            listening.bind(address)
        return os.path.basename(path)

    def stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def rename(self, temporary: str) -> None:
        """Rename the file `temporary` to the path; replace any other file there."""
        fd = self.descriptor
        os.rename(temporary, self.name, src_dir_fd=fd, dst_dir_fd=fd)

    def check_path(self) -> None:
        """Return if the path does not exist, or is a stale socket.

        Raises AddressInUse if a server listens on it, NotASocket, PermissionDenied.
        """
        try:
            mode = self.stat(self.name).st_mode
            if not stat.S_ISSOCK(mode):
                raise NotASocket(f"{self.path} is {file_type(mode)}, not a socket")
            if is_listening(self.path):
                raise AddressInUse(f"another server is listening on {self.path}")
        except FileNotFoundError:
            return


def is_listening(path: str) -> bool:
    """Return whether a server listens on the socket at `path`."""
    probing = new_socket(path)
    try:
        probing.setblocking(False)
        with SocketAddress(path) as address:
            probing.connect(address)
    except BlockingIOError:
        return True  # its queue is full
    except ConnectionRefusedError:
        return not IS_LINUX and is_bound(path)  # only Linux does not refuse if its queue is full
    except PermissionError:
        raise PermissionDenied(f"{path} is another user's socket", "choose another path") from None
    finally:
        probing.close()
    return True


def _no_folder(folder: str) -> PathNotFound:
    return PathNotFound(f"there is no folder {folder}", "create it first, or choose another path")


class PathLock:
    """git's lock on a path, in a `with`: the file PATH.lock.

    Unlike git, the holder also keeps a flock on the file. So no sipc server removes the lock of a
    running holder as stale, or removes a new lock in place of a stale one.
    """

    def __init__(self, folder: ParentFolder, cancelled: Callable[[], bool]) -> None:
        self._folder = folder
        self._cancelled = cancelled
        # git cannot lock a name that leaves no space for the suffix. Such names may share a lock.
        raw = os.fsencode(folder.name)[: _MAX_NAME - len(".lock")]
        self._name = os.fsdecode(raw) + ".lock"
        self._path = os.path.join(os.path.dirname(folder.path), self._name)
        self._descriptor = -1
        self._found: tuple[int, float] = (0, 0.0)
        """The lock of another process: its inode, and the time when it was found."""

    def __enter__(self) -> None:
        """Raises the errors of check_path(), Cancelled, SipcError, OSError."""
        deadline = Deadline(_TIMEOUT)
        while not self._create():
            self._folder.check_path()
            self._remove_stale()
            if self._cancelled():
                raise Cancelled(f"stopped while waiting for the lock {self._path}")
            if deadline.expired():
                raise SipcError(
                    f"{self._path} is held by another program",
                    "wait until that has started or exited, or remove the file if none runs",
                )
            time.sleep(_POLL_INTERVAL)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove the file. A failure to do so never replaces an exception of the block."""
        try:
            if self._is_ours():
                self._folder.unlink(self._name)
        except OSError:
            if kind is None:
                raise
        finally:
            os.close(self._descriptor)

    def _is_ours(self) -> bool:
        try:
            return is_at_path(self._descriptor, self._name, self._folder.descriptor)
        except OSError:
            return True  # this process holds the flock, so no server has replaced the file

    def _open(self, flags: int) -> int:
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._name, flags, 0o666, dir_fd=self._folder.descriptor)

    def _create(self) -> bool:
        """Create the file; return False if it exists."""
        try:
            self._descriptor = self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        try:
            if self._lock(self._descriptor):
                return True
        except OSError as error:
            self.__exit__(type(error))
            raise
        os.close(self._descriptor)  # after a long delay: another process removed it as stale
        return False

    def _remove_stale(self) -> None:
        """Remove the lock of another process if that has ended."""
        try:
            descriptor = self._open(os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        except PermissionError:  # another umask or user: its flock cannot be checked
            if self._is_old(self._folder.stat(self._name)):
                self._unlink_stale()
            return
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise self._in_the_way(lower_strerror(error)) from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise self._in_the_way(f"it is {file_type(found.st_mode)}")
            # Lock before the last check: the holder of the flock decides about this file.
            if self._is_old(found) and self._lock(descriptor):
                self._unlink_stale()
        finally:
            os.close(descriptor)

    def _in_the_way(self, what: str) -> SipcError:
        return SipcError(f"the lock {self._path} cannot be taken: {what}", "remove it")

    def _is_old(self, found: os.stat_result) -> bool:
        """Compare the file's time and, as clocks may be set back, the time since it was found."""
        now = time.monotonic()
        if self._found[0] != found.st_ino:
            self._found = (found.st_ino, now)
        age = max(time.time() - found.st_mtime, now - self._found[1])
        return age > _STALE_AFTER

    def _unlink_stale(self) -> None:
        try:
            self._folder.unlink(self._name)
        except PermissionError as error:  # another user's file in a sticky folder such as /tmp
            raise PermissionDenied(
                f"the old lock {self._path} cannot be removed: {lower_strerror(error)}",
                "have its owner remove it, or choose another path",
            ) from error

    def _lock(self, descriptor: int) -> bool:
        """Lock an open file; return False if another process has locked or replaced it."""
        folder = self._folder.descriptor
        return lock_nowait(descriptor) and is_at_path(descriptor, self._name, folder)


class StartLock:
    """The right to start a server for one path.

    It is never stale: a killed holder leaves at most an empty file, which the next holder uses and
    removes. It is not git's PATH.lock, which the started server takes. It is not a lock on the
    folder: any user may lock a folder such as /tmp, and two endpoints would wait for each other,
    without end if one server calls the other.
    """

    def __init__(self, path: str) -> None:
        folder, name = os.path.split(path)
        # One lock for each user: a file that another user left in /tmp cannot be opened. The
        # longest names may share a lock, so that one client waits for another.
        raw = os.fsencode(f".sipc-spawn-{os.geteuid()}-{name}")[:_MAX_NAME]
        self._folder = folder or "."
        self._descriptor = -1
        self.path = os.path.join(folder, os.fsdecode(raw))
        """The lock file's path, for messages."""

    def take(self) -> bool:
        """Take the lock without waiting; return False if another process holds it.

        Raises PathNotFound if the folder is missing, PermissionDenied if no file can be created
        there, EndpointError.
        """
        try:
            descriptor = os.open(self.path, _START_LOCK_FLAGS, _START_LOCK_MODE)
        except OSError as error:
            raise self._explained(error) from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size:
                raise EndpointError(
                    f"{self.path} is in the way: it is not a lock file", "remove it"
                )
            if lock_nowait(descriptor) and is_at_path(descriptor, self.path):
                self._descriptor, descriptor = descriptor, -1
                return True
            return False
        except OSError as error:
            raise self._explained(error) from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def release(self) -> None:
        """Release the lock, if this object holds it, and remove the file.

        Only the lock's holder removes the file, and does so before it releases the lock. So a
        client that opened the file earlier detects that the file is no longer the lock.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if is_at_path(descriptor, self.path):
                os.unlink(self.path)
        except OSError:
            pass  # the file stays, unlocked
        os.close(descriptor)

    def _explained(self, error: OSError) -> EndpointError:
        if error.errno == errno.ENOENT:
            return _no_folder(self._folder)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return PermissionDenied(
                f"cannot start a server without its lock {self.path}: {lower_strerror(error)}",
                "start the server yourself, or choose another path",
            )
        what = f"cannot lock {self.path}: {lower_strerror(error)}"
        return EndpointError(what, file_hint(error, "choose another path"))


def real_path(path: str) -> str:
    """Return the absolute path with all symbolic links resolved. Raises OSError."""
    return os.path.realpath(path)
