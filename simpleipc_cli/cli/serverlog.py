"""How a server's log looks to people, on stderr."""

from __future__ import annotations

import select
from threading import Lock
from time import monotonic

from simpleipc_cli.cli.render import STDERR, printable, say
from simpleipc_cli.server.log import Log, Record

_LONGEST_LINE = 4096  # bytes; as many a pipe takes that takes anything (PIPE_BUF)
_STUCK_AFTER = 200  # milliseconds, at will


class TextLog(Log):
    """A server's log for people, on stderr."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        """Quiet leaves problems only, verbose adds what helps to debug."""
        self._quiet = quiet
        self._verbose = verbose
        self._lock = Lock()
        self._lost = 0  # lines, since the last that was written

    def request(self, record: Record) -> None:
        """`1234-1 pid=99 in=5 out=5 status=0 time=0.002s: answered`."""
        if self._quiet and not record.outcome.is_error and not record.warnings:
            return
        parts = [
            f"{record.id}",
            f"pid={record.peer.pid}",
            f"in={record.bytes_in}",
            f"out={record.bytes_out}",
            f"status={record.status}",
            f"time={monotonic() - record.began:.3f}s",
        ]
        line = f"{' '.join(parts)}: {record.outcome.value}"
        if record.detail:
            line += f": {record.detail}"
        for remark in [*record.warnings, *(record.notes if self._verbose else ())]:
            line += f"; {remark}"
        self._say(line)

    def problem(self, text: str) -> None:
        """Shown always."""
        self._say(text)

    def news(self, text: str) -> None:
        """Shown unless quiet."""
        if not self._quiet:
            self._say(text)

    def detail(self, text: str) -> None:
        """Shown when verbose."""
        if self._verbose:
            self._say(text)

    def _say(self, text: str) -> None:
        """Write a line, unless stderr is stuck: then it is lost, for the server must go on."""
        with self._lock:
            if not _takes_more(_STUCK_AFTER if not self._lost else 0):
                self._lost += 1
                return
            if self._lost:
                say(f"({self._lost} lines were lost: nobody read them)")
                self._lost = 0
                if not _takes_more(0):
                    self._lost = 1
                    return
            say(printable(text), longest=_LONGEST_LINE)


def _takes_more(millis: int) -> bool:
    """Whether stderr takes a line without waiting; what is no pipe or the like always does."""
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    return bool(poll.poll(millis))
