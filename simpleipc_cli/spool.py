"""A queue of bytes in an unlinked file, for data that may be too large for memory.

The file has no name: the system frees its space when the process ends, even if it is killed.
"""

from __future__ import annotations

import os

from simpleipc_cli import system
from simpleipc_cli.errors import SipcError
from simpleipc_cli.pktline import MAX_BUFFERS, consume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from simpleipc_cli.pktline import Buffer


class Spool:
    """A first-in, first-out queue of bytes on disk. Creates its file for the first byte."""

    __slots__ = ("_end", "_file", "_folders", "_start")

    def __init__(self, *folders: str) -> None:
        """Spool in the first folder that accepts a file; a folder on tmpfs would use memory."""
        self._folders: Sequence[str] = folders
        self._file: IO[bytes] | None = None
        self._start = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Add bytes. Raises SipcError when the disk is full, and keeps the bytes written so far."""
        left = list(buffers)
        while left:
            try:
                written = system.write_at(self._open(), left[:MAX_BUFFERS], self._end)
            except OSError as error:
                raise self._error("write to", error) from error
            self._end += written
            consume(left, written)

    def take(self, limit: int) -> bytes:
        """Remove and return the oldest bytes, at most `limit`.

        Truncate the file when the queue is empty.
        """
        if not self:
            return b""
        try:
            taken = system.read_at(self._open(), min(limit, len(self)), self._start)
            self._start += len(taken)
            if self._start == self._end:
                os.ftruncate(self._open(), 0)
                self._start = self._end = 0
        except OSError as error:
            raise self._error("read", error) from error
        return taken

    def descriptor(self) -> int:
        """Return the file's descriptor, at offset 0. Call it only before the first take().

        Raises SipcError.
        """
        descriptor = self._open()
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise self._error("read", error) from error
        return descriptor

    def close(self) -> None:
        """Free the disk space."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._start = self._end = 0

    def _open(self) -> int:
        if self._file is None:
            self._file = self._create()
        return self._file.fileno()

    def _create(self) -> IO[bytes]:
        *others, last = self._folders
        for folder in others:
            try:
                return system.temporary_file(folder)
            except OSError:
                pass  # try the next folder
        try:
            return system.temporary_file(last)
        except OSError as error:
            raise self._error("create", error) from error

    def _error(self, action: str, error: OSError) -> SipcError:
        return SipcError(
            f"cannot {action} a spool file in {' or '.join(self._folders)}: {error.strerror}",
            "free space there, or set TMPDIR to another directory",
        )


def usable_folders(folders: Sequence[str]) -> Sequence[str]:
    """Return the folders, without those before the first one that accepts a file."""
    for number, folder in enumerate(folders):
        try:
            with system.temporary_file(folder) as file:
                file.write(b"x")
        except OSError:
            continue
        return folders[number:]
    return ()
