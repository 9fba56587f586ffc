"""Pollers and wakeup events, on Linux and Windows."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, closing

import pytest
from helpers.inprocess_fixtures import path  # noqa: F401 - fixtures
from helpers.streams import accepted, connected, fill, listening, reported, write_all
from helpers.waiting import TIMEOUT

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.transport import (
    HANGUP,
    READ,
    WRITE,
    connect,
    connect_nowait,
    new_poller,
    new_scalable_poller,
    new_wakeup_event,
)


@pytest.fixture
def listener(path):
    with listening(path) as listener:
        yield listener


@pytest.fixture
def new_wakeup():
    """A function that makes a wakeup event; all are closed."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(new_wakeup_event()))


@pytest.fixture(params=["few", "many", *(["kqueue"] if os.name == "posix" else [])])
def poller(request, monkeypatch):
    """Each poller; the one for macOS and the BSDs on a scripted kqueue."""
    if request.param == "kqueue":
        from helpers import scripted_kqueue  # noqa: PLC0415 - not on Windows

        if not scripted_kqueue.IS_AVAILABLE:
            pytest.skip("Linux is masked")
        made = scripted_kqueue.install(monkeypatch).KqueuePoller()
    else:
        made = {"few": new_poller, "many": new_scalable_poller}[request.param]()
    yield made
    made.close()


@pytest.fixture
def pair(path):
    """Client and server of one connection."""
    with connected(path) as streams:
        yield streams


def test_the_poller_reports_a_connection_until_it_is_accepted(path, listener, poller):
    poller.register(listener.fileno(), READ)
    assert poller.wait(0) == []
    with pytest.raises(BlockingIOError):
        listener.accept()
    with closing(connect_nowait(path)):
        assert reported(poller) == {listener.fileno(): READ}
        assert dict(poller.wait(0)) == {listener.fileno(): READ}  # until it is accepted
        listener.accept().close()
        assert poller.wait(0) == []


def test_the_poller_reports_a_stream_as_writable_once_the_peer_has_read(pair, poller):
    client, server = pair
    total = fill(client)
    poller.register(client.fileno(), WRITE)
    assert poller.wait(0) == []
    buffer, seen = bytearray(1 << 18), 0
    while seen < total:
        seen += server.read(buffer, Deadline(TIMEOUT))
    assert reported(poller) == {client.fileno(): WRITE}
    assert client.write_nowait([b"x" * 100_000]) > 0


def test_the_poller_reports_a_closed_peer_without_being_asked_to(pair, poller):
    client, server = pair
    poller.register(server.fileno(), 0)
    assert poller.wait(0) == []
    client.close()
    assert reported(poller) == {server.fileno(): HANGUP}
    assert server.peek_nowait() is False
    assert server.read_nowait(bytearray(10)) == 0
    with pytest.raises(PeerClosed):
        write_all(server, b"x" * 1000)


def test_a_wakeup_event_is_readable_until_it_is_cleared(new_wakeup, poller):
    wakeup = new_wakeup()
    poller.register(wakeup.fileno(), READ)
    assert poller.wait(0) == []
    wakeup.set()
    wakeup.set()
    assert reported(poller) == {wakeup.fileno(): READ}
    assert dict(poller.wait(0)) == {wakeup.fileno(): READ}
    wakeup.clear()
    assert poller.wait(0) == []
    wakeup.clear()


def test_a_wakeup_event_wakes_another_thread(new_wakeup, poller):
    wakeup = new_wakeup()
    poller.register(wakeup.fileno(), READ)
    for _ in range(200):
        thread = threading.Thread(target=wakeup.set)
        thread.start()
        assert reported(poller) == {wakeup.fileno(): READ}
        wakeup.clear()
        thread.join(TIMEOUT)


def test_a_wakeup_event_wakes_all_pollers_until_it_is_cleared(new_wakeup):
    wakeup = new_wakeup()
    with ExitStack() as stack:
        pollers = [stack.enter_context(closing(new_poller())) for _ in range(5)]
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


def test_dispatch_calls_the_callback_of_each_ready_descriptor(new_wakeup, poller):
    wakeups, calls = [new_wakeup() for _ in range(3)], []
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


def test_dispatch_calls_no_callback_that_an_earlier_callback_has_unregistered_or_replaced(
    new_wakeup, poller
):
    """The first callback unregisters the other; a new descriptor may have its number."""
    wakeups, calls = [new_wakeup() for _ in range(2)], []

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


def test_an_unregistered_descriptor_is_not_reported(new_wakeup, poller):
    wakeup = new_wakeup()
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


def test_a_poller_watches_hundreds_of_streams(path, listener):
    with closing(new_scalable_poller()) as poller, ExitStack() as stack:
        pairs = {}
        for _ in range(100):
            client = stack.enter_context(closing(connect(path, Deadline(TIMEOUT))))
            server = stack.enter_context(closing(accepted(listener)))
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
