"""Files and users on Windows: see system.py, which is the one to import this."""

from __future__ import annotations

import os
from importlib import import_module
from tempfile import gettempdir
from time import monotonic, sleep
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simpleipc_cli.pktline import Buffer

UNSUPPORTED_OPTIONS = frozenset(("--group", "--allow-user"))

ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last is Ctrl-Break
STOP_SIGNALS = ENDING_SIGNALS
RELOAD_SIGNALS: tuple[str, ...] = ()
STATS_SIGNALS: tuple[str, ...] = ()
SIGNALS = "system.windows_signals"

HAS_OWNERSHIP = False
PID_FILES = "process.windows.pidfile"
PIPES_GROW = False

SPOOL_FOLDER = gettempdir()

_BINARY: int = getattr(os, "O_BINARY", 0)
_NOT_INHERITED: int = getattr(os, "O_NOINHERIT", 0)
OPEN_FLAGS = _BINARY | _NOT_INHERITED
O_NONBLOCK_FLAGS = 0

_LOOK_EVERY = 0.01  # seconds; nothing tells that a pipe can be read, but a read
_PIPE = 3  # FILE_TYPE_PIPE


UNLIMITED = -1

_MAX_HANDLES = 1 << 20  # they end with memory; more than anybody needs, at will


def get_fd_limits() -> tuple[int, int]:
    """See system.py."""
    return _MAX_HANDLES, _MAX_HANDLES


def set_fd_limit(_soft: int, _hard: int) -> bool:
    """See system.py."""
    return False


def user_id() -> int:
    """See system.py."""
    return -1


def set_binary_stdio() -> None:
    """See system.py. The C library would write two bytes for a line's end, and end at Ctrl-Z."""
    runtime: Any = import_module("msvcrt")
    for descriptor in (0, 1, 2):
        runtime.setmode(descriptor, _BINARY)


def read_into(descriptor: int, buffer: memoryview) -> int:
    """See system.py."""
    data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def read_into_nowait(descriptor: int, buffer: memoryview) -> int:  # noqa: ARG001
    """See system.py. Nothing tells that here."""
    raise BlockingIOError


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """See system.py. Moves the file's own place, which nobody else may use."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def write_at(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
    """See system.py."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    return sum(os.write(descriptor, buffer) for buffer in buffers)


class _Watch:
    """Whether a pipe can be read. All else can always be: files, and a console's lines."""

    def __init__(self, descriptor: int) -> None:
        runtime: Any = import_module("msvcrt")
        self._native: Any = import_module("_winapi")
        self._handle: int = runtime.get_osfhandle(descriptor)
        self._is_pipe = self._native.GetFileType(self._handle) == _PIPE

    def poll(self, milliseconds: float | None = None, /) -> bool:
        """See system.Watch."""
        end = None if milliseconds is None else monotonic() + milliseconds / 1000
        while self._is_pipe and not self._can_be_read():
            if end is not None and monotonic() >= end:
                return False
            sleep(_LOOK_EVERY)
        return True

    def _can_be_read(self) -> bool:
        try:
            return bool(self._native.PeekNamedPipe(self._handle, 0)[0])
        except OSError:
            return True  # its writers are gone: a read tells


class _Always:
    """A write waits for room: nothing tells whether it will."""

    def poll(self, _milliseconds: float | None = None, /) -> bool:
        """See system.Watch."""
        return True


def watch(descriptor: int, *, writing: bool) -> _Watch | _Always:
    """See system.py. What is written to is never waited for: see _Always."""
    return _Always() if writing else _Watch(descriptor)


def reset_signals() -> None:
    """See system.py. There is no signal mask, and no SIGCHLD."""


def set_timer(_seconds: float, _ring: Callable[[int, object], object]) -> None:
    """See system.py. Nothing there interrupts the main thread: it takes as long as it does."""


def stop_alarm() -> None:
    """See system.py."""


def exit_by_signal(_number: int) -> None:
    """See system.py. That is impossible: a status tells."""
