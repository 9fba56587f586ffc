"""Which client starts a server for a path: of many that find none, the one with this lock.

A file beside the socket, held with flock(2). The kernel releases it however its holder ends, so it
is never stale; a killed holder leaves an empty file at most, which the next one takes over and
removes. Git's PATH.lock is not used: the server that is started takes that. A lock on the folder
would make two endpoints wait for each other, for ever if one server calls the other, and any user
may lock a folder such as /tmp.
"""

from __future__ import annotations

import errno
import os
import stat

from simpleipc_cli.errors import EndpointError, PathNotFound, PermissionDenied
from simpleipc_cli.system.posix import is_at_path, lock_nowait
from simpleipc_cli.transport.unix.stream import errno_hint, lower_strerror

_PREFIX = b".sipc-spawn-"
_MAX_NAME = 255  # bytes in a file's name (NAME_MAX of Linux)
# For reading and writing, which some file systems require; never blocks on a planted FIFO.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class StartLock:
    """The right to start a server for one path."""

    def __init__(self, path: str) -> None:
        folder, name = os.path.split(path)
        # The longest names may share a lock, so that one client waits for another.
        raw = (_PREFIX + os.fsencode(name))[:_MAX_NAME]
        self._folder = folder or "."
        self._descriptor = -1
        self.path = os.path.join(folder, os.fsdecode(raw))
        """The lock file's path, for messages."""

    def take(self) -> bool:
        """Take the lock without waiting; False while another process has it.

        Raises PathNotFound without the folder, PermissionDenied if no file can be created there,
        EndpointError.
        """
        try:
            descriptor = os.open(self.path, _FLAGS, 0o600)
        except PermissionError as error:
            if os.path.lexists(self.path):
                return False  # the lock of another user, whose client may be starting a server
            raise self._explained(error) from None
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
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def release(self) -> None:
        """Release the lock, if it was taken, and remove the file.

        The file is removed first, and only by the lock's holder: so a client that opened it before
        finds that it is no longer the lock.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if is_at_path(descriptor, self.path):
                os.unlink(self.path)
        except OSError:
            pass  # it stays, unlocked
        os.close(descriptor)

    def _explained(self, error: OSError) -> EndpointError:
        if error.errno == errno.ENOENT:
            return PathNotFound(
                f"there is no folder {self._folder} to start a server in",
                "create it first, or choose another path",
            )
        if error.errno in _FORBIDDEN:
            return PermissionDenied(
                f"cannot start a server in {self._folder}: {lower_strerror(error)}",
                "start the server yourself, or choose another path",
            )
        return EndpointError(f"cannot lock {self.path}: {lower_strerror(error)}", errno_hint(error))


def real_path(path: str) -> str:
    """Return the absolute path without links, as servers refuse those. Raises OSError."""
    return os.path.realpath(path)
