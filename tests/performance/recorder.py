"""A server that takes a given time for each request, and records the time of each step.

It knows the protocol on its own, and shares no line with what it is to judge. One thread
waits for all connections and for the moments when answers are due, so that a slow answer
holds up no other. The record is a file in memory that others see at once and that outlives
a SIGKILL: nothing the server did is ever missing from it.

Used as `with Recorder(path, ...) as server`; the process runs this file as a program.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from time import monotonic_ns

MS = 1_000_000
SECOND = 1_000 * MS

REQUEST = b"0009hello0000"
ANSWER = b"0009world0000"

_ROW = struct.Struct("=3q")  # accepted, read whole, answered
_MOST = 100_000  # requests of one record
_LOOK = -1  # in place of when it was read: hung up without a byte, no request


@dataclass(frozen=True)
class Manner:
    """The timing of the server's responses. Times in nanoseconds."""

    delay: int = 0
    """Time from reading a request to its response."""
    every: int = 0
    """Every N-th request takes `slow` instead of `delay`; 0 for none."""
    slow: int = 0
    stall_at: int = 0
    """Time after the first request at which no request is answered for `stall`."""
    stall: int = 0
    answers: int = 0
    """The number of responses after which the server sends no more; 0 for no limit."""
    die_with: int = 0
    """Number of unanswered requests at which the server then kills itself; 0 for never."""


@dataclass(frozen=True)
class Row:
    """One request as the server saw it: times of the monotonic clock, 0 for never."""

    accepted: int
    read: int
    answered: int


class Record:
    """Rows in a file, in the order in which connections were accepted."""

    def __init__(self, path: Path) -> None:
        path.touch()
        os.truncate(path, _MOST * _ROW.size)
        with path.open("r+b") as file:
            self._rows = mmap.mmap(file.fileno(), _MOST * _ROW.size)
        self._next = next(number for number in range(_MOST) if not self._row(number).accepted)

    def _row(self, number: int) -> Row:
        return Row(*_ROW.unpack_from(self._rows, number * _ROW.size))

    def accepted(self, now: int) -> int:
        """Record a new connection; return its number."""
        number, self._next = self._next, self._next + 1
        struct.pack_into("=q", self._rows, number * _ROW.size, now)
        return number

    def read(self, number: int, now: int) -> None:
        struct.pack_into("=q", self._rows, number * _ROW.size + 8, now)

    def answered(self, number: int, now: int) -> None:
        struct.pack_into("=q", self._rows, number * _ROW.size + 16, now)

    def requests(self) -> list[Row]:
        """Return all connections that sent a byte, or may have."""
        rows = []
        for number in count():
            row = self._row(number)
            if not row.accepted:
                return rows
            if row.read != _LOOK:
                rows.append(row)
        return rows


class Recorder:
    """The server in a separate process, for the time of a `with`; it can be started again."""

    def __init__(self, path: Path, manner: Manner) -> None:
        self.path, self.manner = path, manner
        self._file = path.with_suffix(".record")
        self._file.unlink(missing_ok=True)
        self._record = Record(self._file)

    def start(self, manner: Manner) -> None:
        """Start the server, and wait until it listens."""
        command = [sys.executable, __file__, self.path, self._file, json.dumps(asdict(manner))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"listening\n":
            self.stop()
            raise AssertionError("the recording server does not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def wait_for_death(self) -> None:
        """Wait until the server has killed itself."""
        assert self.process.wait(60) == -signal.SIGKILL
        self.process.stdout.close()

    def requests(self) -> list[Row]:
        return self._record.requests()

    def __enter__(self) -> Recorder:
        self.start(self.manner)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server:
    """The code that runs in the process."""

    def __init__(self, path: str, record: Record, manner: Manner) -> None:
        self._record, self._manner = record, manner
        Path(path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(4096)
        self._listener.setblocking(False)
        self._poller = select.epoll()
        self._poller.register(self._listener, select.EPOLLIN)
        self._open: dict[int, tuple[int, socket.socket, bytearray]] = {}
        self._due: list[tuple[int, int, int]] = []  # when, number, descriptor
        self._numbers = count()
        self._answers = 0
        self._began = 0

    def run(self) -> None:
        while True:
            self._wait()
            for descriptor, _ in self._poller.poll(0):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif not self._read(descriptor) and descriptor in self._open:
                    self._poller.unregister(
                        descriptor
                    )  # a client that has closed is noticed at its response
            while self._due and self._due[0][0] <= monotonic_ns() and self._may_answer():
                _, number, descriptor = heappop(self._due)
                self._answer(number, descriptor)

    def _wait(self) -> None:
        """Wait for an event with select(), which is more precise than epoll's milliseconds."""
        pause = None
        if self._due and self._may_answer():
            pause = max(0, self._due[0][0] - monotonic_ns()) / SECOND
        select.select([self._poller], [], [], pause)

    def _may_answer(self) -> bool:
        return not self._manner.answers or self._answers < self._manner.answers

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            number = self._record.accepted(monotonic_ns())
            connection.setblocking(False)
            descriptor = connection.fileno()
            self._open[descriptor] = (number, connection, bytearray())
            if self._read(descriptor):
                self._poller.register(connection, select.EPOLLIN)

    def _read(self, descriptor: int) -> bool:
        """Read available bytes; return whether more must arrive."""
        number, connection, wire = self._open[descriptor]
        try:
            piece = connection.recv(1 << 16)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            piece = b""
        wire += piece
        if not piece:
            if not wire:
                self._record.read(number, _LOOK)
            self._close(descriptor)
        elif wire == REQUEST:
            self._record.read(number, now := monotonic_ns())
            self._began = self._began or now
            heappush(self._due, (self._moment(now), number, descriptor))
            if not self._may_answer() and len(self._due) == self._manner.die_with:
                os.kill(os.getpid(), signal.SIGKILL)
        return bool(piece) and wire != REQUEST

    def _moment(self, now: int) -> int:
        """Return the time at which a request read now is answered."""
        manner, number = self._manner, next(self._numbers)
        slow = manner.every and number % manner.every == manner.every - 1
        moment = now + (manner.slow if slow else manner.delay)
        begin = self._began + manner.stall_at
        return begin + manner.stall if begin <= moment < begin + manner.stall else moment

    def _answer(self, number: int, descriptor: int) -> None:
        _, connection, _ = self._open[descriptor]
        self._answers += 1
        self._record.answered(number, monotonic_ns())
        try:
            connection.send(ANSWER)
        except (BrokenPipeError, ConnectionResetError):
            self._record.answered(number, 0)
        self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        self._open.pop(descriptor)[1].close()  # which epoll unregisters by itself


if __name__ == "__main__":
    server = _Server(sys.argv[1], Record(Path(sys.argv[2])), Manner(**json.loads(sys.argv[3])))
    print("listening", flush=True)  # noqa: T201
    server.run()
