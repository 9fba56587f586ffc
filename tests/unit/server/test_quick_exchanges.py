"""Requests to callbacks that are answered without an exchange. The test runs the event loop."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from contextlib import closing

import pytest
from helpers.event_loop import Loop, ask, response
from helpers.waiting import wait_until
from helpers.wire import connect, message

from simpleipc_cli.api.server import Server
from simpleipc_cli.errors import Shortage, SipcError
from simpleipc_cli.server.context import RequestRecord
from simpleipc_cli.transport.unix.stream import UnixStream

LIMIT = 4096
"""Bytes of a response that is written without an exchange."""


@pytest.fixture
def loop(endpoint):
    with closing(Loop(endpoint, lambda request: request)) as loop:
        yield loop


def test_a_small_request_is_answered_without_an_exchange(loop, endpoint):
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    assert len(loop.quick) == 1
    assert not loop.server._dispatcher._on_loop
    loop.call()
    assert response(client) == message(b"hello")
    counters = loop.server._dispatcher.stats(idle=0)
    assert (counters["answered"], counters["bytes_in"], counters["bytes_out"]) == (1, 5, 5)


def test_bytes_after_the_request_are_read_and_dropped(loop, endpoint, monkeypatch):
    notes = []
    monkeypatch.setattr(RequestRecord, "note_dropped", lambda _, count: notes.append(count))
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    client.sendall(message(b"more"))
    loop.call()
    assert response(client) == message(b"hello")  # else the end would be a reset connection
    assert notes == [len(message(b"more"))]


@pytest.mark.parametrize(("error", "starts"), [(SipcError, 1), (Shortage, 2)])
def test_a_run_whose_start_fails_may_have_worked_and_is_started_again_only_in_a_shortage(
    loop, endpoint, monkeypatch, error, starts
):
    started = []

    def fail(request, _payload):
        started.append(request)
        raise error("as asked")

    monkeypatch.setattr(loop.server._context.handler, "run_nowait", fail)
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: started)
    loop.answer()
    assert response(client) == b""
    assert len(started) == starts
    assert loop.server._dispatcher.stats(idle=0)["spawn_failed"] == 1


@pytest.mark.parametrize("size", [1, LIMIT - 1, LIMIT, LIMIT + 1, 65516, 65517, 100_000])
def test_requests_and_responses_of_all_sizes_are_answered(loop, endpoint, size):
    client = ask(endpoint, message(bytes(size)))
    loop.run_until(lambda: loop.calls)
    loop.answer()
    assert response(client) == message(bytes(size))
    assert loop.server._dispatcher.stats(idle=0)["bytes_out"] == size


@pytest.mark.parametrize(
    "pieces",
    [
        (b"00", b"09hello0000"),
        (b"0009hello", b"0000"),
        (b"0009hello00", b"00"),
        (b"0007hel", b"0006lo0000"),
    ],
    ids=["header", "flush", "in the flush", "two packets"],
)
def test_a_request_that_arrives_in_pieces_is_answered(endpoint, pieces):
    with Server(endpoint, lambda request: request):
        with connect(endpoint) as client:
            for piece in pieces:
                client.sendall(piece)
                wait_until(lambda: not unread(client), "the piece to be read")
            assert client.recv(100, socket.MSG_WAITALL) == message(b"hello")


def unread(connection):
    """Return how many bytes the server has not read yet."""
    found = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def test_an_empty_response_is_a_flush(endpoint):
    with closing(Loop(endpoint, lambda _: b"")) as loop:
        client = ask(endpoint, message(b"hello"))
        loop.run_until(lambda: loop.calls)
        loop.answer()
        assert response(client) == b"0000"


@pytest.mark.parametrize("taken", [0, 1, 4, 6, 9, 11, 12])
@pytest.mark.parametrize("size", [1, 5, LIMIT])
def test_an_exchange_sends_what_the_connection_does_not_take_at_once(
    loop, endpoint, monkeypatch, taken, size
):
    wire = message(b"x" * size)
    client = ask(endpoint, wire)
    loop.run_until(lambda: loop.calls)
    write = UnixStream.write_nowait

    def write_some(stream, buffers):
        """Write as if the connection had space for so many bytes, but only now."""
        monkeypatch.undo()
        if not taken:
            raise BlockingIOError
        return write(stream, [b"".join(buffers)[:taken]])

    monkeypatch.setattr(UnixStream, "write_nowait", write_some)
    loop.answer()
    assert response(client) == wire
    assert loop.server._dispatcher.stats(idle=0)["answered"] == 1


def test_a_defect_ends_only_its_own_request(loop, endpoint, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    (quick,) = loop.quick
    with monkeypatch.context() as patch:
        patch.setattr(type(quick), "_send", fail)
        loop.call()
    assert response(client) == b""
    assert loop.server._dispatcher.stats(idle=0)["internal_error"] == 1


def test_no_event_is_waited_for_while_a_call_is_due(loop, endpoint, monkeypatch):
    client = ask(endpoint, message(b"hello"))
    loop.run_until(lambda: loop.calls)
    timeouts = []
    with monkeypatch.context() as patch:
        poller = type(loop.server._poller)
        patch.setattr(poller, "dispatch", lambda _, timeout: timeouts.append(timeout))
        assert loop.server.run_once()
    assert timeouts == [0]
    loop.answer()
    assert response(client) == message(b"hello")


def test_calls_that_wait_when_the_server_drains_are_made(loop, endpoint):
    clients = [ask(endpoint, message(b"hello")) for _ in range(3)]
    loop.run_until(lambda: len(loop.calls) == 3)
    loop.server.stop()
    loop.server.run_once()
    loop.answer()
    assert [response(client) for client in clients] == [message(b"hello")] * 3


def test_calls_that_wait_when_the_server_aborts_are_not_made(endpoint):
    called = []
    with closing(Loop(endpoint, called.append)) as loop:
        clients = [ask(endpoint, message(b"hello")) for _ in range(3)]
        loop.run_until(lambda: len(loop.calls) == 3)
        loop.server.stop()
        loop.server.stop()
        loop.server.run_once()
        loop.answer()
        assert [response(client) for client in clients] == [b""] * 3
        assert not called
        assert loop.server._dispatcher.stats(idle=0)["aborted"] == 3
