"""Read and write standard streams without blocking.

Other programs may share them, so O_NONBLOCK is not set on them.
"""

from __future__ import annotations

import os
import stat
from select import PIPE_BUF  # bytes that a writable pipe accepts without blocking (pipe(7))
from time import sleep

from simpleipc_cli import system
from simpleipc_cli.transport.base_server import FileReader, FileWriter
from simpleipc_cli.transport.unix.stream import fd_path

_POLL_INTERVAL = 0.01  # seconds; used if no event reports space (tunable)


class UnixFileReader(FileReader):
    """Reads a descriptor that the poller reports as readable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def read_nowait(self, limit: int) -> bytes:
        """Read. This blocks if another program has read the data first."""
        return os.read(self._descriptor, limit)


class UnixFileWriter(FileWriter):
    """Polls the descriptor before each small write."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._target = _nonblocking(descriptor)
        self._poll = system.fd_poll(self._target, writing=True)

    def fileno(self) -> int:
        return self._descriptor

    def write_nowait(self, payload: memoryview) -> int:
        size = len(payload)
        while payload and (self._is_file or self._poll.poll(0)):
            try:
                piece = payload if self._is_file else payload[:PIPE_BUF]
                payload = payload[os.write(self._target, piece) :]
            except BlockingIOError:  # another program wrote first, or no space for "\r\n"
                sleep(_POLL_INTERVAL)  # poll would report space at once
                break
        return size - len(payload)


def _nonblocking(descriptor: int) -> int:
    """Open a terminal again, non-blocking: it may have space for only one byte."""
    if os.isatty(descriptor):
        flags = os.O_WRONLY | system.O_NONBLOCK_FLAGS | system.OPEN_FLAGS
        for path_of in (fd_path, os.ttyname):  # the second where /proc is not mounted
            try:
                return os.open(path_of(descriptor), flags)
            except OSError:
                pass  # for example, a terminal of another user
    return descriptor
