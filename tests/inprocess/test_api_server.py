"""A Server of the API with slow callbacks, limits and logs, on Linux and Windows."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

import pytest
from helpers.callbacks import KINDS, Gate, answering, reverse
from helpers.inprocess_fixtures import client, kind, logged, path  # noqa: F401 - fixtures
from helpers.inprocess_server import (
    TIMEOUT,
    ask,
    payload_of,
    raw_clients,
    raw_response_to,
    read_all,
    run_concurrently,
    wait_until,
    write_all,
)
from helpers.wire import message

from simpleipc_cli.api.server import Server
from simpleipc_cli.errors import EndpointError, IncompleteMessage

MUCH = bytes(range(256)) * 20_000


def asked(path, number, request=b"one"):
    """Start clients; return the thread, and the list that gets their answers."""
    answers = []
    thread = threading.Thread(
        target=lambda: answers.extend(run_concurrently(number, lambda: ask(path, request)))
    )
    thread.start()
    return thread, answers


# slow callbacks


def test_no_more_callbacks_than_allowed_run_at_once(path, kind):
    gate = Gate()
    with answering(path, gate.as_kind(kind), max_concurrency=2):
        thread, answers = asked(path, 6)
        gate.wait_until_begun(2)
        assert not gate.begun.acquire(blocking=False)
        gate.open()
        thread.join(TIMEOUT)
        assert answers == [b"eno"] * 6


@pytest.mark.parametrize("sleeping", [1, 7])
def test_callbacks_that_wait_delay_no_other(path, kind, sleeping):
    """They end only after others were answered."""
    gate = Gate()
    waiting = gate.as_kind(kind)

    def answer(request):
        return waiting(request) if request == b"one" else request[::-1]

    def answer_stream(request, reply):
        first = request.read(3)
        if first == b"one":
            gate.pass_through()
        reply.write((first + request.read())[::-1])

    async def answer_later(request):
        return await waiting(request) if request == b"one" else request[::-1]

    async def answer_stream_later(request, reply):
        if (whole := await request.read()) == b"one":
            await reply.write(await gate.as_kind("async-bytes")(whole))
        else:
            await reply.write(whole[::-1])

    kinds = (answer, answer_stream, answer_later, answer_stream_later)
    with answering(path, dict(zip(KINDS, kinds, strict=True))[kind]):
        thread, answers = asked(path, sleeping)
        gate.wait_until_begun(sleeping)
        for number in range(20):
            assert ask(path, b"%d!" % number) == (b"%d!" % number)[::-1]
        gate.open()
        thread.join(TIMEOUT)
        assert answers == [b"eno"] * sleeping


def test_eight_callbacks_wait_for_each_other(path, kind):
    together = threading.Barrier(8)

    class Meeting(Gate):
        def pass_through(self):
            together.wait(TIMEOUT)

    with answering(path, Meeting().as_kind(kind)):
        for _ in range(3):
            assert run_concurrently(8, lambda: ask(path, b"one")) == [b"eno"] * 8


def test_a_callback_may_call_its_own_server(path):
    def answer(request):
        return request if len(request) == 1 else ask(path, request[1:]) + request[:1]

    async def answer_later(request):
        return answer(request) if len(request) == 1 else await asyncio_ask(request)

    async def asyncio_ask(request):
        return await asyncio.to_thread(ask, path, request[1:]) + request[:1]

    for callback in (answer, answer_later):
        with answering(path, callback):
            assert ask(path, b"abcd") == b"dcba"


def test_callbacks_that_compute_delay_no_other(path):
    stop, begun = threading.Event(), threading.Semaphore(0)

    def answer(request):
        if request == b"compute":
            begun.release()
            while not stop.is_set():
                sum(range(1000))
        return request[::-1]

    with answering(path, answer):
        thread, answers = asked(path, 3, b"compute")
        for _ in range(3):
            assert begun.acquire(timeout=TIMEOUT)
        assert ask(path, b"other") == b"rehto"
        stop.set()
        thread.join(TIMEOUT)
        assert answers == [b"etupmoc"] * 3


# limits


def test_a_callback_that_is_timed_out_occupies_a_thread_until_it_returns(path, kind, logged):
    gate = Gate()
    callback = gate.as_kind(kind)
    with answering(path, callback, max_concurrency=1, timeout=0.2):
        with pytest.raises(IncompleteMessage):
            ask(path, b"one")
        logged.wait_for("handler_timeout")
        gate.wait_until_begun()
        if kind in ("bytes", "stream"):
            with raw_clients(path) as connect_one:
                stream = connect_one(message(b"two"))  # it waits
                assert not gate.begun.acquire(blocking=False)
                gate.open()
                gate.wait_until_ended()
                assert read_all(stream) == message(b"owt")
        gate.open()
        wait_until(lambda: _is_answered(path), "the thread to be free")


def _is_answered(path):
    try:
        return ask(path, b"x") == b"x"
    except IncompleteMessage:
        return False


def test_a_request_larger_than_the_maximum_is_refused(path, kind, logged):
    with answering(path, KINDS[kind], max_request=100_000):
        assert ask(path, b"x" * 100_000) == b"x" * 100_000
        with pytest.raises(IncompleteMessage):
            ask(path, b"x" * 100_001)
        logged.wait_for("answered", "too_large")


@pytest.mark.parametrize("begun", [b"0", b"0009hel", b"0009hello"])
def test_a_client_that_stops_in_mid_request_is_disconnected(path, kind, client, begun, logged):
    with answering(path, KINDS[kind], read_timeout=0.2):
        assert payload_of(read_all(client(begun))) is None
        logged.wait_for("read_timeout")


def test_a_client_that_does_not_read_is_disconnected(path, client, logged):
    def write(request, reply):
        while True:
            reply.write(MUCH)

    async def write_later(request, reply):
        while True:
            await reply.write(MUCH)

    for callback in (lambda _request: 40 * MUCH, write, write_later):
        with answering(path, callback, write_timeout=0.2):
            client(message(b"x"))
            wait_until(
                lambda: sum("no data moved" in text for text in logged.messages()) == 1, "it"
            )
        logged._caplog.clear()


def test_idle_connections_do_not_delay_other_requests(path, kind, client):
    with answering(path, KINDS[kind], max_concurrency=1):
        silent = [client() for _ in range(20)]
        assert ask(path) == b"gnip"
        for stream in silent:
            write_all(stream, message(b"late"))
        assert [read_all(stream) for stream in silent] == [message(b"etal")] * 20


def test_a_server_stops_after_its_last_request(path, kind):
    server = Server(path, KINDS[kind], max_requests=3)
    server.start()
    for _ in range(3):
        assert ask(path) == b"gnip"
    assert server.wait(TIMEOUT)
    with pytest.raises(EndpointError):
        ask(path)


def test_a_server_stops_when_it_was_idle(path):
    server = Server(path, reverse, idle_timeout=0.1)
    server.start()
    assert server.wait(TIMEOUT)


# the process


def test_nothing_of_the_process_is_changed_or_left(path, kind):
    def state():
        umask = os.umask(0)
        os.umask(umask)
        return umask, os.getcwd(), dict(os.environ), set(threading.enumerate())

    with answering(path, KINDS[kind]):
        ask(path)  # what the first use loads may stay
    before = state()
    gate = Gate()
    with Server(path, gate.as_kind(kind)):
        thread, _ = asked(path, 3)
        gate.wait_until_begun(3)
        assert state()[:3] == before[:3]
        gate.open()
        thread.join(TIMEOUT)
    assert state()[:3] == before[:3]
    wait_until(lambda: state()[3] <= before[3], "all its threads to end")


def test_an_exception_in_the_with_ends_the_server(path):
    with pytest.raises(ZeroDivisionError), Server(path, reverse) as server:
        raise ZeroDivisionError
    assert server.wait(0)


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_handler_of_logging_that_fails_ends_nothing(path, error):
    class Failing(logging.Handler):
        def emit(self, record):
            raise error

    logger, handler = logging.getLogger("simpleipc_cli"), Failing()
    logger.addHandler(handler)
    try:
        with answering(path, lambda request: 1 / len(request)):
            for request in (b"", b"x"):
                assert raw_response_to(path, message(request)) == b""
    finally:
        logger.removeHandler(handler)


LIMITS = ("max_concurrency", "max_request", "max_requests", "idle_timeout")
TIMEOUTS = ("timeout", "read_timeout", "write_timeout")


@pytest.mark.parametrize("name", [*LIMITS, *TIMEOUTS])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_that_allows_nothing_is_an_error(path, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be above 0; None is no limit"):
        Server(path, reverse, **{name: value})


def test_a_drain_need_not_wait_but_takes_no_negative_time(path):
    Server(path, reverse, drain_timeout=0)
    with pytest.raises(ValueError, match=r"^drain_timeout must not be negative"):
        Server(path, reverse, drain_timeout=-1)


def test_a_failure_is_logged_with_its_traceback(path, caplog, logged):
    with answering(path, lambda request: {}[request]):
        assert raw_response_to(path, message(b"x")) == b""
        logged.wait_for("handler_failed")
    assert "Traceback (most recent call last)" in caplog.text
    assert "KeyError: b'x'" in caplog.text
    (record,) = [record for record in logged.records if hasattr(record, "outcome")]
    assert record.levelno == logging.ERROR
    assert record.request_id in record.getMessage()


def test_a_log_may_be_off(path, caplog):
    logging.getLogger("simpleipc_cli").setLevel(logging.CRITICAL)
    try:
        with answering(path, lambda request: {}[request]):
            assert raw_response_to(path, message(b"x")) == b""
    finally:
        logging.getLogger("simpleipc_cli").setLevel(logging.NOTSET)
    assert caplog.text == ""
