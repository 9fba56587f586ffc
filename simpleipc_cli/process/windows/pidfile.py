"""A server's pid file on Windows: see pidfile.py.

It is open for writing as long as the server lives, which the system allows to one at a time,
while others may read; so nobody takes it, removes it or puts another in its place, and the
system lets go of it however the server ends. Who reads it in its very first moment may find it
empty. Only a file that holds a number is taken for a pid file: whatever else has the name stays.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from simpleipc_cli.errors import AddressInUse, SipcError
from simpleipc_cli.system import OPEN_FLAGS
from simpleipc_cli.transport.windows import win32

_LONGEST = 32  # bytes in a pid file, as ours and other programs' are; at will
_OTHERS_READ = 0x1  # FILE_SHARE_READ
_OPEN_OR_MAKE = 4  # OPEN_ALWAYS


class PidFile:
    """The pid file of this process, in a `with`; removed at its end."""

    def __init__(self, path: str) -> None:
        """Takes nothing yet."""
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        """Take it. Raises InUse naming the pid of the live server that has it, SipcError."""
        if not os.path.basename(self._path) or "\0" in self._path:
            raise SipcError(f"{self._path!r} is no name for a pid file", "give another")
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise self._explained(error) from error
        try:
            self._check(os.read(self._descriptor, _LONGEST + 1))
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            size = os.write(self._descriptor, b"%d\n" % os.getpid())
            os.ftruncate(self._descriptor, size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        """Remove it; the next server may have taken it already, and then it stays."""
        os.close(self._descriptor)
        try:
            os.unlink(self._path)
        except OSError:
            pass

    def _open(self) -> int:
        api = win32.api
        access = api.GENERIC_READ | api.GENERIC_WRITE
        handle = api.CreateFile(
            self._path, access, _OTHERS_READ, api.NULL, _OPEN_OR_MAKE, 0, api.NULL
        )
        runtime: Any = import_module("msvcrt")
        return int(runtime.open_osfhandle(handle, os.O_RDWR | OPEN_FLAGS))

    def _check(self, content: bytes) -> None:
        """That it is one. Raises SipcError."""
        if content and not (len(content) <= _LONGEST and content.strip().isdigit()):
            raise self._in_the_way("no pid file")

    def _in_the_way(self, what: str) -> SipcError:
        return SipcError(f"{self._path} is in the way: it is {what}", "choose another pid file")

    def _explained(self, error: OSError) -> SipcError:
        match win32.code(error):
            case win32.SHARING_VIOLATION:
                return AddressInUse(
                    f"a running server{self._whose()} has the pid file {self._path}",
                    "stop that server first, or choose another pid file",
                )
            case win32.ACCESS_DENIED if os.path.isdir(self._path):
                return self._in_the_way("a directory")
            case win32.PATH_NOT_FOUND:
                what = f"there is no folder {os.path.dirname(self._path)}"
                return SipcError(f"cannot write the pid file {self._path}: {what}", "make it first")
        return SipcError(
            f"cannot write the pid file {self._path}: {win32.words(error)}", "choose another place"
        )

    def _whose(self) -> str:
        """Of which process it is, as far as that is in there by now."""
        try:
            with open(self._path, "rb") as file:
                content = file.read(_LONGEST)
        except OSError:
            return ""
        return f", process {int(content)}," if content.strip().isdigit() else ""
