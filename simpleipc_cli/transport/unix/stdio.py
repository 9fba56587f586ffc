"""Files that are read and written without waiting, on Unix: the system tells what can be done.

They may be shared with other programs, so their flags are left as they are found.
"""

from __future__ import annotations

import os
import select
import stat
from time import sleep

from simpleipc_cli import system
from simpleipc_cli.transport.base_polling import FileReader, FileWriter

_PAUSE = 0.01  # seconds before another look where no event tells, at will
_SURE_TO_FIT = 4096  # bytes that a pipe takes without waiting once it is writable (PIPE_BUF)


class UnixFileReader(FileReader):
    """A descriptor, to be read when the poller says so."""

    def __init__(self, descriptor: int) -> None:
        """Changes nothing about it."""
        self._descriptor = descriptor

    def fileno(self) -> int:
        """See FileReader."""
        return self._descriptor

    def read_nowait(self, limit: int) -> bytes:
        """See FileReader. It waits if another program was faster and flags are not ours."""
        return os.read(self._descriptor, limit)


class UnixFileWriter(FileWriter):
    """A descriptor that is asked before each small write."""

    def __init__(self, descriptor: int) -> None:
        """Looks what it is."""
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._now = _that_never_waits(descriptor)

    def fileno(self) -> int:
        """See FileWriter."""
        return self._descriptor

    def write_nowait(self, payload: memoryview) -> int:
        """See FileWriter."""
        size = len(payload)
        poll = select.poll()
        poll.register(self._now, select.POLLOUT)
        while payload and (self._is_file or poll.poll(0)):
            try:
                piece = payload if self._is_file else payload[:_SURE_TO_FIT]
                payload = payload[os.write(self._now, piece) :]
            except BlockingIOError:  # another took the room, or one byte is too little for "\r\n"
                sleep(_PAUSE)  # for poll says that there is room
                break
        return size - len(payload)


def _that_never_waits(descriptor: int) -> int:
    """For a terminal, which may have room for a single byte: another way to it, all our own.

    What is shared with other programs must not be made non-blocking, this one may be.
    """
    if os.isatty(descriptor):
        flags = os.O_WRONLY | system.O_NONBLOCK_FLAGS | system.OPEN_FLAGS
        try:
            return os.open(f"/proc/self/fd/{descriptor}", flags)
        except OSError:
            pass  # it may belong to somebody else by now: then as it is
    return descriptor
