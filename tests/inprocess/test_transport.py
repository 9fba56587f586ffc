"""Connections, streams and pollers, on Linux and Windows."""

from __future__ import annotations

import os
import threading

import pytest
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import (
    AddressInUse,
    NotASocket,
    PathNotFound,
    PeerClosed,
    ServerBusy,
    SipcError,
    TimedOut,
)
from simpleipc_cli.transport import (
    HANGUP,
    READ,
    WRITE,
    connect,
    connect_nowait,
    is_hung_up,
    listen,
    new_poller,
    new_scalable_poller,
    new_wakeup_event,
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "demo.sock")


@pytest.fixture
def listener(path):
    listening = listen(path, mode=0o600, backlog=16)
    yield listening
    listening.stop_listening()
    listening.close()


@pytest.fixture(params=[new_poller, new_scalable_poller], ids=["few", "many"])
def poller(request):
    made = request.param()
    yield made
    made.close()


def reported(poller, seconds=TIMEOUT):
    """What a poller reports, once it reports something."""
    deadline = Deadline(seconds)
    while not (found := dict(poller.wait(deadline.remaining()))) and not deadline.expired():
        pass
    return found


def accepted(listener):
    poller = new_poller()
    poller.register(listener.fileno(), READ)
    assert reported(poller)
    poller.close()
    return listener.accept()


@pytest.fixture
def pair(path, listener):
    """Client and server of one connection."""
    client = connect(path, Deadline(TIMEOUT))
    server = accepted(listener)
    yield client, server
    client.close()
    server.close()


def connect_until_busy(path):
    clients = []
    try:
        while len(clients) < 50:
            clients.append(connect_nowait(path))
    except ServerBusy:
        return clients
    raise AssertionError("it is never busy")


def read_all(stream):
    buffer = bytearray(1 << 18)
    pieces = []
    while count := stream.read(buffer, Deadline(TIMEOUT)):
        pieces.append(bytes(buffer[:count]))
    return b"".join(pieces)


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


# connecting


def test_connecting_to_a_missing_path_is_an_error(path):
    for attempt in (lambda: connect(path, Deadline(TIMEOUT)), lambda: connect_nowait(path)):
        with pytest.raises(PathNotFound, match="does not exist"):
            attempt()


@pytest.mark.parametrize("name", ["", "a\0b"], ids=["empty", "NUL"])
def test_an_invalid_name_of_an_endpoint_is_an_error(name):
    with pytest.raises(NotASocket):
        connect_nowait(name)
    with pytest.raises(SipcError):
        listen(name, mode=0o600, backlog=1)


def test_a_path_has_one_listener(path, listener):
    with pytest.raises(AddressInUse):
        listen(path, mode=0o600, backlog=16)


def test_of_listeners_that_start_at_once_one_wins(path):
    start = threading.Barrier(8)
    won, lost = [], []

    def try_it():
        start.wait()
        try:
            won.append(listen(path, mode=0o600, backlog=16))
        except AddressInUse as error:
            lost.append(error)

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert (len(won), len(lost)) == (1, 7)
    connect(path, Deadline(TIMEOUT)).close()
    won[0].stop_listening()
    won[0].close()


def test_a_full_backlog_is_busy_until_a_connection_is_accepted(path):
    listening = listen(path, mode=0o600, backlog=1)
    clients = connect_until_busy(path)
    with pytest.raises(ServerBusy):
        connect(path, Deadline(0.05))
    later = []
    thread = threading.Thread(target=lambda: later.append(connect(path, Deadline(TIMEOUT))))
    thread.start()
    servers = [accepted(listening) for _ in clients]
    thread.join(TIMEOUT)
    assert len(later) == 1
    for stream in (*clients, *later, *servers):
        stream.close()
    listening.stop_listening()
    listening.close()


def test_a_withdrawn_listener_accepts_only_earlier_connections(path, listener):
    waiting = [connect_nowait(path) for _ in range(4)]
    write_all(waiting[3], b"hello")
    listener.stop_listening()
    with pytest.raises(SipcError):
        connect(path, Deadline(0.05))
    streams = [listener.accept() for _ in waiting]
    with pytest.raises(BlockingIOError):
        listener.accept()
    buffer = bytearray(10)
    assert streams[3].read(buffer, Deadline(TIMEOUT)) == 5
    for stream in (*waiting, *streams):
        stream.close()


def test_a_path_can_be_taken_again(path):
    for _ in range(3):
        listening = listen(path, mode=0o600, backlog=16)
        client = connect(path, Deadline(TIMEOUT))
        accepted(listening).close()
        client.close()
        listening.stop_listening()
        listening.close()


def test_the_poller_reports_a_connection_until_it_is_accepted(path, listener, poller):
    poller.register(listener.fileno(), READ)
    assert poller.wait(0) == []
    with pytest.raises(BlockingIOError):
        listener.accept()
    client = connect_nowait(path)
    assert reported(poller) == {listener.fileno(): READ}
    assert dict(poller.wait(0)) == {listener.fileno(): READ}  # until it is accepted
    listener.accept().close()
    assert poller.wait(0) == []
    client.close()


def test_each_end_knows_the_process_of_the_other(pair):
    assert [stream.peer().pid for stream in pair] == [os.getpid()] * 2


# bytes


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


def test_bytes_go_both_ways_at_once(pair):
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


def test_a_read_into_a_small_buffer_takes_what_fits(pair):
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


def test_the_poller_reports_room_once_the_peer_has_read(pair, poller):
    client, server = pair
    total = fill(client)
    poller.register(client.fileno(), WRITE)
    assert poller.wait(0) == []
    buffer, seen = bytearray(1 << 18), 0
    while seen < total:
        seen += server.read(buffer, Deadline(TIMEOUT))
    assert reported(poller) == {client.fileno(): WRITE}
    assert client.write_nowait([b"x" * 100_000]) > 0


def test_bytes_that_had_no_room_are_neither_lost_nor_doubled(pair):
    """After a write without room the same bytes are written again, and each arrives once."""
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


# hanging up


def test_the_poller_reports_a_hang_up_unasked(pair, poller):
    client, server = pair
    poller.register(server.fileno(), 0)
    assert poller.wait(0) == []
    client.close()
    assert reported(poller) == {server.fileno(): HANGUP}
    assert server.peek_nowait() is False
    assert server.read_nowait(bytearray(10)) == 0
    with pytest.raises(PeerClosed):
        write_all(server, b"x" * 1000)


def test_a_hang_up_ends_the_wait_for_room(pair):
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


@pytest.mark.parametrize("what", ["read", "write"])
def test_a_shutdown_wakes_a_waiting_call_at_the_same_end(pair, what):
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


def test_a_shutdown_is_the_end_of_stream_at_the_peer(pair):
    client, server = pair
    write_all(client, b"last")
    client.shutdown()
    client.shutdown()
    assert read_all(server) == b"last"


# waiting


def test_a_bell_is_readable_until_it_is_reset(poller):
    wakeup = new_wakeup_event()
    poller.register(wakeup.fileno(), READ)
    assert poller.wait(0) == []
    wakeup.set()
    wakeup.set()
    assert reported(poller) == {wakeup.fileno(): READ}
    assert dict(poller.wait(0)) == {wakeup.fileno(): READ}
    wakeup.clear()
    assert poller.wait(0) == []
    wakeup.clear()
    poller.unregister(wakeup.fileno())
    wakeup.close()


def test_a_wakeup_event_wakes_another_thread(poller):
    wakeup = new_wakeup_event()
    poller.register(wakeup.fileno(), READ)
    for _ in range(200):
        thread = threading.Thread(target=wakeup.set)
        thread.start()
        assert reported(poller) == {wakeup.fileno(): READ}
        wakeup.clear()
        thread.join(TIMEOUT)
    poller.unregister(wakeup.fileno())
    wakeup.close()


def test_a_wakeup_event_wakes_all_pollers_until_it_is_cleared():
    wakeup = new_wakeup_event()
    pollers = [new_poller() for _ in range(5)]
    for poller in pollers:
        poller.register(wakeup.fileno(), READ)
        assert poller.wait(0) == []
    assert not wakeup.is_set()
    wakeup.set()
    wakeup.set()
    assert wakeup.is_set()
    for poller in pollers * 2:
        assert reported(poller) == {wakeup.fileno(): READ}
    wakeup.clear()
    assert not wakeup.is_set()
    for poller in pollers:
        assert poller.wait(0) == []
        poller.close()
    wakeup.close()


def test_dispatch_calls_the_callback_of_what_is_ready(poller):
    wakeups, calls = [new_wakeup_event() for _ in range(3)], []
    for number, wakeup in enumerate(wakeups):
        poller.register(
            wakeup.fileno(), READ, lambda events, number=number: calls.append((number, events))
        )
    poller.dispatch(0)
    assert calls == []
    wakeups[1].set()
    poller.dispatch(TIMEOUT)
    assert calls == [(1, READ)]
    poller.register(wakeups[1].fileno(), 0)
    poller.dispatch(0)
    poller.register(wakeups[1].fileno(), READ)  # with the callback as before
    poller.dispatch(TIMEOUT)
    assert calls == [(1, READ)] * 2
    for wakeup in wakeups:
        poller.unregister(wakeup.fileno())
        wakeup.close()


def test_dispatch_calls_no_callback_of_what_another_has_unregistered_or_replaced(poller):
    """The first to be called takes the other away; a new one may have the same number."""
    wakeups, calls = [new_wakeup_event() for _ in range(2)], []

    def replace(number):
        calls.append(number)
        other = wakeups[1 - number].fileno()
        poller.unregister(other)
        poller.register(other, READ, lambda events: calls.append("new"))

    for number, wakeup in enumerate(wakeups):
        poller.register(wakeup.fileno(), READ, lambda events, number=number: replace(number))
        wakeup.set()
    poller.dispatch(TIMEOUT)
    assert len(calls) == 1
    for wakeup in wakeups:
        poller.unregister(wakeup.fileno())
        wakeup.close()


def test_only_the_end_of_the_other_is_a_hang_up(pair):
    client, server = pair
    assert not is_hung_up(server.fileno())
    write_all(client, b"data")
    assert not is_hung_up(server.fileno())
    assert server.read(bytearray(4), Deadline(TIMEOUT)) == 4  # else Windows does not report it
    client.close()
    wait_until(lambda: is_hung_up(server.fileno()), "the hang-up to be seen")


def test_a_forgotten_descriptor_is_not_reported(poller):
    wakeup = new_wakeup_event()
    poller.register(wakeup.fileno(), READ)
    wakeup.set()
    assert reported(poller)
    poller.register(wakeup.fileno(), 0)
    assert poller.wait(0) == []
    poller.register(wakeup.fileno(), READ)
    assert reported(poller)
    poller.unregister(wakeup.fileno())
    poller.unregister(wakeup.fileno())
    assert poller.wait(0) == []
    wakeup.close()


def test_a_poller_watches_hundreds_of_streams(path):
    listening = listen(path, mode=0o600, backlog=16)
    poller = new_scalable_poller()
    pairs = {}
    for _ in range(100):
        client = connect(path, Deadline(TIMEOUT))
        server = accepted(listening)
        pairs[server.fileno()] = client, server
        poller.register(server.fileno(), READ)
    assert poller.wait(0) == []
    for number, (client, server) in pairs.items():
        write_all(client, b"x")
        assert reported(poller) == {number: READ}
        assert server.read_nowait(bytearray(10)) == 1
    for number, (client, server) in pairs.items():
        server.close()
        poller.discard(number)
        client.close()
    assert poller.wait(0) == []
    poller.close()
    listening.stop_listening()
    listening.close()
