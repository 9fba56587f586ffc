"""Files, users, signals and limits on Windows. See base.System."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryFile, gettempdir
from time import monotonic, sleep
from typing import IO, Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.system.base import FdPoll

UNSUPPORTED_OPTIONS = frozenset(("--group", "--allow-user", "--handler-stderr", "--stdio"))

ENDING_SIGNALS: tuple[str, ...] = ("SIGINT", "SIGTERM", "SIGBREAK")  # SIGINT: Ctrl-C
STOP_SIGNALS = ENDING_SIGNALS
RELOAD_SIGNALS: tuple[str, ...] = ()
STATS_SIGNALS: tuple[str, ...] = ()
MAX_WAIT = 0.5  # no signal interrupts a wait

HAS_OWNERSHIP = False

SPOOL_FOLDERS: tuple[str, ...] = (gettempdir(),)

_BINARY: int = getattr(os, "O_BINARY", 0)
_NOT_INHERITED: int = getattr(os, "O_NOINHERIT", 0)
PIPE_BUF = 4096
OPEN_FLAGS = _BINARY | _NOT_INHERITED
O_NONBLOCK_FLAGS = 0

_POLL_INTERVAL = 0.01  # seconds; no event reports that a pipe can be read
_PIPE = 3  # FILE_TYPE_PIPE


def get_fd_limits() -> tuple[int, int]:
    return sys.maxsize, sys.maxsize  # only memory limits handles


def count_open_fds() -> int:
    return 3


def set_fd_limit(_soft: int) -> bool:
    return False


def user_id() -> int:
    return -1


def is_ambiguous_user(user: int) -> bool:  # noqa: ARG001 - users have no number
    return False


def set_binary_stdio() -> None:
    """Switch off text mode, which adds a byte to each line end and stops at Ctrl-Z."""
    runtime: Any = import_module("msvcrt")
    for descriptor in (0, 1, 2):
        runtime.setmode(descriptor, _BINARY)


def grow_pipe(_descriptor: int) -> None:
    pass


def read_into(descriptor: int, buffer: memoryview) -> int:
    data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def read_into_nowait(_descriptor: int, _buffer: memoryview) -> int:
    raise BlockingIOError  # Windows has no such call


def temporary_file(folder: str) -> IO[bytes]:
    """Create a file that is deleted when it is closed. See base.System."""
    return TemporaryFile(buffering=0, dir=folder)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read at an offset. Moves the file's offset: no other code may rely on it. See base.System."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def write_at(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return sum(os.write(descriptor, buffer) for buffer in buffers)


class _Poll:
    """Waits until a pipe can be read. The system reports readiness only for pipes."""

    def __init__(self, descriptor: int, *, writing: bool) -> None:
        self._must_wait = False
        if not writing:
            runtime: Any = import_module("msvcrt")
            self._native: Any = import_module("_winapi")
            self._handle: int = runtime.get_osfhandle(descriptor)
            self._must_wait = self._native.GetFileType(self._handle) == _PIPE

    def poll(self, milliseconds: float | None = None, /) -> bool:
        end = None if milliseconds is None else monotonic() + milliseconds / 1000
        while self._must_wait and not self._can_be_read():
            if end is not None and monotonic() >= end:
                return False
            sleep(_POLL_INTERVAL)
        return True

    def _can_be_read(self) -> bool:
        try:
            return bool(self._native.PeekNamedPipe(self._handle, 0)[0])
        except OSError:
            return True  # all writers have closed: read() reports the end


def fd_poll(descriptor: int, *, writing: bool) -> FdPoll:
    return _Poll(descriptor, writing=writing)


def reset_signals() -> None:
    pass  # there is no signal mask and no SIGCHLD


def receive_signals(_numbers: Iterable[int], _handler: Callable[[int], object]) -> None:
    pass  # only the main thread can receive signals


def set_timer(_seconds: float, _handler: Callable[[int, object], object]) -> None:
    pass  # no call can interrupt the main thread


def stop_timer() -> None:
    pass


def exit_by_signal(_number: int) -> None:
    pass  # only an exit status is possible


def execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
    import subprocess  # noqa: PLC0415 - only for `probe -- CMD`

    return subprocess.call(command, env=environment)


def in_foreground(_terminal: int) -> bool:
    return True  # there are no background jobs


class BlockedSignals:
    """Replaces signal handlers by one that records the signal: Windows has no signal mask."""

    def __enter__(self) -> BlockedSignals:
        self._pending: list[int] = []
        self._handlers: dict[int, Any] = {}
        self._block()
        return self

    def __exit__(self, *_: object) -> None:
        self._unblock()

    @contextmanager
    def unblocked(self) -> Iterator[None]:
        try:
            self._unblock()
            yield
        finally:
            self._block()

    def _block(self) -> None:
        for number in (getattr(signal, name) for name in ENDING_SIGNALS):
            handler = signal.getsignal(number)
            if callable(handler):  # neither ignored nor the default action
                try:
                    signal.signal(number, self._record)
                except ValueError:
                    return  # not in the main thread, where handlers run
                self._handlers[number] = handler

    def _record(self, number: int, _frame: object) -> None:
        self._pending.append(number)

    def _unblock(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        pending, self._pending = self._pending, []
        for number in pending:
            self._handlers[number](number, None)


def ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
