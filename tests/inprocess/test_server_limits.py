"""Limits and the end of a server, on Linux and Windows."""

from __future__ import annotations

import sys
import threading
from itertools import count

import pytest
from helpers.inprocess_fixtures import client, path  # noqa: F401 - fixtures
from helpers.inprocess_server import (
    PausedHandler,
    Stopped,
    ask,
    payload_of,
    raw_response_to,
    run_concurrently,
    serving,
)
from helpers.streams import read_all, write_all
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message

from simpleipc_cli.client import probe
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import AddressInUse, IncompleteMessage, PathNotFound
from simpleipc_cli.server import dispatcher
from simpleipc_cli.server.server import ExitReason, Server
from simpleipc_cli.transport import connect_nowait, listen

MUCH = bytes(range(256)) * 20_000


# limits


def test_no_more_requests_than_threads_are_answered_at_once(path):
    lock, counts, now = threading.Lock(), [], [0]
    full, gate = threading.Semaphore(0), threading.Event()

    def act(context):
        with lock:
            now[0] += 1
            counts.append(now[0])
        full.release()
        context.wait_for(gate)
        with lock:
            now[0] -= 1
        context.write(b"done")

    with serving(path, act, max_concurrency=2) as server:
        answers = []
        clients = threading.Thread(
            target=lambda: answers.extend(run_concurrently(6, lambda: ask(path)))
        )
        clients.start()
        for _ in range(2):
            assert full.acquire(timeout=TIMEOUT)
        server.wait_until_waiting(4)
        gate.set()
        clients.join(TIMEOUT)
        assert answers == [b"done"] * 6
    assert max(counts) == 2


def test_idle_connections_do_not_delay_other_requests(path, client):
    with serving(path, max_concurrency=1) as server:
        silent = [client() for _ in range(20)]
        assert ask(path) == b"ping"
        assert server.counted()["idle"] == 20
        for stream in silent:
            write_all(stream, message(b"late"))
        assert [read_all(stream) for stream in silent] == [message(b"late")] * 20


def test_a_request_larger_than_the_maximum_is_refused(path):
    with serving(path, max_request=100_000) as server:
        assert ask(path, b"x" * 100_000) == b"x" * 100_000
        assert server.log.outcomes(1) == ["answered"]
        with pytest.raises(IncompleteMessage):
            ask(path, b"x" * 100_001)
        assert server.log.outcomes(2) == ["answered", "too_large"]


@pytest.mark.parametrize("begun", [b"0", b"0009hel", b"0009hello"])
def test_a_client_that_stops_within_a_request_is_disconnected(path, client, begun):
    with serving(path, read_timeout=0.2) as server:
        stream = client(begun)
        assert payload_of(read_all(stream)) is None
        assert server.log.outcomes(1) == ["read_timeout"]


def test_a_client_that_does_not_read_is_disconnected(path, client):
    def act(context):
        while True:
            context.write(MUCH)

    with serving(path, act, write_timeout=0.2) as server:
        client(message(b"x"))
        assert server.log.outcomes(1) == ["write_timeout"]


def test_a_handler_is_ended_after_its_timeout(path):
    with serving(path, lambda context: context.wait_for_the_end(), handler_timeout=0.2) as server:
        with pytest.raises(IncompleteMessage):
            ask(path)
        assert server.log.outcomes(1) == ["handler_timeout"]


# clients that close


@pytest.mark.parametrize("sent", [b"0005x", b"0005x0000"], ids=["in mid-request", "after it"])
def test_a_client_that_closes_ends_its_handler(path, client, sent):
    begun, ended = threading.Event(), threading.Event()

    def act(context):
        begun.set()
        try:
            context.wait_for_the_end()
        except Stopped:
            ended.set()
            raise

    with serving(path, act) as server:
        stream = client(sent)
        assert begun.wait(TIMEOUT)
        stream.close()
        assert ended.wait(TIMEOUT)
        assert server.log.outcomes(1) == [
            "client_closed" if sent.endswith(b"0000") else "request_incomplete"
        ]


def test_a_handler_may_finish_after_its_client_has_closed(path, client):
    gate, done = PausedHandler(), threading.Event()

    def act(context):
        gate.act(context)
        done.set()

    with serving(path, act, finish_on_hangup=True) as server:
        stream = client(message(b"x"))
        gate.wait_until_begun()
        stream.close()
        gate.open()
        assert done.wait(TIMEOUT)
        assert server.log.outcomes(1) == ["client_closed"]


def test_a_request_that_finds_no_memory_ends_and_no_other_request_ends(path, monkeypatch):
    def fail():
        raise MemoryError

    with serving(path) as server:
        with monkeypatch.context() as patch:
            patch.setattr(dispatcher, "IoBuffers", fail)
            assert raw_response_to(path, message(b"x")) == b""
            assert server.log.outcomes(1) == ["internal_error"]
        assert server.log.records[0].detail == "out of memory"
        assert ask(path) == b"ping"


def test_a_thread_that_finds_no_memory_is_started_later(path, client, monkeypatch):
    def fail(_thread):
        raise MemoryError("no memory for a thread")

    with serving(path, whole_request=True) as server:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            stream = client(message(b"x"))
            server.log.wait_until(lambda: server.log.lines, "a warning")
        assert server.log.lines[0].startswith("no memory for a thread: raise the limits of")
        assert payload_of(read_all(stream)) == b"x"


# the end


def test_the_server_stops_after_a_call_of_stop(path):
    with serving(path) as server:
        assert ask(path) == b"ping"
        server.stop()
        assert server.end() is ExitReason.COMPLETED
        with pytest.raises(PathNotFound):
            connect_nowait(path)


def test_the_server_stops_after_a_number_of_requests(path):
    with serving(path, max_requests=3) as server:
        assert [ask(path) for _ in range(3)] == [b"ping"] * 3
        assert server.end() is ExitReason.COMPLETED


def test_the_server_stops_after_a_quit_request(path):
    with serving(path, quit_on=b"quit") as server:
        for other in (b"qui", b"quits", b"QUIT"):
            assert ask(path, other) == other
        assert ask(path, b"quit") == b""
        assert server.end() is ExitReason.COMPLETED


def test_the_server_stops_after_an_idle_timeout(path):
    with serving(path, idle_timeout=0.2) as server:
        assert server.end() is ExitReason.COMPLETED


def test_a_path_can_be_served_again(path):
    for number in range(3):
        with serving(path) as server:
            assert ask(path, b"%d" % number) == b"%d" % number
            server.stop()
            assert server.end() is ExitReason.COMPLETED


def test_a_path_has_at_most_one_server(path):
    with serving(path):
        with pytest.raises(AddressInUse):
            listen(path, mode=0o600, backlog=1)
        assert ask(path) == b"ping"


def test_all_requests_are_answered_before_the_server_ends(path, client):
    gate = PausedHandler()
    with serving(path, gate.act, max_concurrency=1) as server:
        streams = [client(message(b"%d" % number)) for number in range(5)]
        gate.wait_until_begun()
        server.stop()
        gate.open()
        assert server.end() is ExitReason.COMPLETED
    assert [payload_of(read_all(stream)) for stream in streams] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_draining_server_accepts_no_connection(path, client):
    gate = PausedHandler()
    with serving(path, gate.act) as server:
        stream = client(message(b"x"))
        gate.wait_until_begun()
        server.stop()
        connect = Endpoint(path).connect
        wait_until(lambda: probe(connect, timeout=0).error, "connections to be refused")
        gate.open()
        assert payload_of(read_all(stream)) == b"x"
        assert server.end() is ExitReason.COMPLETED


def test_idle_connections_do_not_delay_the_end_of_the_server(path, client):
    with serving(path) as server:
        streams = [client(), client(b"0009he")]
        assert ask(path) == b"ping"
        server.stop()
        assert server.end() is ExitReason.COMPLETED
    assert read_all(streams[0]) == b""


def test_two_threads_that_stop_the_server_abort_its_exchanges(path, client):
    gate = PausedHandler()
    with serving(path, gate.act, drain_timeout=None) as server:
        client(message(b"x"))
        gate.wait_until_begun()
        threads = [threading.Thread(target=server.stop) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert server.end() is ExitReason.ABORTED


def stop_twice(server, point):
    """Stop the server twice, again before step `point` of the first stop; False without one."""
    steps = 0

    def trace(frame, event, _argument):
        nonlocal steps
        if frame.f_code is not Server.stop.__code__:
            return None
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        if steps == point and event == "opcode":
            server.stop()
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # else Python 3.12 to 3.15 report no opcode
    sys.settrace(trace)
    try:
        server.stop()
    finally:
        sys.settrace(before)
    return steps >= point


def test_a_second_stop_at_any_point_of_the_first_stop_aborts_the_exchanges(path):
    """Threads call stop(), and so does a signal handler, which may interrupt another call."""
    for point in count(1):
        with serving(path) as server:
            if not stop_twice(server, point):
                break
            assert server.must_abort, point
    assert point > 10


@pytest.mark.parametrize("how", ["a second stop", "out of time"])
def test_exchanges_are_aborted_by_a_second_stop_or_the_drain_timeout(path, client, how):
    begun = threading.Event()

    def act(context):
        begun.set()
        context.wait_for_the_end()

    with serving(path, act, drain_timeout=TIMEOUT if how == "a second stop" else 0.1) as server:
        stream = client(message(b"x"))
        assert begun.wait(TIMEOUT)
        server.stop()
        if how == "a second stop":
            server.stop()
        assert server.end() is ExitReason.ABORTED
        assert payload_of(read_all(stream)) is None
        assert server.log.outcomes(1) == ["aborted"]
