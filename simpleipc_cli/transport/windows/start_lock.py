"""Who may start a server for a path, on Windows: see unix_start_lock.py.

A pipe of which there can be one only, beside that of the endpoint. The system closes it
however its holder ends.
"""

from __future__ import annotations

import os

from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.stream import MAX_NAME, PREFIX, endpoint_error, pipe_name

_SUFFIX = ".sipc-spawn"


class WinStartLock:
    """The right to start a server for one path."""

    def __init__(self, path: str) -> None:
        """Takes nothing yet. Raises InvalidPath."""
        # The longest names may share a lock: then one waits for the other, no more.
        self.path = pipe_name(path)[: MAX_NAME - len(_SUFFIX)] + _SUFFIX
        """The lock's name, for messages."""
        self._handle = 0

    def take(self) -> bool:
        """Take the lock, without waiting; False while another has it. Raises EndpointError."""
        api = win32.api
        flags = win32.REJECT_REMOTE_CLIENTS
        try:
            self._handle = api.CreateNamedPipe(
                self.path, api.PIPE_ACCESS_INBOUND, flags, 1, 0, 0, 0, api.NULL
            )
        except OSError as error:
            if win32.winerror(error) in (win32.PIPE_BUSY, win32.ACCESS_DENIED):
                return False
            raise endpoint_error(error, self.path) from error
        return True

    def release(self) -> None:
        """Give the lock back, if it was taken."""
        handle, self._handle = self._handle, 0
        if handle:
            win32.api.CloseHandle(handle)


def real_path(path: str) -> str:
    """See unix_start_lock. To look where a pipe's own name leads would be to open the pipe."""
    return path if path.startswith(PREFIX) else os.path.realpath(path)
