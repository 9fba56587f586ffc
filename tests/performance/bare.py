"""The smallest server and client, with which the speed of `sipc bench` is compared.

Both record no times, and assume that a small message arrives in one read. The server returns the
bytes as they are, or with framing: then it decodes the packets of each request, and encodes those
of the response. With a worker, it passes requests to its standard input, and responses from its
standard output. Run as a program: `serve PATH COUNTS LOOPS FRAMING WORKER...` (FRAMING is 0 or 1,
WORKER a command or nothing), or `ask PATH PROCESSES REQUESTS`, which prints the nanoseconds it
took.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import monotonic_ns

REQUEST = b"0009hello0000"

_COUNT = struct.Struct("=q")


class Echo:
    """A server of several processes that echo each request as fast as possible."""

    def __init__(
        self, path: Path, loops: int, *, framing: bool = False, worker: tuple[str, ...] = ()
    ) -> None:
        """`worker` is a command that answers messages; each loop has its own."""
        self.path, self._loops = path, loops
        self._framing, self._worker = framing, worker
        self._file = path.with_suffix(".counts")
        self._counts = _shared(self._file, loops)

    def answered(self) -> int:
        """Return how many connections have been answered."""
        return sum(count for (count,) in _COUNT.iter_unpack(self._counts[:]))

    def __enter__(self) -> Echo:
        how = [str(self._loops), str(int(self._framing)), *self._worker]
        command = [sys.executable, __file__, "serve", self.path, self._file, *how]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout.readline() == b"listening\n"
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def bare_rate(path: Path, processes: int, requests: int) -> float:
    """Return the requests per second of plain loops, each in a separate process."""
    command = [sys.executable, __file__, "ask", path, str(processes), str(requests)]
    took = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=100).stdout
    return requests / int(took) * 1e9


def _shared(path: Path, loops: int) -> mmap.mmap:
    path.touch()
    os.truncate(path, loops * _COUNT.size)
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), loops * _COUNT.size)


def _serve(path: str, counts: mmap.mmap, loops: int, framing: int, worker: list[str]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    number = next((number for number in range(1, loops) if not os.fork()), 0)
    if not number:
        print("listening", flush=True)  # noqa: T201
    ask = _framed if framing else bytes
    if worker:
        pipe = subprocess.PIPE
        ask = partial(_ask_worker, subprocess.Popen(worker, stdin=pipe, stdout=pipe))
    answered = 0
    while True:
        descriptor, _ = (
            listener._accept()
        )  # accept() itself creates two objects and makes more system calls
        try:
            if wire := os.read(descriptor, 1 << 16):
                os.write(descriptor, ask(wire))
        except OSError:
            pass  # a client connected and sent nothing
        os.close(descriptor)
        answered += 1
        _COUNT.pack_into(counts, number * _COUNT.size, answered)


def _ask_worker(worker: subprocess.Popen[bytes], wire: bytes) -> bytes:
    """Pass a message to a worker, and return its response."""
    os.write(worker.stdin.fileno(), _framed(wire))
    return _framed(os.read(worker.stdout.fileno(), 1 << 16))


def _framed(wire: bytes) -> bytes:
    """Decode a message, and encode its payload."""
    return _encoded(_decoded(wire))


def _decoded(wire: bytes) -> bytes:
    """Return the payload of a complete message."""
    pieces, start = [], 0
    while size := int(wire[start : start + 4], 16):
        pieces.append(wire[start + 4 : start + size])
        start += size
    return b"".join(pieces)


def _encoded(payload: bytes) -> bytes:
    """Return a message with a payload that fits into a packet."""
    return b"%04x%b0000" % (len(payload) + 4, payload)


def _ask(path: str, requests: int) -> None:
    for _ in range(requests):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.send(REQUEST)
        while not connection.recv(1 << 16).endswith(b"0000"):
            pass
        connection.close()


def _ask_together(path: str, processes: int, requests: int) -> int:
    """Return the nanoseconds until all loops have ended."""
    began = monotonic_ns()
    for number in range(processes):
        if not os.fork():
            _ask(path, requests // processes + (number < requests % processes))
            os._exit(0)
    for _ in range(processes):
        assert os.wait()[1] == 0
    return monotonic_ns() - began


if __name__ == "__main__":
    what, path, *rest = sys.argv[1:]
    if what == "serve":
        loops, framing = map(int, rest[1:3])
        _serve(path, _shared(Path(rest[0]), loops), loops, framing, rest[3:])
    else:
        print(_ask_together(path, *map(int, rest)))  # noqa: T201
