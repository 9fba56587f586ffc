"""A server's pid file: who runs, for scripts; and while it runs, nobody else takes the file.

A new file is complete, and locked with flock(2), before it gets its name, so nobody ever
reads half of it, and whoever finds it unlocked knows that its server is dead. The kernel
lets go of the lock however the server ends. A dead server's file is replaced by whoever
gets its lock, so of servers that start at once one wins. Only a file that holds a number is
taken for a pid file: whatever else has the name stays.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from time import sleep

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import AddressInUse, SipcError

_MODE = 0o644  # so that others may read whom to ask; nobody may write
_LONGEST = 32  # bytes in a pid file, as ours and other programs' are; at will
_TIMEOUT = 1.0  # seconds; replacing a dead server's file takes moments, at will
_PAUSE = 0.01  # seconds between looks, at will


class PidFile:
    """The pid file of this process, in a `with`; removed at its end, if it is still ours."""

    def __init__(self, path: str) -> None:
        """Takes nothing yet."""
        self._path = path
        folder, self._name = os.path.split(path)
        self._folder = folder or "."
        # Made beside the path, as it is renamed to it; its length does not depend on the name's.
        self._temporary = os.path.join(folder, f".sipc-pid-{os.urandom(8).hex()}")
        self._descriptor = -1

    def __enter__(self) -> None:
        """Take it. Raises InUse naming the pid of the live server that has it, SipcError."""
        if not self._name or "\0" in self._path:
            raise SipcError(f"{self._path!r} is no name for a pid file", "give another")
        try:
            self._write()
            try:
                self._take()
            except BaseException:
                os.close(self._descriptor)
                _unlink(self._temporary)
                raise
        except OSError as error:
            raise self._explained(error) from error

    def __exit__(self, *_: object) -> None:
        """Remove it, unless somebody else has done so, or put another in its place."""
        if self._is_at_path(self._descriptor):
            _unlink(self._path)
        os.close(self._descriptor)

    def _write(self) -> None:
        """Make the whole file, locked, under a temporary name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o600)
        try:
            _flock(self._descriptor)
            os.write(self._descriptor, b"%d\n" % os.getpid())
            os.fchmod(self._descriptor, _MODE)  # whatever the umask
        except BaseException:
            os.close(self._descriptor)
            _unlink(self._temporary)
            raise

    def _take(self) -> None:
        """Give it its name."""
        patience = Deadline(_TIMEOUT)
        while True:
            try:
                os.link(self._temporary, self._path, follow_symlinks=False)
            except FileExistsError:
                if self._replace(insist=patience.passed()):
                    return
                sleep(_PAUSE)
            else:
                _unlink(self._temporary)
                return

    def _replace(self, *, insist: bool) -> bool:
        """Take a dead server's place; False if the file has gone, or may go any moment.

        Raises InUse, SipcError. With `insist` a lock counts also when its holder is not the
        one whose pid is in the file: else that is somebody who is replacing it.
        """
        try:
            found = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            pid = self._pid_in(found)
            if not _flock(found):
                if self._is_at_path(found) and (insist or _is_alive(pid)):
                    raise AddressInUse(
                        f"a running server, process {pid}, has the pid file {self._path}",
                        "stop that server first, or choose another pid file",
                    )
                return False
            if not self._is_at_path(found):
                return False
            os.rename(self._temporary, self._path)
            return True
        finally:
            os.close(found)

    def _pid_in(self, descriptor: int) -> int:
        """The number in a pid file, 0 in an empty one. Raises SipcError if it is none."""
        what = "no pid file"
        if stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
            content = os.read(descriptor, _LONGEST + 1)
            if not content:
                return 0
            if len(content) <= _LONGEST and content.strip().isdigit():
                return int(content)
        elif stat.S_ISDIR(mode):
            what = "a directory"
        raise SipcError(f"{self._path} is in the way: it is {what}", "choose another pid file")

    def _is_at_path(self, descriptor: int) -> bool:
        """Whether the path leads to this open file, and not to a later one."""
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(descriptor))
        except OSError:
            return False

    def _explained(self, error: OSError) -> SipcError:
        what = f"cannot write the pid file {self._path}"
        if error.errno == errno.ENOENT:
            return SipcError(f"{what}: there is no folder {self._folder}", "make it first")
        if error.errno == errno.ELOOP and os.path.islink(self._path):
            return SipcError(f"{what}: it is a symbolic link", "give the name it leads to")
        hint = "choose another place"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "make room"
        return SipcError(f"{what}: {str(error.strerror).lower()}", hint)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody was faster, or it is no longer permitted: it is a dead server's then


def _flock(descriptor: int) -> bool:
    """Lock an open file, without waiting; a file system without locks gives every lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_alive(pid: int) -> bool:
    """Whether there is a process with this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's
    return pid > 0
