"""The lock for starting a server for a path, on Windows: see unix.lock.

The lock is a second named pipe, which can have only one instance. The system closes the pipe when
its holder ends or is killed.
"""

from __future__ import annotations

import os

from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.stream import MAX_NAME, PREFIX, endpoint_error, pipe_name

_SUFFIX = ".sipc-spawn"


class StartLock:
    """The right to start a server for one path."""

    def __init__(self, path: str) -> None:
        """Raises NotASocket."""
        # The longest names may share a lock, so that one client waits for another.
        self.path = pipe_name(path)[: MAX_NAME - len(_SUFFIX)] + _SUFFIX
        """The lock's name, for messages."""
        self._handle = 0

    def take(self) -> bool:
        """Take the lock; return False if another process holds it. Raises EndpointError."""
        try:
            self._handle = win32.create_lock_pipe(self.path)
        except OSError as error:
            raise endpoint_error(error, self.path) from error
        return bool(self._handle)

    def release(self) -> None:
        """Release the lock, if this object holds it."""
        handle, self._handle = self._handle, 0
        if handle:
            win32.api.CloseHandle(handle)


def real_path(path: str) -> str:
    """Return the absolute path with links resolved, except a pipe's name: that would open it."""
    return path if path.startswith(PREFIX) else os.path.realpath(path)
