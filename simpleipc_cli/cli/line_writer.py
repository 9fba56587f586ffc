"""Write the lines of a log or a trace to stderr or a file, without blocking for long.

A server or client must continue when no process reads its log or the disk is full. Then lines are
dropped and counted. The count is written before the next line that can be written.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import IntEnum
from threading import Lock

from simpleipc_cli import system
from simpleipc_cli.cli.stdio import STDERR, STDOUT, is_journal, named_descriptor, with_priority
from simpleipc_cli.errors import SipcError, file_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.observe import Tracer

MAX_LINE = 4096
"""Bytes in a line. On Linux a pipe takes them in one write, so that lines are not mixed (pipe(7)).

On other systems this holds for the first `system.PIPE_BUF` bytes.
"""

_TIMEOUT = 200  # milliseconds to wait for space (tunable)
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | system.OPEN_FLAGS | system.O_NONBLOCK_FLAGS


class Priority(IntEnum):
    """The priority of a line, as in syslog(3)."""

    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7


class LineWriter:
    """Writes lines to a file or to stderr. Any thread may use it."""

    def __init__(
        self,
        path: str | None = None,
        *,
        kind: str = "log",
        mode: int = 0o666,
        on_error: Callable[[SipcError], None] | None = None,
    ) -> None:
        """Append to a file, created with `mode` if it is missing; None for stderr.

        `kind` names the lines in messages. `on_error` is called once, when writing fails, and must
        not write here. Raises SipcError if the file cannot be opened.
        """
        self._path = path
        self.wants_time = path is not None
        """Whether lines need a time. On stderr they do not: a log collector adds its own."""
        self._kind = kind
        self._mode = mode
        self._on_error = on_error
        self._lock = Lock()
        self._lost = 0  # lines dropped since the last written line
        self._is_torn = False  # whether only a part of the last line was written
        self._descriptor = STDERR if path is None else self._open(path)
        self._poll = _poll_for(self._descriptor)
        self._is_journal = is_journal(self._descriptor)
        self.format_lost: Callable[[int], str] = self._format_lost
        """Formats the line with the number of lost lines."""

    def write(self, line: str, priority: Priority = Priority.DEBUG) -> None:
        """Write a line, or drop it if there is no space in time. Never raises."""
        with self._lock:
            timeout = 0 if self._lost else _TIMEOUT  # wait only once until a line can be written
            if self._lost and self._write(self.format_lost(self._lost), Priority.ERROR, 0):
                self._lost = 0
            if self._lost or not self._write(line, priority, timeout):
                self._lost += 1

    def reopen(self) -> None:
        """Open the file again by its name.

        Raises SipcError and keeps the old file if that fails.
        """
        if self._path is None or named_descriptor(self._path, STDOUT) is not None:
            return
        new = self._open(self._path)
        with self._lock:
            old, self._descriptor = self._descriptor, new
            self._poll = _poll_for(new)
            self._is_torn = False
        os.close(old)

    def close(self) -> None:
        """Write the number of lost lines, or report it if it cannot be written; close the file."""
        with self._lock:
            lost, self._lost = self._lost, 0
            if lost and self._write(self.format_lost(lost), Priority.ERROR, 0):
                lost = 0
            if self._path is not None and self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor, self._poll = -1, None
            if lost and self._path is not None:
                what = f"{self._path}: {self.format_lost(lost)}"
                self._report(SipcError(what, "read it while it is written"))

    def _report(self, error: SipcError) -> None:
        """Report the first error."""
        on_error, self._on_error = self._on_error, None
        if on_error is not None:
            on_error(error)

    def _write(self, line: str, priority: Priority, timeout: int) -> bool:
        """Write a line, if possible with one system call; return whether all of it was written."""
        if self._is_journal:
            line = with_priority(line, priority)
        data = line.encode("utf-8", "backslashreplace")[: MAX_LINE - 1] + b"\n"
        if self._is_torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                end = len(data)
                if self._poll is not None:
                    if not self._poll.poll(timeout):
                        break
                    end = written + system.PIPE_BUF
                written += os.write(self._descriptor, data[written:end])
        except BlockingIOError:
            pass
        except OSError as error:
            where = self._path or "stderr"
            what = f"cannot write the {self._kind} to {where}: {error.strerror}"
            self._report(SipcError(what, "the program continues without it"))
        if written:
            self._is_torn = written < len(data)
        return written == len(data)

    def _format_lost(self, count: int) -> str:
        return f"({count} lines were lost: the {self._kind} was full or not read)"

    def _open(self, path: str) -> int:
        """Open the file without blocking: a named pipe must have a reader. Raises SipcError."""
        named = named_descriptor(path, STDOUT)
        try:
            return os.open(path, _FLAGS, self._mode) if named is None else os.dup(named)
        except OSError as error:
            why = "no process reads it" if error.errno == errno.ENXIO else error.strerror
            what = f"cannot open the {self._kind} file {path}: {why}"
            raise SipcError(what, file_hint(error, "choose another")) from error


def _poll_for(descriptor: int) -> system.FdPoll | None:
    """Return an object that waits for space; None for a regular file, which never blocks."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    return system.fd_poll(descriptor, writing=True)


def open_trace(
    on_error: Callable[[SipcError], None], *, on_stderr: bool, path: str | None
) -> Tracer:
    """Open the trace for --trace and --trace-file. Raises SipcError."""
    from simpleipc_cli.observe import Tracer  # noqa: PLC0415 - a log does not need it

    sinks = []
    if on_stderr:
        sinks.append(LineWriter(kind="trace", on_error=on_error))
    if path is not None:
        # Payload may be secret: only the owner may read a new file.
        sinks.append(LineWriter(path, kind="trace", mode=0o600, on_error=on_error))
    return Tracer(*sinks)
