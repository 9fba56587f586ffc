"""A server's pid file: the process id for scripts, and a lock against other servers.

The server locks the file with flock(2), then writes the process id with one call: a process that
reads it earlier finds it empty. An unlocked file belonged to a server that has ended. If several
servers start at the same time, the one that gets the lock owns the file. The file is not created
under a temporary name and linked: some file systems have no hard links, and on others a link is
another inode with another lock.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from time import sleep

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, file_hint
from simpleipc_cli.process import base
from simpleipc_cli.system.posix import is_at_path, lock_nowait

_MODE = 0o644
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TIMEOUT = 1.0  # seconds; replacing the file of a killed server takes milliseconds (tunable)
_POLL_INTERVAL = 0.01  # seconds (tunable)


class PidFile(base.PidFile):
    """The pid file of this process."""

    def __exit__(self, *_: object) -> None:
        try:
            is_ours = is_at_path(self._descriptor, self._path)
        except OSError:
            is_ours = True  # this process holds the flock, so no server has replaced it
        if is_ours:
            _unlink(self._path)
        os.close(self._descriptor)

    def _create(self) -> None:
        deadline = Deadline(_TIMEOUT)
        while not self._take(is_last_try=deadline.expired()):
            sleep(_POLL_INTERVAL)

    def _take(self, *, is_last_try: bool) -> bool:
        """Create the file, or take over that of a killed server; return False to try again.

        If the file is locked but does not name a running process, its server is just writing it:
        raise an error only in the last try. Raises OSError, AddressInUse, SipcError.
        """
        is_writable = True
        try:
            descriptor = os.open(self._path, _FLAGS | os.O_RDWR | os.O_CREAT, _MODE)
        except PermissionError:  # for example, another user's file in this user's folder
            if not os.path.lexists(self._path):
                raise
            is_writable = False
            descriptor = os.open(self._path, _FLAGS | os.O_RDONLY)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise self._in_the_way("not a pid file")
            pid = self._pid_in(descriptor)
            if not lock_nowait(descriptor):
                if is_last_try or _is_alive(pid):
                    raise self._in_use(pid)
                return False
            if not is_at_path(descriptor, self._path):
                return False
            if not is_writable:
                os.unlink(self._path)
                return False
            self._write(descriptor)
            self._descriptor, descriptor = descriptor, -1
            return True
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _write(self, descriptor: int) -> None:
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                with suppress(OSError):  # a sandbox may forbid it
                    os.fchmod(descriptor, _MODE)  # independent of the umask
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BaseException:
            _unlink(self._path)
            raise

    def _explained(self, error: OSError) -> SipcError:
        if error.errno == errno.ENOENT:
            return self._no_folder()
        if error.errno == errno.EISDIR:
            return self._in_the_way("a directory")
        if os.path.islink(self._path):  # ELOOP; EMLINK in FreeBSD, EFTYPE in NetBSD
            return self._not_written("it is a symbolic link", "give the name of its target")
        hint = file_hint(error, "choose another path")
        return self._not_written(str(error.strerror).lower(), hint)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # missing, or not permitted: the unlocked file stays


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it runs as another user
    return pid > 0
