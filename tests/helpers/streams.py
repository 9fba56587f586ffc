"""Streams, listeners and pollers of the package, on whatever system this runs."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager

from helpers.waiting import TIMEOUT
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import ServerBusy
from simpleipc_cli.transport import READ, connect, connect_nowait, listen, new_poller


def read_some(stream, size=1 << 18):
    buffer = bytearray(size)
    return bytes(buffer[: stream.read(buffer, Deadline(TIMEOUT))])


def read_all(stream):
    return b"".join(iter(lambda: read_some(stream), b""))


def write_all(stream, data):
    left = memoryview(data)
    while left:
        left = left[stream.write([left]) :]


def fill(stream):
    """Write until the buffers are full; return the number of bytes."""
    total = 0
    try:
        while True:
            total += stream.write_nowait([b"x" * 100_000])
    except BlockingIOError:
        return total


def reported(poller):
    """What a poller reports, once it reports something."""
    deadline = Deadline(TIMEOUT)
    while not (found := dict(poller.wait(deadline.remaining()))) and not deadline.expired():
        pass
    return found


def accepted(listener):
    """The next connection of a listener."""
    with closing(new_poller()) as poller:
        poller.register(listener.fileno(), READ)
        assert reported(poller)
    return listener.accept()


@contextmanager
def listening(path, backlog=16):
    """A listener at a path."""
    listener = listen(path, mode=0o600, backlog=backlog)
    try:
        yield listener
    finally:
        listener.stop_listening()
        listener.close()


@contextmanager
def connected(path):
    """Client and server of one connection."""
    with (
        listening(path) as listener,
        closing(connect(path, Deadline(TIMEOUT))) as client,
        closing(accepted(listener)) as server,
    ):
        yield client, server


@contextmanager
def connected_until_busy(path):
    """As many clients as a server's queue takes."""
    with ExitStack() as stack:
        clients = []
        try:
            while len(clients) < 50:
                clients.append(stack.enter_context(closing(connect_nowait(path))))
        except ServerBusy:
            pass
        assert len(clients) < 50, "it is never busy"
        yield clients
