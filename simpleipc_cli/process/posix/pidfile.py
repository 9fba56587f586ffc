"""A server's pid file: its process id, for scripts, and a lock that other servers respect.

A new file is complete, and locked with flock(2), before it gets its name: no process reads half
of it, and an unlocked file is a dead server's. The server that gets the lock of a dead server's
file replaces that file, so of servers that start at once one wins.
"""

from __future__ import annotations

import errno
import os
import stat
from time import sleep

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, errno_hint
from simpleipc_cli.process import base
from simpleipc_cli.system.posix import is_at_path, lock_nowait

_MODE = 0o644
_TIMEOUT = 1.0  # seconds; to replace a dead server's file takes milliseconds (tunable)
_POLL_INTERVAL = 0.01  # seconds (tunable)


class PidFile(base.PidFile):
    """The pid file of this process."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        # In the same directory, so that it can be renamed to the path. The length of its name is
        # fixed, so that it is never too long.
        name = f".sipc-pid-{os.urandom(8).hex()}"
        self._temporary = os.path.join(os.path.dirname(path), name)

    def __exit__(self, *_: object) -> None:
        if is_at_path(self._descriptor, self._path):
            _unlink(self._path)
        os.close(self._descriptor)

    def _create(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o600)
        try:
            lock_nowait(self._descriptor)
            os.write(self._descriptor, b"%d\n" % os.getpid())
            os.fchmod(self._descriptor, _MODE)  # whatever the umask
            self._claim_path()
        except BaseException:
            os.close(self._descriptor)
            _unlink(self._temporary)
            raise

    def _claim_path(self) -> None:
        """Rename the temporary file to the path."""
        deadline = Deadline(_TIMEOUT)
        while True:
            try:
                os.link(self._temporary, self._path, follow_symlinks=False)
            except FileExistsError:
                if self._replace(is_last_try=deadline.expired()):
                    return
                sleep(_POLL_INTERVAL)
            else:
                _unlink(self._temporary)
                return

    def _replace(self, *, is_last_try: bool) -> bool:
        """Replace a dead server's file; False if the file is gone, or about to be.

        If it is locked by a process other than the one that it names, that process is replacing
        it: an error only in the last try. Raises AddressInUse, SipcError.
        """
        try:
            found = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            mode = os.fstat(found).st_mode
            if not stat.S_ISREG(mode):
                raise self._in_the_way("a directory" if stat.S_ISDIR(mode) else "not a pid file")
            pid = self._pid_in(found)
            is_locked = not lock_nowait(found)
            if not is_at_path(found, self._path):
                return False
            if is_locked:
                if is_last_try or _is_alive(pid):
                    raise self._in_use(pid)
                return False
            os.rename(self._temporary, self._path)
            return True
        finally:
            os.close(found)

    def _explained(self, error: OSError) -> SipcError:
        if error.errno == errno.ENOENT:
            return self._no_folder()
        if error.errno == errno.ELOOP and os.path.islink(self._path):
            return self._not_written("it is a symbolic link", "give the name of its target")
        hint = errno_hint(error, "choose another path")
        return self._not_written(str(error.strerror).lower(), hint)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # gone, or no longer permitted: what is left is a dead server's file


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's
    return pid > 0
