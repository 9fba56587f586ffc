"""Processes of `sipc send` with input from a test, and servers for them in this process."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

from helpers.command import SIPC, Program
from helpers.scripted_server import RespondingServer
from helpers.wire import message
from simpleipc_cli.deadline import Deadline


def echo(connection) -> None:
    """Send the bytes of a request back as they arrive: a response with the same payload."""
    while piece := connection.recv(1 << 20):
        connection.sendall(piece)


class EchoServer(RespondingServer):
    """Responds to complete requests with their payload, or with the result of `response`."""

    def __init__(self, path, response=lambda payload: payload, **options) -> None:
        super().__init__(path, lambda payload: message(response(payload)), **options)


def start_send(endpoint, *options, wrapper=(), **popen) -> Program:
    """Start a `sipc send` whose standard input and output are pipes."""
    popen.setdefault("stdin", subprocess.PIPE)
    popen.setdefault("stdout", subprocess.PIPE)
    return Program([*wrapper, SIPC, "send", endpoint, *map(str, options)], **popen)


def send_lines(endpoint, *options, **popen) -> Program:
    """Start a `sipc send --lines`."""
    return start_send(endpoint, "--lines", *options, **popen)


def numbers(count: int, start: int = 1) -> bytes:
    """Records: the decimal numbers from `start` on."""
    return b"".join(b"%d\n" % number for number in range(start, start + count))


def feed(client, *pieces: bytes) -> None:
    """Write to the standard input of a client."""
    for piece in pieces:
        client.stdin.write(piece)
    client.stdin.flush()


def write_and_close(descriptor: int, payload: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(payload)


def is_partly_written(folder: Path) -> bool:
    """Whether a part of what `-o` is to write is in a temporary file."""
    return any(path.stat().st_size for path in folder.glob(".*.sipc-*"))


def failed_records(errors: bytes) -> list[int]:
    """Return the record numbers in a client's messages; there must be no other messages."""
    lines = errors.splitlines()
    found = [re.fullmatch(rb"sipc send: record (\d+): [^\n]+: [^\n]+", line) for line in lines]
    assert all(found), errors
    return [int(match[1]) for match in found]


class ControlledDeadline(Deadline):
    """A deadline that expires when `is_over()` is true, independent of the clock."""

    def __init__(self) -> None:
        super().__init__(None)
        self.is_over = lambda: False

    def remaining(self) -> float:
        return 0.0 if self.is_over() else 0.01

    def expired(self) -> bool:
        return self.is_over()

    def capped(self, seconds: float | None) -> Deadline:
        return self


@contextmanager
def umask(mask: int):
    """Set the umask of this process and of processes that it starts."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
