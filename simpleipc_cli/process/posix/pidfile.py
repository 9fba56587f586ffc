"""A server's pid file: its process id, for scripts, and a lock that other servers respect.

A new file is complete, and locked with flock(2), before it gets its name: no process reads half
of it, and an unlocked file is a dead server's. The server that gets the lock of a dead server's
file replaces that file, so of servers that start at once one wins. Only a file that holds a number
is taken for a pid file: any other file is left alone.
"""

from __future__ import annotations

import errno
import os
import stat
from time import sleep

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import AddressInUse, SipcError
from simpleipc_cli.system.lockfile import is_at_path, lock_nowait

_MODE = 0o644
_MAX_SIZE = 32  # bytes (tunable)
_TIMEOUT = 1.0  # seconds; to replace a dead server's file takes milliseconds (tunable)
_POLL_INTERVAL = 0.01  # seconds (tunable)


class PidFile:
    """The pid file of this process. See base.PidFile."""

    def __init__(self, path: str) -> None:
        self._path = path
        folder, self._name = os.path.split(path)
        self._folder = folder or "."
        # In the same directory, so that it can be renamed to the path. The length of its name is
        # fixed, so that it is never too long.
        self._temporary = os.path.join(folder, f".sipc-pid-{os.urandom(8).hex()}")
        self._descriptor = -1

    def __enter__(self) -> None:
        if not self._name or "\0" in self._path:
            raise SipcError(f"{self._path!r} cannot be the name of a pid file", "choose another")
        try:
            self._write()
            try:
                self._claim_path()
            except BaseException:
                os.close(self._descriptor)
                _unlink(self._temporary)
                raise
        except OSError as error:
            raise self._explained(error) from error

    def __exit__(self, *_: object) -> None:
        if is_at_path(self._descriptor, self._path):
            _unlink(self._path)
        os.close(self._descriptor)

    def _write(self) -> None:
        """Create the whole file, locked, under a temporary name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o600)
        try:
            lock_nowait(self._descriptor)
            os.write(self._descriptor, b"%d\n" % os.getpid())
            os.fchmod(self._descriptor, _MODE)  # whatever the umask
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
            pid = self._pid_in(found)
            if not lock_nowait(found):
                if is_at_path(found, self._path) and (is_last_try or _is_alive(pid)):
                    raise AddressInUse(
                        f"a running server, process {pid}, has the pid file {self._path}",
                        "stop that server first, or choose another pid file",
                    )
                return False
            if not is_at_path(found, self._path):
                return False
            os.rename(self._temporary, self._path)
            return True
        finally:
            os.close(found)

    def _pid_in(self, descriptor: int) -> int:
        """Return the number in a pid file, 0 if it is empty. Raises SipcError."""
        what = "not a pid file"
        if stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
            content = os.read(descriptor, _MAX_SIZE + 1)
            if not content:
                return 0
            if len(content) <= _MAX_SIZE and content.strip().isdigit():
                return int(content)
        elif stat.S_ISDIR(mode):
            what = "a directory"
        raise SipcError(f"{self._path} is in the way: it is {what}", "choose another pid file")

    def _explained(self, error: OSError) -> SipcError:
        what = f"cannot write the pid file {self._path}"
        if error.errno == errno.ENOENT:
            return SipcError(f"{what}: there is no folder {self._folder}", "create it first")
        if error.errno == errno.ELOOP and os.path.islink(self._path):
            return SipcError(f"{what}: it is a symbolic link", "give the name of its target")
        hint = "choose another place"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "free space there, or choose another place"
        return SipcError(f"{what}: {str(error.strerror).lower()}", hint)


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
