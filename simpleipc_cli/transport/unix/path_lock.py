"""Which server gets a path: the check whether it is free, and git's lock on that decision."""

from __future__ import annotations

import errno
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
from simpleipc_cli.system.posix import is_at_path, lock_nowait
from simpleipc_cli.transport.unix.stream import file_type, lower_strerror, new_socket

LOCK_STALE_AFTER = 5.0
"""Age in seconds of a lock that a dead server has left. Git holds it for milliseconds."""

_TIMEOUT = 12.0  # seconds; long enough for a lock to become stale (tunable)
_POLL_INTERVAL = 0.01  # seconds between tries to get the lock (tunable)
_MAX_NAME = 255  # bytes in a file's name (NAME_MAX of Linux)


class ParentFolder:
    """The folder of a path, in a `with`: held open, so that it stays the same throughout."""

    def __init__(self, path: str) -> None:
        self.path = path
        parent, self.name = os.path.split(path)
        if not self.name or "\0" in path:
            raise NotASocket(f"{path!r} cannot be the name of a socket")
        self._parent = parent or "."
        self.descriptor = -1

    def __enter__(self) -> ParentFolder:
        try:
            self.descriptor = os.open(self._parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PathNotFound(
                f"there is no folder {self._parent}", "create it first, or choose another path"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def address(self, name: str) -> str:
        """Return a socket address for a name in the folder, short however long its path."""
        return f"/proc/self/fd/{self.descriptor}/{name}"

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def link(self, temporary: str) -> None:
        """Link the path to the file `temporary`. Raises FileExistsError."""
        fd = self.descriptor
        os.link(temporary, self.name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)

    def rename(self, temporary: str) -> None:
        """Rename the file `temporary` to the path, replacing any other file."""
        fd = self.descriptor
        os.rename(temporary, self.name, src_dir_fd=fd, dst_dir_fd=fd)

    def is_path_free(self) -> bool:
        """Return True if the path does not exist, False if it is a stale socket.

        Raises AddressInUse if a server listens on it, NotASocket, PermissionDenied.
        """
        try:
            descriptor = os.open(
                self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.descriptor
            )
        except FileNotFoundError:
            return True
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISSOCK(mode):
                raise NotASocket(f"{self.path} is {file_type(mode)}, not a socket")
            if _is_listening(descriptor, self.path):
                raise AddressInUse(f"another server is listening on {self.path}")
        finally:
            os.close(descriptor)
        return False


def _is_listening(descriptor: int, path: str) -> bool:
    """Return whether a server listens on the socket with this O_PATH descriptor."""
    probing = new_socket(path)
    try:
        probing.setblocking(False)
        probing.connect(f"/proc/self/fd/{descriptor}")
    except BlockingIOError:
        return True  # its queue is full
    except ConnectionRefusedError:
        return False
    except PermissionError:
        raise PermissionDenied(f"{path} is another user's socket", "choose another path") from None
    finally:
        probing.close()
    return True


class PathLock:
    """git's lock on a path, in a `with`: the file PATH.lock.

    In addition to git's rule, its holder keeps a flock on the file, so that no process takes a live
    holder's lock for stale, or removes a lock that has replaced a stale one.
    """

    def __init__(self, folder: ParentFolder, cancelled: Callable[[], bool]) -> None:
        self._folder = folder
        self._cancelled = cancelled
        # Names that leave no space for the suffix cannot be git's; they may share a lock.
        raw = os.fsencode(folder.name)[: _MAX_NAME - len(".lock")]
        self._name = os.fsdecode(raw) + ".lock"
        self._path = os.path.join(os.path.dirname(folder.path), self._name)
        self._descriptor = -1
        self._found: tuple[int, float] = (0, 0.0)
        """The lock of another process: its inode, and the time when it was found."""

    def __enter__(self) -> None:
        """Raises AddressInUse and others as is_path_free() does, Cancelled, SipcError, OSError."""
        deadline = Deadline(_TIMEOUT)
        while not self._create():
            self._folder.is_path_free()
            self._remove_stale()
            if self._cancelled():
                raise Cancelled(f"stopped while waiting for the lock {self._path}")
            if deadline.expired():
                raise SipcError(
                    f"{self._path} is held by another program",
                    "wait until that has started or exited, or remove the file if none runs",
                )
            time.sleep(_POLL_INTERVAL)

    def __exit__(self, *_: object) -> None:
        if self._is_current(self._descriptor):
            self._folder.unlink(self._name)
        os.close(self._descriptor)

    def _open(self, flags: int) -> int:
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._name, flags, 0o666, dir_fd=self._folder.descriptor)

    def _create(self) -> bool:
        """Create the file; False if it exists."""
        try:
            self._descriptor = self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        if lock_nowait(self._descriptor) and self._is_current(self._descriptor):
            return True
        os.close(self._descriptor)  # after a long delay: another process took it for stale
        return False

    def _remove_stale(self) -> None:
        """Remove another's file if its process is dead."""
        try:
            descriptor = self._open(os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, PermissionError):  # gone, or its age cannot be known
            return
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, or a socket
                raise
            raise self._in_the_way(lower_strerror(error)) from error
        try:
            if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
                raise self._in_the_way(f"it is {file_type(mode)}")
            # The flock comes before the last check: its holder decides about this very file.
            if (
                self._is_old(descriptor)
                and lock_nowait(descriptor)
                and self._is_current(descriptor)
            ):
                self._folder.unlink(self._name)
        finally:
            os.close(descriptor)

    def _in_the_way(self, what: str) -> SipcError:
        return SipcError(f"the lock {self._path} cannot be taken: {what}", "remove it")

    def _is_old(self, descriptor: int) -> bool:
        """Compare its time or, as clocks may be set back, how long we have seen it."""
        found = os.fstat(descriptor)
        now = time.monotonic()
        if self._found[0] != found.st_ino:
            self._found = (found.st_ino, now)
        age = max(time.time() - found.st_mtime, now - self._found[1])
        return age > LOCK_STALE_AFTER

    def _is_current(self, descriptor: int) -> bool:
        return is_at_path(descriptor, self._name, self._folder.descriptor)
