"""Who may start a server for a path: of many clients that find nobody there, one.

A file beside the socket, held with flock(2). The kernel lets go of it however its holder
ends, so it is never stale; a holder that was killed leaves an empty file at most, which the
next one takes over and removes. Not git's PATH.lock: the server being started takes that.
Not the folder itself: then two endpoints of one folder would wait for each other, for ever
if the one's server asks the other's, and everybody may lock a folder such as /tmp.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from simpleipc_cli.errors import EndpointError, PathNotFound, PermissionDenied

_PREFIX = b".sipc-spawn-"
_MAX_NAME = 255  # bytes in a file's name (NAME_MAX of Linux)
# For reading and writing, as some file systems ask for it; never waits for a planted pipe.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class StartLock:
    """The right to start a server for one path."""

    def __init__(self, path: str) -> None:
        """Takes nothing yet. `path` is the socket's, whether it is there or not."""
        folder, name = os.path.split(path)
        # The longest names may share a lock: then one waits for the other, no more.
        raw = (_PREFIX + os.fsencode(name))[:_MAX_NAME]
        self._folder = folder or "."
        self._descriptor = -1
        self.path = os.path.join(folder, os.fsdecode(raw))
        """The lock file's name, for messages."""

    def take(self) -> bool:
        """Take the lock, without waiting; False while another has it.

        Raises PathNotFound without the folder, NotPermitted if nothing can be made in it,
        EndpointError.
        """
        try:
            descriptor = os.open(self.path, _FLAGS, 0o600)
        except PermissionError as error:
            if os.path.lexists(self.path):
                return False  # another user's, who may be at it
            raise self._explained(error) from None
        except OSError as error:
            raise self._explained(error) from None
        try:
            if self._is_locked_by(descriptor):
                self._descriptor, descriptor = descriptor, -1
                return True
            return False
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def release(self) -> None:
        """Give the lock back, if it was taken, and leave no file.

        The file goes first: whoever waits for it finds, once it is free, that it is the
        lock no more. Only who holds the lock removes it, so it is never another's.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if self._is_at_path(descriptor):
                os.unlink(self.path)
        except OSError:
            pass  # it stays; nobody takes it for a lock that is held
        os.close(descriptor)

    def _is_locked_by(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            raise EndpointError(f"{self.path} is in the way: it is no lock of sipc", "remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks gives every lock
        return self._is_at_path(descriptor)

    def _is_at_path(self, descriptor: int) -> bool:
        """Whether the lock's name leads to this open file, and not to a later one."""
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def _explained(self, error: OSError) -> EndpointError:
        if error.errno == errno.ENOENT:
            return PathNotFound(
                f"there is no folder {self._folder} to start a server in",
                "make it first, or choose another path",
            )
        words = str(error.strerror)[:1].lower() + str(error.strerror)[1:]
        if error.errno in _FORBIDDEN:
            return PermissionDenied(
                f"cannot start a server in {self._folder}: {words}",
                "start the server yourself, or choose another path",
            )
        return EndpointError(f"cannot lock {self.path}: {words}", "see what is wrong there")


def real_path(path: str) -> str:
    """The absolute path to which links lead, as servers refuse those. Raises OSError."""
    return os.path.realpath(path)
