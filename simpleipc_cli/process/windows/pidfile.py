"""A server's pid file on Windows: see posix.pidfile.

It is open for writing while the server runs. The system allows that to one process at a time, and
others to read, and closes the file however the server ends: no other server can take it, remove it
or replace it. A reader may find it empty just after its creation. Only a file that holds a number
is taken for a pid file: any other file is left alone.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from simpleipc_cli.errors import AddressInUse, SipcError
from simpleipc_cli.system import OPEN_FLAGS
from simpleipc_cli.transport.windows import win32

_MAX_SIZE = 32  # bytes (tunable)
_SHARE_READ = 0x1
_OPEN_ALWAYS = 4


class PidFile:
    """The pid file of this process. See base.PidFile."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        if not os.path.basename(self._path) or "\0" in self._path:
            raise SipcError(f"{self._path!r} cannot be the name of a pid file", "choose another")
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise self._explained(error) from error
        try:
            content = os.read(self._descriptor, _MAX_SIZE + 1)
            if content and not (len(content) <= _MAX_SIZE and content.strip().isdigit()):
                raise self._in_the_way("not a pid file")
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            size = os.write(self._descriptor, b"%d\n" % os.getpid())
            os.ftruncate(self._descriptor, size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        try:
            os.unlink(self._path)
        except OSError:
            pass  # the next server has it

    def _open(self) -> int:
        api = win32.api
        access = api.GENERIC_READ | api.GENERIC_WRITE
        handle = api.CreateFile(
            self._path, access, _SHARE_READ, api.NULL, _OPEN_ALWAYS, 0, api.NULL
        )
        runtime: Any = import_module("msvcrt")
        return int(runtime.open_osfhandle(handle, os.O_RDWR | OPEN_FLAGS))

    def _in_the_way(self, what: str) -> SipcError:
        return SipcError(f"{self._path} is in the way: it is {what}", "choose another pid file")

    def _explained(self, error: OSError) -> SipcError:
        match win32.winerror(error):
            case win32.SHARING_VIOLATION:
                return AddressInUse(
                    f"a running server{self._process()} has the pid file {self._path}",
                    "stop that server first, or choose another pid file",
                )
            case win32.ACCESS_DENIED if os.path.isdir(self._path):
                return self._in_the_way("a directory")
            case win32.PATH_NOT_FOUND:
                what = f"there is no folder {os.path.dirname(self._path)}"
                return SipcError(
                    f"cannot write the pid file {self._path}: {what}", "create it first"
                )
        return SipcError(
            f"cannot write the pid file {self._path}: {win32.strerror(error)}",
            "choose another place",
        )

    def _process(self) -> str:
        """Describe its owner, if the file names it by now."""
        try:
            with open(self._path, "rb") as file:
                content = file.read(_MAX_SIZE)
        except OSError:
            return ""
        return f", process {int(content)}," if content.strip().isdigit() else ""
