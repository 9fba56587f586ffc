"""Exchanges of the client, on Linux and Windows."""

from __future__ import annotations

import threading

import pytest
from helpers.inprocess_fixtures import path  # noqa: F401 - fixtures
from helpers.inprocess_server import ask
from helpers.peer import Peer, request_of
from helpers.streams import connected_until_busy, listening, write_all
from helpers.waiting import TIMEOUT

from simpleipc_cli.client import connect_with_retry, exchange, probe, wait_until_gone
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import (
    IncompleteMessage,
    NotASocket,
    PathNotFound,
    ProtocolError,
    ServerBusy,
    SipcError,
    TimedOut,
)
from simpleipc_cli.pktline import MessageReader
from simpleipc_cli.transport import connect, listen


@pytest.fixture
def serve(path):
    peers = []

    def start(act):
        peers.append(Peer(path, act))

    start.peers = peers
    yield start
    for peer in peers:
        peer.close()


def respond_with(data):
    def act(stream):
        request_of(stream)
        write_all(stream, data)

    return act


def test_a_request_is_answered(path, serve):
    serve(respond_with(b"0008pong0000"))
    assert ask(path) == b"pong"


def test_an_empty_response_is_a_response(path, serve):
    serve(respond_with(b"0000"))
    assert ask(path) == b""


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", IncompleteMessage),
        (b"0008po", IncompleteMessage),
        (b"0008pong", IncompleteMessage),
        (b"0008pongzzzz", ProtocolError),
    ],
    ids=["nothing", "half a packet", "no flush", "nonsense"],
)
def test_a_truncated_or_malformed_response_is_an_error(path, serve, data, error):
    serve(respond_with(data))
    with pytest.raises(error):
        ask(path)


def test_a_large_request_and_a_large_response_are_exchanged_at_once(path, serve):
    pieces = [bytes([number]) * 200_000 for number in range(40)]
    waiting = iter([*pieces[1:], b""])

    def echo(stream):
        buffer = bytearray(1 << 16)
        left = sum(map(len, pieces))
        packets = -(-200_000 // 65516) * len(pieces)
        left += 4 * packets + 4
        while left:
            count = stream.read(buffer, Deadline(TIMEOUT))
            assert count
            left -= count
            write_all(stream, bytes(buffer[:count]))

    serve(echo)
    assert ask(path, pieces[0], more=lambda: next(waiting)) == b"".join(pieces)


def test_a_response_that_arrives_before_the_request_is_sent_is_received(path, serve):
    def act(stream):
        write_all(stream, b"0008pong0000")
        request_of(stream)

    serve(act)
    assert ask(path, b"x" * 30_000) == b"pong"


def test_a_response_is_received_though_the_server_closes_before_it_read_the_request(path, serve):
    """Even if a write fails: the response may contain the reason."""
    serve(lambda stream: write_all(stream, b"0008pong0000"))
    assert ask(path, b"x" * 30_000_000) == b"pong"


def test_a_server_that_closes_before_it_read_the_request_causes_an_error(path, serve):
    serve(lambda stream: None)
    with pytest.raises(IncompleteMessage):
        ask(path, b"x" * 30_000_000)


@pytest.mark.parametrize("size", [1, 3_000_000], ids=["small", "large"])
def test_a_request_that_cannot_be_completed_is_never_flushed(path, serve, size):
    """An error in the client does not complete it: a truncated request stays truncated."""
    came = []

    def act(stream):
        buffer = bytearray(1 << 16)
        while count := stream.read(buffer, Deadline(TIMEOUT)):
            came.append(bytes(buffer[:count]))

    def more():
        raise ZeroDivisionError

    serve(act)
    with pytest.raises(ZeroDivisionError):
        ask(path, b"x" * size, more=more)
    for peer in serve.peers:
        peer.join()
    reader = MessageReader()
    for data in came:
        list(reader.feed(memoryview(data)))
    assert not reader.complete


def test_a_response_that_cannot_be_delivered_ends_the_exchange(path, serve):
    hung_up = []

    def act(stream):
        request_of(stream)
        write_all(stream, b"0008pong")
        hung_up.append(stream.read(bytearray(10), Deadline(TIMEOUT)) == 0)

    def deliver(piece):
        raise ZeroDivisionError

    serve(act)
    with pytest.raises(ZeroDivisionError):
        exchange(connect(path, Deadline(TIMEOUT)), b"x", None, deliver, Deadline(TIMEOUT))
    for peer in serve.peers:
        peer.join()
    assert hung_up == [True]


def test_an_exchange_with_a_silent_server_times_out(path, serve):
    over = threading.Event()
    serve(lambda stream: (request_of(stream), over.wait(TIMEOUT)))
    with pytest.raises(TimedOut):
        ask(path, seconds=0.1)
    over.set()


def test_a_client_connects_to_a_server_that_starts_later(path, serve):
    with pytest.raises(PathNotFound):
        connect_with_retry(Endpoint(path).connect, connect_timeout=TIMEOUT)
    timer = threading.Timer(0.1, lambda: serve(lambda stream: None))
    timer.start()
    wait = Deadline(TIMEOUT)
    stream = connect_with_retry(Endpoint(path).connect, connect_timeout=TIMEOUT, wait=wait)
    stream.close()
    timer.join()


def test_a_probe_finds_whether_a_server_listens(path, serve):
    assert probe(Endpoint(path).connect, timeout=TIMEOUT).state == "path not found"
    serve(lambda stream: None)
    found = probe(Endpoint(path).connect, timeout=TIMEOUT)
    assert (found.state, found.error) == ("listening", None)


def test_a_probe_of_a_full_backlog_finds_it_busy(path):
    with listening(path, backlog=1), connected_until_busy(path):
        found = probe(Endpoint(path).connect, timeout=0.05)
        assert found.state == "busy"
        assert isinstance(found.error, ServerBusy)
        with pytest.raises(ServerBusy):
            connect_with_retry(Endpoint(path).connect, connect_timeout=0.05, wait=Deadline(0.1))


def test_a_probe_finds_an_invalid_path():
    found = probe(Endpoint("a\0b").connect, timeout=TIMEOUT)
    assert found.state == "invalid path"
    assert isinstance(found.error, NotASocket)


def test_a_probe_may_send_a_request(path, serve):
    serve(respond_with(b"0008pong0000"))
    answer = []

    def question(stream, deadline):
        exchange(stream, b"ping", None, lambda piece: answer.append(bytes(piece)), deadline)

    found = probe(Endpoint(path).connect, timeout=TIMEOUT, on_connected=question)
    assert found.state == "listening"
    assert answer == [b"pong"]


def test_the_wait_for_the_end_of_a_server_times_out(path, serve):
    with listening(path):
        found = wait_until_gone(Endpoint(path).connect, timeout=TIMEOUT, wait=Deadline(0.05))
        assert found.error is None


def test_the_wait_for_the_end_of_a_server_ends_when_the_server_ends(path):
    listener = listen(path, mode=0o600, backlog=16)

    def end():
        listener.stop_listening()
        listener.close()

    timer = threading.Timer(0.1, end)
    timer.start()
    finding = wait_until_gone(Endpoint(path).connect, timeout=TIMEOUT, wait=Deadline(TIMEOUT))
    timer.join()
    assert isinstance(finding.error, SipcError)
