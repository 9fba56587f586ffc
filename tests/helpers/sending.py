"""Clients of `sipc send` that tests feed by hand, and servers in this process for them."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import contextmanager, suppress

from helpers import spawning
from helpers.command import SIPC, Program
from helpers.inprocess_cli import run_cli
from helpers.scripted_server import ScriptedServer, receive_request
from helpers.wire import message
from simpleipc_cli.deadline import Deadline

_CLOSED = (BrokenPipeError, ConnectionResetError)  # some clients end in the middle of an exchange


def echo(connection) -> None:
    """Return the bytes of a request as they come: that is a response with the same payload."""
    with suppress(*_CLOSED):
        while piece := connection.recv(1 << 20):
            connection.sendall(piece)


class EchoServer(ScriptedServer):
    """Responds to whole requests, with their own payload or what `response` makes of it."""

    def __init__(self, path, response=lambda payload: payload, **options) -> None:
        super().__init__(path, self._respond, **options)
        self.requests: list[bytes] = []
        self._response = response

    def _respond(self, connection) -> None:
        payload = receive_request(connection)
        self.requests.append(payload)
        with suppress(*_CLOSED):
            connection.sendall(message(self._response(payload)))


def start_send(endpoint, *options, wrapper=(), **popen) -> Program:
    """Start a `sipc send` whose standard input and output are pipes."""
    popen.setdefault("stdin", subprocess.PIPE)
    popen.setdefault("stdout", subprocess.PIPE)
    return Program([*wrapper, SIPC, "send", endpoint, *map(str, options)], **popen)


def send_lines(endpoint, *options, **popen) -> Program:
    """Start a `sipc send --lines`."""
    return start_send(endpoint, "--lines", *options, **popen)


def feed(client, *pieces: bytes) -> None:
    """Write to the standard input of a client."""
    for piece in pieces:
        client.stdin.write(piece)
    client.stdin.flush()


def failed_records(errors: bytes) -> list[int]:
    """The numbers of records in messages about them; there must be no other messages."""
    lines = errors.splitlines()
    found = [re.fullmatch(rb"sipc send: record (\d+): [^\n]+: [^\n]+", line) for line in lines]
    assert all(found), errors
    return [int(match[1]) for match in found]


class ControlledDeadline(Deadline):
    """A deadline that passes when `is_over()` holds, whatever the clock says."""

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
    """Set the umask of this process, and what it starts."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class Spawning(spawning.Spawning):
    """Clients whose servers may take as long as they like to listen, unless a test sets a limit."""

    def command(self, line: str, *options) -> list[str]:
        if not {"--wait", "-m"} & set(options):
            options = ("--wait", "1h", *options)
        return super().command(line, *options)

    def send(self, line: str, *options, data="hello", run=run_cli, **more):
        """Run a client to its end, in this process unless `run` is `sipc`."""
        more.setdefault("env", self.environment())
        return run(*self.command(line, *options, "-d", data)[1:], **more)


class Gate:
    """A named pipe at which shell commands wait: `read line <NAME`."""

    def __init__(self, path) -> None:
        os.mkfifo(path)
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)  # opening it never waits, and it never ends

    def open(self) -> None:
        """Let all commands through that wait or will wait."""
        os.write(self._descriptor, b"\n" * 1000)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        os.unlink(self._path)
