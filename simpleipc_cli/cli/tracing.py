"""Where a trace goes: stderr, a file, or both; and what becomes of it when that fails.

Nothing here keeps an exchange from going on, or for long from going faster.
"""

from __future__ import annotations

import errno
import os
import stat
from _thread import allocate_lock

from simpleipc_cli import system
from simpleipc_cli.cli.stderr import STDERR
from simpleipc_cli.errors import SipcError
from simpleipc_cli.observe.trace import MAX_LINE, Tracer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_STUCK_AFTER = 200  # milliseconds in which a pipe's reader has taken nothing, at will


class TraceSink:
    """An open file, pipe or terminal that takes lines, each with one write."""

    def __init__(self, descriptor: int, name: str, warn: Callable[[SipcError], None]) -> None:
        """`warn` is called once, when writing fails; no more is written then."""
        self._descriptor = descriptor
        self._name = name
        self._warn = warn
        self._lock = allocate_lock()
        self._lost = 0  # lines, since the last that was written
        self._failed = False
        self._poll: system.Watch | None = None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._poll = system.watch(descriptor, writing=True)

    def write(self, line: str) -> None:
        """Write a line, unless nobody reads them: then it is lost, and counted. Never raises."""
        try:
            with self._lock:
                if not self._failed:
                    self._write(line)
        except OSError as error:
            what = f"cannot write the trace to {self._name}: {error.strerror}"
            self._warn(SipcError(what, "all else goes on, without it"))

    def _write(self, line: str) -> None:
        try:
            if not self._takes_more(_STUCK_AFTER if not self._lost else 0):
                self._lost += 1
                return
            if self._lost:
                self._put(_lost_lines(self._lost))
                self._lost = 0
                if not self._takes_more(0):
                    self._lost = 1
                    return
            self._put(line)
        except OSError:
            self._failed = True
            raise

    def close(self) -> None:
        """Nothing more will come: say what was lost behind the last line that was written."""
        with self._lock:
            lost, self._lost = self._lost, 0
            stuck = self._failed or not self._takes_more(0)
        if lost and not stuck:
            self.write(_lost_lines(lost))
        elif lost and self._descriptor != STDERR:  # which is stuck itself
            self._warn(SipcError(f"{self._name}: {_lost_lines(lost)}", "read it as it is written"))

    def _takes_more(self, millis: int) -> bool:
        return self._poll is None or bool(self._poll.poll(millis))

    def _put(self, line: str) -> None:
        data = line.encode("ascii", "backslashreplace")[: MAX_LINE - 1] + b"\n"
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                if not self._takes_more(_STUCK_AFTER):
                    self._lost += 1
                    return


def _lost_lines(count: int) -> str:
    return f"({count} lines of the trace were lost: nobody read them)"


class OpenTrace(Tracer):
    """Makes traces, into some sinks."""

    def __init__(self, sinks: list[TraceSink]) -> None:
        """Takes over the sinks."""
        super().__init__(self._write_all)
        self._sinks = sinks

    def _write_all(self, line: str) -> None:
        for sink in self._sinks:
            sink.write(line)

    def close(self) -> None:
        """Nothing more will come."""
        for sink in self._sinks:
            sink.close()


def open_trace(
    warn: Callable[[SipcError], None], *, on_stderr: bool, path: str | None
) -> OpenTrace:
    """What makes the traces, into all places that were asked for.

    Raises SipcError if the file cannot be opened.
    """
    sinks = [TraceSink(STDERR, "stderr", warn)] if on_stderr or path == "-" else []
    if path is not None and path != "-":  # standard output is the answer's
        sinks.append(TraceSink(_open_file(path), path, warn))
    return OpenTrace(sinks)


def _open_file(path: str) -> int:
    """Open to append; a new file is for its owner alone, as what goes over the wire may be secret.

    Without waiting: a named pipe must have its reader, and one that does not read loses lines.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | system.OPEN_FLAGS | system.O_NONBLOCK_FLAGS
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        why = "nobody reads there" if error.errno == errno.ENXIO else error.strerror
        raise SipcError(f"cannot open the trace file {path}: {why}", "choose another") from error
