"""Streams between client and server, on Linux and Windows."""

from __future__ import annotations

import _socket
import os
import sys
import threading
from contextlib import closing

import pytest
from helpers.inprocess_fixtures import path  # noqa: F401 - fixtures
from helpers.streams import connected, fill, read_all, read_some, reported, write_all
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PeerClosed, TimedOut
from simpleipc_cli.pktline import consume
from simpleipc_cli.transport import HANGUP, READ, WRITE, is_hung_up, new_poller, new_scalable_poller


@pytest.fixture(params=[new_poller, new_scalable_poller], ids=["few", "many"])
def poller(request):
    made = request.param()
    yield made
    made.close()


@pytest.fixture(params=["native"] if sys.platform == "win32" else ["native", "portable", "xnu"])
def pair(path, request):
    """Client and server of one connection."""
    with connected(path) as streams:
        if request.param == "native":
            yield streams
            return
        from helpers import xnu  # noqa: PLC0415 - not on Windows

        kind = xnu.XnuSocket if request.param == "xnu" else _socket.socket
        client, server = (xnu.portable(stream, kind) for stream in streams)
        with closing(client), closing(server):
            yield client, server


def test_each_end_knows_the_process_of_the_other(path):
    with connected(path) as pair:
        assert [stream.peer().pid for stream in pair] == [os.getpid()] * 2


@pytest.mark.parametrize("turned", [False, True], ids=["to the server", "to the client"])
def test_bytes_arrive_as_they_were_written(pair, turned):
    one, other = reversed(pair) if turned else pair
    data = bytes(range(256)) * 4096 * 5
    thread = threading.Thread(target=lambda: (write_all(one, data), one.close()))
    thread.start()
    assert read_all(other) == data
    thread.join(TIMEOUT)


def test_several_buffers_are_written_in_order(pair):
    client, server = pair
    buffers = [b"a", b"bc" * 50_000, b"", b"d" * 10]
    expected = b"".join(buffers)

    def write():
        total = 0
        while total < len(expected):
            total += client.write([memoryview(expected)[total:][:7], expected[total + 7 :]])
        client.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert read_all(server) == expected
    thread.join(TIMEOUT)


def test_bytes_are_sent_in_both_directions_at_once(pair):
    data = [bytes([number]) * 3_000_000 for number in range(2)]
    threads = [
        threading.Thread(target=write_all, args=(stream, what))
        for stream, what in zip(pair, data, strict=True)
    ]
    for thread in threads:
        thread.start()
    for stream, what in zip(pair, reversed(data), strict=True):
        left, buffer = len(what), bytearray(1 << 16)
        while left:
            count = stream.read(buffer, Deadline(TIMEOUT))
            assert count
            assert buffer[:count] == what[:count]
            left -= count
    for thread in threads:
        thread.join(TIMEOUT)


def test_a_read_into_a_small_buffer_returns_as_many_bytes_as_fit(pair):
    client, server = pair
    write_all(client, b"hello")
    buffer = bytearray(2)
    found = b""
    while len(found) < 5:
        found += buffer[: server.read(buffer, Deadline(TIMEOUT))]
    assert found == b"hello"


def test_a_read_without_bytes_times_out(pair):
    buffer = bytearray(10)
    with pytest.raises(TimedOut):
        pair[0].read(buffer, Deadline(0.05))
    with pytest.raises(BlockingIOError):
        pair[1].read_nowait(buffer)
    with pytest.raises(BlockingIOError):
        pair[1].peek_nowait()


def test_a_peek_consumes_nothing(pair, poller):
    client, server = pair
    write_all(client, b"x")
    poller.register(server.fileno(), READ)
    assert reported(poller) == {server.fileno(): READ}
    assert server.peek_nowait() is True
    assert server.peek_nowait() is True
    assert server.read_nowait(bytearray(10)) == 1


def test_bytes_written_before_the_end_can_be_read_after_it(pair):
    client, server = pair
    write_all(server, b"answer")
    server.close()
    assert read_all(client) == b"answer"


def test_bytes_of_a_write_that_did_not_fit_are_neither_lost_nor_doubled(pair):
    """After a write that did not fit, the same bytes are written again, and arrive once."""
    client, server = pair
    data = bytes(range(256)) * 8192
    seen = []

    def read():
        seen.append(read_all(server))

    thread = threading.Thread(target=read)
    left, poller = memoryview(data), new_poller()
    poller.register(client.fileno(), WRITE)
    started = False
    while left:
        try:
            left = left[client.write_nowait([left[:10], left[10:]]) :]
        except BlockingIOError:
            if not started:
                started = True
                thread.start()
            assert reported(poller)
    client.close()
    thread.join(TIMEOUT)
    assert seen == [data]
    poller.close()


def test_a_peer_that_closes_ends_a_write_that_waits(pair):
    client, server = pair
    fill(server)
    outcome = []

    def write():
        try:
            while True:
                server.write([b"x" * 100_000])
        except PeerClosed as error:
            outcome.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    client.close()
    thread.join(TIMEOUT)
    assert len(outcome) == 1


def test_bytes_that_the_peer_has_read_are_written_though_it_has_closed(pair, poller):
    """On Windows the end of their write may be noticed only after the close."""
    client, server = pair
    pending = [b"x" * 90_000]
    try:
        while pending:
            consume(pending, server.write_nowait(pending))
    except BlockingIOError:
        pass
    received = 0
    while received < 90_000:
        received += len(read_some(client))
    client.close()
    poller.register(server.fileno(), READ)
    assert bool(reported(poller)[server.fileno()] & HANGUP) is not bool(pending)
    while pending:
        consume(pending, server.write(pending))
    poller.register(server.fileno(), WRITE)
    assert reported(poller)[server.fileno()] & HANGUP


@pytest.mark.parametrize("what", ["read", "write"])
def test_a_shutdown_wakes_a_call_that_waits_on_the_same_stream(pair, what):
    client, _ = pair
    outcome = []

    def read():
        outcome.append(client.read(bytearray(10), Deadline(TIMEOUT)))

    def write():
        try:
            while True:
                client.write([b"x" * 100_000])
        except PeerClosed:
            outcome.append(0)

    thread = threading.Thread(target=read if what == "read" else write)
    thread.start()
    client.shutdown()
    thread.join(TIMEOUT)
    assert outcome == [0]


def test_after_a_shutdown_the_peer_reads_the_end_of_the_stream(pair):
    client, server = pair
    write_all(client, b"last")
    client.shutdown()
    client.shutdown()
    assert read_all(server) == b"last"


def test_only_the_close_of_the_peer_is_reported_as_a_close(pair):
    client, server = pair
    assert not is_hung_up(server.fileno())
    write_all(client, b"data")
    assert not is_hung_up(server.fileno())
    assert server.read(bytearray(4), Deadline(TIMEOUT)) == 4  # else Windows does not report it
    client.close()
    wait_until(lambda: is_hung_up(server.fileno()), "the hang-up to be seen")
