"""The standard error of handlers: to the log, line by line, or to nowhere.

A pipe takes it to the server's event loop, which reads at once, so that no handler waits for the
log. A process that writes too many lines loses some, and the log states how many.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from threading import Lock, get_ident
from time import monotonic

from simpleipc_cli.process.base import PIPE
from simpleipc_cli.server.context import Log
from simpleipc_cli.system import OPEN_FLAGS
from simpleipc_cli.transport import READ, Poller

_MAX_LINE = 4096  # bytes; a longer line is cut, also by the log, which must know that it is longer
_MAX_LINES, _INTERVAL = 1000, 10.0  # lines of a process within some seconds (tunable)
_MAX_LAST = 10  # lines to keep of those that are dropped: they may say why it failed (tunable)
_CHUNK = 1 << 16  # bytes per read: a pipe's default size
_MAX_READS = 17  # empties a pipe of the maximum size (pipe(7): 1 MiB)


class HandlerStderr:
    """Where the standard error of all handlers of a server goes."""

    def __init__(self, log: Log | None) -> None:
        """Without a log, discard it. Raises OSError without a free descriptor."""
        self._log = log
        self._poller: Poller | None = None
        self._wake: Callable[[], object] = bool
        self._loop_thread = 0
        self.of_child = PIPE if log else os.open(os.devnull, os.O_WRONLY | OPEN_FLAGS)
        """What a process gets: a descriptor, or PIPE."""
        self.fds = 1 if log else 0
        """Number of descriptors for each process."""

    def start(self, poller: Poller, wake: Callable[[], object]) -> None:
        """Use the poller of the event loop, which calls this; `wake` ends its wait."""
        self._poller, self._wake, self._loop_thread = poller, wake, get_ident()

    def watch(self, descriptor: int, process: int, request_id: str = "") -> LoggedStderr | None:
        """Log what arrives at the read end of a process's pipe; None if it is discarded."""
        if self._log is None or self._poller is None:
            return None
        logged = LoggedStderr(self._log, self._poller, descriptor, process, request_id)
        if get_ident() != self._loop_thread:
            self._wake()  # see Poller
        return logged


class LoggedStderr:
    """Logs the standard error of one process. Any thread may use it."""

    def __init__(
        self, log: Log, poller: Poller, descriptor: int, process: int, request_id: str
    ) -> None:
        """Read from `descriptor`, which is non-blocking, until close()."""
        self._log = log
        self._poller = poller
        self._descriptor = descriptor
        self._process = process
        self._request_id = request_id
        self._lock = Lock()
        self._rest = b""  # of the last line
        self._is_cut = False  # whether the rest of the last line is dropped
        self._interval_end = 0.0
        self._left = 0  # lines that may be logged in this interval
        self._dropped = 0
        self._last: deque[bytes] = deque(maxlen=_MAX_LAST)  # of the dropped lines
        try:
            poller.register(descriptor, READ, self._on_ready)
        except OSError:
            pass  # no memory: it is read at the end

    def set_request(self, request_id: str) -> None:
        """Log what the process writes from now on with this id; "" while it has no request."""
        with self._lock:
            self._read_available()
            self._end_line()
            self._log_dropped()
            self._request_id = request_id

    def read_available(self) -> None:
        """Read what is there: call it repeatedly when the event loop has ended."""
        with self._lock:
            self._read_available()

    def close(self) -> None:
        """Log what is there, and stop reading. Do not wait for the end: a child may have the pipe.

        Call this before the descriptor is closed.
        """
        with self._lock:
            self._unregister()
            self._read_available()
            self._end_line()
            if self._dropped:
                last, self._last = self._last, deque()
                self._dropped -= len(last)
                self._log_dropped()
                for line in last:
                    self._write(line)
            self._descriptor = -1

    def _unregister(self) -> None:
        try:
            self._poller.unregister(self._descriptor)
        except (OSError, ValueError):
            pass  # the poller is closed: a thread that hung ends after the server

    def _on_ready(self, _events: int) -> None:
        with self._lock:
            if self._descriptor >= 0:  # else another thread has closed it since the event
                self._read()

    def _read_available(self) -> None:
        for _ in range(_MAX_READS):  # a process may write without end
            if not self._read():
                break

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._feed(data)
        else:
            self._unregister()  # else the end would be reported repeatedly
        return bool(data)

    def _feed(self, data: bytes) -> None:
        if self._is_cut:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return
            self._is_cut = False
        data = self._rest + data
        if not self._left and monotonic() < self._interval_end:
            lines, rest = self._last_lines(data)
        else:
            *lines, rest = data.split(b"\n")
        if len(rest) > _MAX_LINE:
            lines.append(rest[: _MAX_LINE + 1])
            rest, self._is_cut = b"", True
        self._rest = rest
        self._log_lines(lines)

    def _last_lines(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the last lines and the unfinished one; count the others as dropped."""
        *lines, rest = data.rsplit(b"\n", _MAX_LAST + 1)
        if len(lines) > _MAX_LAST:
            self._dropped += lines[0].count(b"\n") + 1
            del lines[0]
        return lines, rest

    def _end_line(self) -> None:
        if self._rest:
            self._log_lines([self._rest])
        self._rest, self._is_cut = b"", False

    def _log_lines(self, lines: list[bytes]) -> None:
        """Log lines as long as they are not too many; count the others."""
        now = monotonic()
        if now >= self._interval_end:
            self._interval_end, self._left = now + _INTERVAL, _MAX_LINES
        logged, dropped = lines[: self._left], lines[self._left :]
        self._left -= len(logged)
        if logged and self._dropped:
            self._log_dropped()
        for line in logged:
            self._write(line)
        self._dropped += len(dropped)
        self._last.extend(line[: _MAX_LINE + 1] for line in dropped[-_MAX_LAST:])

    def _write(self, line: bytes) -> None:
        self._log.stderr(self._request_id, self._process, line[: _MAX_LINE + 1])

    def _log_dropped(self) -> None:
        if self._dropped:
            text = f"(lines dropped: {self._dropped}: more than {_MAX_LINES} in {_INTERVAL:g} s)"
            self._log.stderr(self._request_id, self._process, text.encode())
        self._dropped = 0
        self._last.clear()
