"""Where the lines of a server's log go: to stderr, or to a file that may be rotated away.

A server must go on when nobody takes its log: a pipe that nobody reads, a full disk. Then
lines are lost, and counted, and that is said as soon as a line can be written again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from threading import Lock

from simpleipc_cli import system
from simpleipc_cli.cli.journal import Priority, is_journal, with_priority
from simpleipc_cli.cli.stderr import STDERR
from simpleipc_cli.errors import SipcError

MAX_LINE = 4096
"""Bytes; as many a pipe takes that takes anything (PIPE_BUF)."""

_STUCK_AFTER = 200  # milliseconds, at will
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | system.OPEN_FLAGS | system.O_NONBLOCK_FLAGS


class LineWriter:
    """An open descriptor that takes lines, each with one write. For many threads."""

    def __init__(self, path: str | None = None) -> None:
        """A file to append to, made if there is none; None for stderr. Raises SipcError."""
        self._path = path
        self._descriptor = STDERR if path is None else _open(path)
        self._poll = _poll_for(self._descriptor)
        self._is_journal = path is None and is_journal(STDERR)
        self._lock = Lock()
        self._lost = 0  # lines, since the last that was written
        self._torn = False  # a line was only written in part
        self._lost_line: Callable[[int], str] = "({} lines were lost)".format

    @property
    def wants_time(self) -> bool:
        """Whether a line has to say when it was written: what reads stderr knows."""
        return self._path is not None

    def report_lost(self, line: Callable[[int], str]) -> None:
        """How a line looks that says how many were lost."""
        self._lost_line = line

    def put(self, line: str, priority: Priority) -> None:
        """Write a line, unless nobody takes it: then it is lost. Never raises, never waits long."""
        with self._lock:
            if self._lost and not self._write(self._lost_line(self._lost), Priority.ERROR, 0):
                self._lost += 1
                return
            patience = 0 if self._lost else _STUCK_AFTER
            self._lost = 0 if self._write(line, priority, patience) else 1

    def reopen(self) -> None:
        """Open the file anew, by its name. Raises SipcError; the old one stays then."""
        if self._path is None:
            return
        new = _open(self._path)
        with self._lock:
            old, self._descriptor = self._descriptor, new
            self._poll = _poll_for(new)
            self._torn = False
        os.close(old)

    def close(self) -> None:
        """Nothing more will come."""
        if self._path is not None:
            os.close(self._descriptor)

    def _write(self, line: str, priority: Priority, millis: int) -> bool:
        """Whether it was taken whole; `millis` is how long to wait for a reader."""
        data = line.encode("utf-8", "backslashreplace")[: MAX_LINE - 1]
        if self._is_journal:
            data = with_priority(data, priority)
        data += b"\n"
        if self._torn:
            data = b"\n" + data
        try:
            if self._poll is not None and not self._poll.poll(millis):
                return False
            written = os.write(self._descriptor, data)
        except OSError:
            return False
        self._torn = written < len(data)
        return not self._torn


def _open(path: str) -> int:
    """Without waiting: a named pipe must have its reader. Raises SipcError."""
    try:
        return os.open(path, _FLAGS, 0o666)
    except OSError as error:
        why = "nobody reads there" if error.errno == errno.ENXIO else error.strerror
        raise SipcError(f"cannot open the log file {path}: {why}", "choose another") from error


def _poll_for(descriptor: int) -> system.Watch | None:
    """What tells whether a write would wait; None for a file, which never does."""
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
    except OSError:
        return None
    return system.watch(descriptor, writing=True)
