"""The smallest server and client, with which the speed of `sipc bench` is compared.

Both record no times, and assume that a small message arrives in one read. The server returns the
bytes as they are, or with framing: then it decodes the packets of each request, and encodes those
of the response. Run as a program: `serve PATH COUNTS LOOPS FRAMING` (0 or 1), or
`ask PATH PROCESSES REQUESTS`, which prints the nanoseconds it took.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from time import monotonic_ns

REQUEST = b"0009hello0000"

_COUNT = struct.Struct("=q")


class Echo:
    """A server of several processes that echo each request as fast as possible."""

    def __init__(self, path: Path, loops: int, *, framing: bool = False) -> None:
        self.path, self._loops, self._framing = path, loops, framing
        self._file = path.with_suffix(".counts")
        self._counts = _shared(self._file, loops)

    def answered(self) -> int:
        """Return how many connections have been answered."""
        return sum(count for (count,) in _COUNT.iter_unpack(self._counts[:]))

    def __enter__(self) -> Echo:
        numbers = [str(self._loops), str(int(self._framing))]
        command = [sys.executable, __file__, "serve", self.path, self._file, *numbers]
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


def _serve(path: str, counts: mmap.mmap, loops: int, framing: int) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    number = next((number for number in range(1, loops) if not os.fork()), 0)
    if not number:
        print("listening", flush=True)  # noqa: T201
    answered = 0
    while True:
        descriptor, _ = (
            listener._accept()
        )  # accept() itself creates two objects and makes more system calls
        try:
            wire = os.read(descriptor, 1 << 16)
            os.write(descriptor, _encoded(_decoded(wire)) if framing and wire else wire)
        except OSError:
            pass  # a client connected and sent nothing
        os.close(descriptor)
        answered += 1
        _COUNT.pack_into(counts, number * _COUNT.size, answered)


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
        loops, framing = map(int, rest[1:])
        _serve(path, _shared(Path(rest[0]), loops), loops, framing)
    else:
        print(_ask_together(path, *map(int, rest)))  # noqa: T201
