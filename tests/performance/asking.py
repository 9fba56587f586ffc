"""The smallest measuring client: processes that send requests in turn and time them.

Run as a program: `PATH CLIENTS SECONDS SPEECH`, where SPEECH is `packets` or `bytes`; prints, as
JSON, how many were answered a second and how long the median and the 99th percentile took.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns

PAYLOAD = b"twenty bytes of text"
PACKETS = b"0018" + PAYLOAD + b"0000"
WARM_UP = 0.3
"""Seconds that are not counted, in which a server starts processes on demand."""


@dataclass(frozen=True)
class Speed:
    """The results of one run; times in microseconds."""

    rate: float
    p50: float
    p99: float


def measure(path: Path, clients: int, seconds: float, speech: str) -> Speed:
    """Send requests to an echo server from a number of processes at once."""
    command = [sys.executable, __file__, path, str(clients), str(seconds), speech]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
    return Speed(**json.loads(run.stdout))


def ask_packets(path: str) -> None:
    """Send one request as git does: no half-close, and close at the flush."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.send(PACKETS)
        answer = connection.recv(100)
        while not answer.endswith(b"0000"):
            piece = connection.recv(100)
            assert piece, answer
            answer += piece
    assert PAYLOAD in answer, answer


def ask_bytes(path: str) -> None:
    """Send only the payload and a half-close, for servers that do not know messages."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.send(PAYLOAD)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(100):
            answer += piece
    assert answer == PAYLOAD, answer


def _client(path: str, seconds: float, speech: str) -> list[int]:
    """Return the time of each request in nanoseconds."""
    ask = {"packets": ask_packets, "bytes": ask_bytes}[speech]
    now = monotonic_ns()
    begin = now + int(WARM_UP * 1e9)
    end = begin + int(seconds * 1e9)
    took = []
    while now < end:
        began = now
        ask(path)
        now = monotonic_ns()
        if began >= begin:
            took.append(now - began)
    return took


def _measure(path: str, clients: int, seconds: float, speech: str) -> dict[str, float]:
    readers = []
    for _ in range(clients):
        reader, writer = os.pipe()
        if not os.fork():
            took = _client(path, seconds, speech)
            with open(writer, "wb") as file:
                file.write(struct.pack(f"={len(took)}q", *took))
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    all_took: list[int] = []
    for reader in readers:
        with open(reader, "rb") as file:
            found = file.read()
        assert found, "a client was not answered"
        all_took += struct.unpack(f"={len(found) // 8}q", found)
        assert os.wait()[1] == 0
    all_took.sort()
    at = {share: all_took[int(len(all_took) * share)] / 1000 for share in (0.5, 0.99)}
    return {"rate": len(all_took) / seconds, "p50": at[0.5], "p99": at[0.99]}


if __name__ == "__main__":
    path, clients, seconds, speech = sys.argv[1:]
    print(json.dumps(_measure(path, int(clients), float(seconds), speech)))  # noqa: T201
