"""A server's pid file on Windows: see posix.pidfile.

The server has the file open for writing, in a mode in which other processes can only read it: no
other server can take, remove or replace it. The system closes the file when the server ends or is
killed. A reader may find it empty just after its creation.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from simpleipc_cli.errors import SipcError
from simpleipc_cli.process import base
from simpleipc_cli.system import OPEN_FLAGS
from simpleipc_cli.transport.windows import win32

_SHARE_READ = 0x1
_OPEN_ALWAYS = 4


class PidFile(base.PidFile):
    """The pid file of this process."""

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        try:
            os.unlink(self._path)
        except OSError:
            pass  # the next server has opened it

    def _create(self) -> None:
        api = win32.api
        access = api.GENERIC_READ | api.GENERIC_WRITE
        handle = api.CreateFile(
            self._path, access, _SHARE_READ, api.NULL, _OPEN_ALWAYS, 0, api.NULL
        )
        runtime: Any = import_module("msvcrt")
        self._descriptor = int(runtime.open_osfhandle(handle, os.O_RDWR | OPEN_FLAGS))
        try:
            self._pid_in(self._descriptor)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            size = os.write(self._descriptor, b"%d\n" % os.getpid())
            os.ftruncate(self._descriptor, size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _explained(self, error: OSError) -> SipcError:
        match win32.winerror(error):
            case win32.SHARING_VIOLATION:
                return self._in_use(self._owner())
            case win32.ACCESS_DENIED if os.path.isdir(self._path):
                return self._in_the_way("a directory")
            case win32.PATH_NOT_FOUND:
                return self._no_folder()
        return self._not_written(win32.strerror(error), win32.hint(error, "choose another path"))

    def _owner(self) -> int:
        """Return the process that has the file open; 0 if its number is not in the file yet."""
        try:
            with open(self._path, "rb") as file:
                return self._pid_in(file.fileno())
        except (OSError, SipcError):
            return 0
