"""How things look to people: one line each, and nothing in it that a terminal obeys."""

from __future__ import annotations

import os
import select
from threading import Lock
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.log import Log, Record

STDERR = 2

_LONGEST_LINE = 1000  # characters; a pipe that takes anything takes 4096 bytes (PIPE_BUF)
_STUCK_AFTER = 200  # milliseconds, at will


def printable(text: str) -> str:
    """Text that may hold anything, with whatever is not plain to read escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
        for char in text
    )


def error_line(verb: str, error: SipcError) -> str:
    """`sipc VERB: what happened: what to do about it`."""
    return printable(f"sipc {verb}: {error.text}" if verb else f"sipc: {error.text}")


def say(line: str) -> None:
    """Write a line to stderr, in one piece. Nobody to read it is no reason to fail."""
    data = (line + "\n").encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass


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
                text = f"({self._lost} lines were lost: nobody read them)\n{text}"
                self._lost = 0
            say("\n".join(map(printable, text.split("\n")))[:_LONGEST_LINE])


def _takes_more(millis: int) -> bool:
    """Whether stderr takes a line without waiting; what is no pipe or the like always does."""
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    return bool(poll.poll(millis))
