"""The client of the public API against servers of all kinds, on Linux and Windows."""

from __future__ import annotations

import array
import asyncio
import math
import threading
from functools import partial
from itertools import count

import pytest
from helpers.inprocess_fixtures import path  # noqa: F401 - fixtures
from helpers.inprocess_server import run_concurrently
from helpers.peer import Peer, request_of
from helpers.streams import write_all
from helpers.waiting import TIMEOUT
from helpers.wire import decode, message, packets

from simpleipc_cli import (
    IncompleteMessage,
    NotASocket,
    PathNotFound,
    PeerClosed,
    ProtocolError,
    ServerBusy,
    State,
    TimedOut,
    connect,
    probe,
    send,
)
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.transport import connect_nowait, listen

SHORT = 0.05  # seconds, for an event that never happens
LARGE = bytes(range(256)) * 8_000  # two megabytes: more than is kept in buffers and in memory
BOTH = pytest.mark.parametrize("ask", ["send", "connect"])


@pytest.fixture
def serve(path):
    peers = []

    def start(act, connections=1):
        peers.append(Peer(path, act, connections))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


def asked(ask, path, request=b"ping", **limits):
    """Send a request with one of the two functions; return the response."""
    if ask == "send":
        return send(path, request, **limits)
    with connect(path, **limits) as connection:
        connection.write(request)
        connection.finish()
        return connection.read()


def echo(stream):
    write_all(stream, message(request_of(stream)))


def echo_as_it_comes(stream):
    """Write what arrives, headers included, up to the end of the stream."""
    buffer = bytearray(1 << 16)
    while count := stream.read(buffer, Deadline(TIMEOUT)):
        write_all(stream, bytes(buffer[:count]))


def respond_with(data):
    def act(stream):
        request_of(stream)
        write_all(stream, data)

    return act


def until_closed(piece):
    """Write pieces until the client closes."""

    def act(stream):
        try:
            while True:
                write_all(stream, piece())
        except PeerClosed:
            pass

    return act


def received(stream, came):
    """Append the bytes that arrive to a list, up to the end of the stream."""
    buffer = bytearray(1 << 16)
    while count := stream.read(buffer, Deadline(TIMEOUT)):
        came.append(bytes(buffer[:count]))


# responses


@BOTH
@pytest.mark.parametrize("request_", [b"", b"x", b"x" * 65_516, LARGE], ids=len)
def test_a_request_is_answered(path, serve, ask, request_):
    serve(echo)
    assert asked(ask, path, request_, timeout=TIMEOUT) == request_


@BOTH
def test_a_large_request_and_a_large_response_are_sent_at_once(path, serve, ask):
    serve(echo_as_it_comes)
    assert asked(ask, path, LARGE) == LARGE


@BOTH
def test_a_response_may_arrive_byte_by_byte(path, serve, ask):
    def act(stream):
        request_of(stream)
        for byte in b"0004" + message(b"pong"):
            write_all(stream, bytes([byte]))

    serve(act)
    assert asked(ask, path) == b"pong"


@BOTH
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", IncompleteMessage),
        (b"00", IncompleteMessage),
        (b"0008po", IncompleteMessage),
        (b"0008pong", IncompleteMessage),
        (b"0008pong000", IncompleteMessage),
        (packets(LARGE), IncompleteMessage),
        (b"zzzz", ProtocolError),
        (b"0008pong0001", ProtocolError),
        (b"0008pongfff1", ProtocolError),
    ],
    ids="nothing|header|packet|flush|part of a flush|much|nonsense|delim|too long".split("|"),
)
def test_a_truncated_or_malformed_response_is_an_error(path, serve, ask, data, error):
    serve(respond_with(data))
    with pytest.raises(error) as raised:
        asked(ask, path)
    assert type(raised.value) is error


@BOTH
def test_bytes_after_the_flush_are_dropped(path, serve, ask):
    serve(respond_with(b"0008pong0000and more"))
    assert asked(ask, path) == b"pong"


@BOTH
@pytest.mark.parametrize("size", [1, len(LARGE)], ids=["small", "large"])
def test_a_server_that_closes_within_the_request_causes_an_error(path, serve, ask, size):
    serve(lambda stream: None)
    with pytest.raises(IncompleteMessage):
        asked(ask, path, b"x" * size)


@BOTH
def test_a_response_is_returned_though_the_server_closes_within_the_request(path, serve, ask):
    serve(lambda stream: write_all(stream, b"0008pong0000"))
    assert asked(ask, path, LARGE) == b"pong"


@BOTH
def test_a_server_that_writes_before_it_reads_causes_no_deadlock(path, serve, ask):
    def act(stream):
        write_all(stream, packets(LARGE))
        assert request_of(stream) == LARGE
        write_all(stream, b"0000")

    serve(act)
    assert asked(ask, path, LARGE) == LARGE


# times


@BOTH
@pytest.mark.parametrize("size", [1, len(LARGE)], ids=["small", "large"])
def test_a_call_times_out_if_the_server_never_reads(path, serve, ask, size):
    over = threading.Event()
    serve(lambda stream: over.wait(TIMEOUT))
    with pytest.raises(TimedOut):
        asked(ask, path, b"x" * size, timeout=SHORT)
    over.set()


@BOTH
def test_a_response_that_never_ends_times_out(path, serve, ask):
    def act(stream):
        write_all(stream, b"0008pong")
        received(stream, [])

    serve(act)
    with pytest.raises(TimedOut):
        asked(ask, path, timeout=SHORT)


def test_reading_an_endless_response_times_out(path, serve):
    serve(until_closed(lambda: packets(b"x" * 1000)))
    with connect(path, timeout=SHORT) as connection, pytest.raises(TimedOut):
        all(connection)


def test_each_step_of_a_connection_may_time_out(path, serve):
    over = threading.Event()
    serve(lambda stream: over.wait(TIMEOUT))
    with connect(path, timeout=SHORT) as connection:
        with pytest.raises(TimedOut):
            next(iter(connection))
        for step in (lambda: connection.write(b"x"), connection.finish, connection.read):
            with pytest.raises(TimedOut):
                step()
    over.set()


@BOTH
def test_a_time_limit_that_expires_before_the_connection_gives_the_error_of_connecting(path, ask):
    """No byte was sent, so that the program may send the request to another server."""
    with pytest.raises(PathNotFound):
        asked(ask, path, timeout=0)
    with pytest.raises(PathNotFound):
        asked(ask, path, timeout=SHORT, wait=math.inf)
    with pytest.raises(PathNotFound):
        asked(ask, path, wait=SHORT)


@BOTH
@pytest.mark.parametrize("seconds", [math.inf, 1e30, None], ids=str)
def test_any_length_of_time_is_accepted_as_a_limit(path, serve, ask, seconds):
    serve(echo)
    limits = dict.fromkeys(("timeout", "connect_timeout", "wait"), seconds)
    assert asked(ask, path, b"x", **limits) == b"x"


@BOTH
def test_a_client_waits_for_a_server_that_starts_later(path, serve, ask):
    timer = threading.Timer(0.1, lambda: serve(echo))
    timer.start()
    assert asked(ask, path, b"late", wait=TIMEOUT) == b"late"
    timer.join()


@pytest.fixture
def busy(path):
    """A server that accepts no connection, with a full queue."""
    listener = listen(path, mode=0o600, backlog=1)
    clients = []
    try:
        while True:
            clients.append(connect_nowait(path))
    except ServerBusy:
        pass
    yield
    for stream in clients:
        stream.close()
    listener.stop_listening()
    listener.close()


@pytest.mark.usefixtures("busy")
@BOTH
@pytest.mark.parametrize(
    "limits",
    [{"connect_timeout": SHORT}, {"timeout": SHORT}, {"timeout": 0}, {"wait": SHORT}],
    ids=str,
)
def test_a_server_with_a_full_backlog_is_reported_as_busy(path, ask, limits):
    with pytest.raises(ServerBusy):
        asked(ask, path, **limits)


@pytest.mark.usefixtures("busy")
def test_a_probe_reports_a_busy_server(path):
    found = probe(path, timeout=SHORT)
    assert (found.state, found.pid, found.uid) == (State.BUSY, None, None)
    assert isinstance(found.error, ServerBusy)
    assert found.seconds > 0


# streams


def test_the_response_can_be_read_while_the_request_is_sent(path, serve):
    serve(echo_as_it_comes)
    with connect(path, timeout=TIMEOUT) as connection:
        pieces = iter(connection)
        for word in (b"one", b"two"):
            assert connection.write(word)
            assert next(pieces) == word
        connection.finish()
        connection.finish()
        assert list(pieces) == []
        assert connection.read() == b""


def test_a_long_response_is_returned_in_small_pieces(path, serve):
    serve(respond_with(message(LARGE)))
    with connect(path) as connection:
        connection.finish()
        pieces = list(connection)
    assert b"".join(pieces) == LARGE
    assert max(map(len, pieces)) <= 64 * 1024


@pytest.mark.parametrize("size", [0, 1, len(LARGE)], ids=["nothing", "small", "large"])
def test_a_request_without_finish_is_sent_without_a_flush(path, serve, size):
    came = []
    peer = serve(lambda stream: received(stream, came))
    with connect(path) as connection:
        connection.write(b"x" * size)
    peer.join()
    assert decode(b"".join(came)) == (b"x" * size, False)


def test_a_write_returns_false_once_the_server_has_responded_and_closed(path, serve):
    """This is no error, as the response is complete."""
    serve(lambda stream: write_all(stream, b"0008pong0000"))
    with connect(path, timeout=TIMEOUT) as connection:
        while connection.write(b"x" * 1000):
            pass
        assert not connection.write(b"x")
        connection.finish()
        assert connection.read() == b"pong"


def test_a_write_raises_an_error_once_the_server_has_closed_within_its_response(path, serve):
    """The received part of the response can be read; then the error is raised again."""
    serve(lambda stream: write_all(stream, b"0008pong"))
    with connect(path, timeout=TIMEOUT) as connection:
        with pytest.raises(IncompleteMessage):
            all(connection.write(b"x" * 1000) or True for _ in count())
        pieces = iter(connection)
        assert next(pieces) == b"pong"
        with pytest.raises(IncompleteMessage):
            next(pieces)
        with pytest.raises(IncompleteMessage):
            next(iter(connection))


def test_calls_of_a_connection_in_the_wrong_order_are_refused(path, serve):
    serve(lambda stream: received(stream, []))
    with connect(path) as connection:
        with pytest.raises(ValueError, match="not finished"):
            connection.read()
        connection.finish()
        with pytest.raises(ValueError, match="finished"):
            connection.write(b"x")
    connection.close()
    for step in (lambda: connection.write(b"x"), connection.finish, connection.read):
        with pytest.raises(ValueError, match="closed"):
            step()


def test_an_iterator_does_not_outlive_its_connection(path, serve):
    """An unread rest of the response must not be treated as its end."""
    serve(until_closed(lambda: b"0008pong"))
    with connect(path) as connection:
        pieces = iter(connection)
        next(pieces)
    with pytest.raises(ValueError, match="closed"):
        next(pieces)


# arguments


@BOTH
@pytest.mark.parametrize(
    "request_",
    [b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), array.array("h", b"abcd")],
    ids=lambda value: type(value).__name__,
)
def test_a_request_may_be_any_object_of_bytes(path, serve, ask, request_):
    serve(echo)
    assert asked(ask, path, request_) == b"abcd"


def test_a_request_of_text_is_refused(path, serve):
    with pytest.raises(TypeError):
        send(path, "ping")  # before it connects
    serve(lambda stream: received(stream, []))
    with connect(path) as connection, pytest.raises(TypeError):
        connection.write("ping")


def test_a_path_may_be_a_path_object(tmp_path, serve):
    serve(echo)
    assert send(tmp_path / "demo.sock", b"x") == b"x"


def test_a_path_that_no_endpoint_can_have_is_refused():
    for wrong in ("", "a\0b"):
        with pytest.raises(NotASocket):
            send(wrong, b"x")
        assert probe(wrong).state is State.INVALID_PATH


# probes and threads


def test_a_probe_reports_a_missing_and_a_listening_server(path, serve):
    missing = probe(path)
    assert missing.state is State.PATH_NOT_FOUND
    assert isinstance(missing.error, PathNotFound)
    came = []
    peer = serve(lambda stream: received(stream, came))
    found = probe(path, timeout=None)
    assert (found.state, found.error) == (State.LISTENING, None)
    assert f"{found.state}" == "listening"
    assert found.pid
    peer.join()
    assert came == []


def test_many_threads_can_send_requests_at_once(path, serve):
    """No thread is left."""
    before = set(threading.enumerate())  # those of other tests may still end
    peer = serve(echo, 40)
    answers = run_concurrently(40, lambda: send(path, LARGE, connect_timeout=None))
    assert answers == [LARGE] * 40
    peer.join()
    assert set(threading.enumerate()) <= before


def test_an_asyncio_program_can_send_requests_in_threads(path, serve):
    serve(echo, 5)

    async def ask():
        requests = [b"%d" % number for number in range(5)]
        one = partial(asyncio.to_thread, send, path, connect_timeout=None)
        assert await asyncio.gather(*map(one, requests)) == requests

    asyncio.run(ask())
