"""Callbacks that fail, and clients that hang up, on Linux and Windows."""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers.callbacks import KINDS, Gate, answering
from helpers.inprocess_fixtures import client, kind, logged, path  # noqa: F401 - fixtures
from helpers.inprocess_server import (
    TIMEOUT,
    ask,
    raw_response_to,
    read_all,
    write_all,
)
from helpers.wire import message

from simpleipc_cli.errors import IncompleteMessage, PeerClosed

MUCH = bytes(range(256)) * 20_000


class Broken(Exception):
    """What a callback raises."""


class BrokenText(Exception):
    """An exception that has no text."""

    def __str__(self):
        raise Broken


class ExitingText(Exception):
    """An exception whose text ends the interpreter."""

    def __str__(self):
        raise SystemExit


FAILURES = (ExitingText, Broken, SystemExit, KeyboardInterrupt, asyncio.CancelledError, BrokenText)


@pytest.mark.parametrize("error", FAILURES)
def test_a_callback_that_raises_gives_a_truncated_response(path, kind, error, logged):
    """Before it reads; the server answers the next request."""

    def fail(request):
        if error_now:
            raise error("why")
        return request

    def call(request):
        return fail(request)

    def call_stream(request, reply):
        fail(request)

    async def call_later(request):
        return fail(request)

    async def call_stream_later(request, reply):
        fail(request)

    callbacks = dict(zip(KINDS, (call, call_stream, call_later, call_stream_later), strict=True))
    with answering(path, callbacks[kind]):
        error_now = True
        assert raw_response_to(path, message(b"x")) == b""
        assert raw_response_to(path, message(MUCH)) == b""
        error_now = False
        assert ask(path, b"") == b""
        logged.wait_for("handler_failed", "handler_failed", "answered")
        assert [type(each) for each in logged.tracebacks()] == [error, error]


def test_a_callback_may_raise_in_mid_request(path, client, logged):
    def fail(request, reply):
        assert request.read(1) == b"a"
        raise Broken

    async def fail_later(request, reply):
        assert await request.read(1) == b"a"
        raise Broken

    for callback in (fail, fail_later):
        with answering(path, callback):
            stream = client(b"0005a")
            write_all(stream, message(MUCH))  # it is read to its end
            assert read_all(stream) == b""
    logged.wait_for("handler_failed", "handler_failed")


def test_a_callback_may_raise_after_half_a_response(path, logged):
    def fail(request, reply):
        reply.write(b"half")
        raise Broken

    async def fail_later(request, reply):
        await reply.write(b"half")
        raise Broken

    for callback in (fail, fail_later):
        with answering(path, callback):
            assert raw_response_to(path, message(MUCH)) == b"0008half"
            with pytest.raises(IncompleteMessage):
                ask(path)
    logged.wait_for(*["handler_failed"] * 4)


def released():
    with memoryview(b"abc") as view:
        return view


WRONG = {"nothing": lambda: None, "text": str, "list": lambda: [b"a"], "released": released}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_response_of_the_wrong_type_is_truncated(path, wrong, logged):
    async def later(_request):
        return WRONG[wrong]()

    for callback in (lambda _request: WRONG[wrong](), later):
        with answering(path, callback):
            assert raw_response_to(path, message(b"x")) == b""
            assert raw_response_to(path, message(b"x")) == b""
    logged.wait_for(*["handler_failed"] * 4)
    assert len(logged.tracebacks()) == 4


def test_a_callback_for_streams_must_return_nothing(path, logged):
    """What it returns may be a coroutine or a generator, which nobody runs."""

    def generate(request, reply):
        reply.write(b"never")
        yield

    for callback in (generate, lambda _request, _reply: b"text"):
        with answering(path, callback):
            assert raw_response_to(path, message(b"x")) == b""
    logged.wait_for("handler_failed", "handler_failed")


def test_writing_what_is_not_bytes_fails_only_the_request(path, logged):
    with answering(path, lambda request, reply: reply.write("text")):
        for _ in range(2):
            assert raw_response_to(path, message(b"x")) == b""
    logged.wait_for("handler_failed", "handler_failed")


def test_a_malformed_request_ends_only_its_connection(path, kind, logged):
    malformed = ["zzzz", "0001", "0002", "0003", "-004", " 00f", "fff1"]
    with answering(path, KINDS[kind]):
        for bytes_ in malformed:
            assert raw_response_to(path, bytes_.encode()) == b""
            assert raw_response_to(path, b"0005a" + bytes_.encode()) == b""
        assert ask(path) == b"gnip"
        logged.wait_for(*["malformed", "malformed"] * len(malformed), "answered")


# clients that hang up


def test_a_truncated_request_has_no_end_for_the_callback(path, kind, client, logged):
    truncated = ["0", "000", "0009hel", "0009hello", "0009hello00"]
    begun, ends = threading.Semaphore(0), []

    def call(request):
        ends.append(request)
        return b""

    def call_stream(request, reply):
        begun.release()
        ends.append(request.read())

    async def call_later(request):
        return call(request)

    async def call_stream_later(request, reply):
        begun.release()
        ends.append(await request.read())

    callbacks = dict(zip(KINDS, (call, call_stream, call_later, call_stream_later), strict=True))
    with answering(path, callbacks[kind]):
        for bytes_ in truncated:
            stream = client(bytes_.encode())
            if kind.endswith("stream") and len(bytes_) > 4:
                assert begun.acquire(timeout=TIMEOUT)
            stream.close()
        logged.wait_for(*["request_incomplete"] * len(truncated))
    assert ends == []
    assert logged.tracebacks() == []


def test_a_callback_learns_that_its_client_has_gone(path, client, logged):
    """By each way to read, and when it writes."""
    errors, begun, done = [], threading.Semaphore(0), threading.Semaphore(0)

    def learn(act):
        def call(request, reply):
            begun.release()
            try:
                act(request, reply)
            except Exception as error:
                errors.append(type(error))
                raise
            finally:
                done.release()

        return call

    def write_for_ever(request, reply):
        while True:
            reply.write(MUCH)

    for act, sent in (
        (lambda request, reply: request.read(), b"0005a"),
        (lambda request, reply: request.read(2), b"0005a"),
        (lambda request, reply: list(request), b"0005a"),
        (write_for_ever, message(b"a")),
    ):
        with answering(path, learn(act)):
            stream = client(sent)
            assert begun.acquire(timeout=TIMEOUT)
            stream.close()
            assert done.acquire(timeout=TIMEOUT)
    assert errors == [IncompleteMessage] * 3 + [PeerClosed]
    logged.wait_for(*["request_incomplete"] * 3, "client_closed")
    assert logged.tracebacks() == []


def test_a_coroutine_of_a_client_that_has_gone_is_cancelled(path, client, logged):
    begun, cancelled = threading.Semaphore(0), threading.Semaphore(0)

    async def wait_for_ever(_request):
        begun.release()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.release()
            raise

    async def wait_in_stream(request, reply):
        await wait_for_ever(await request.read())

    for callback in (wait_for_ever, wait_in_stream):
        with answering(path, callback):
            stream = client(message(b"x"))
            assert begun.acquire(timeout=TIMEOUT)
            stream.close()
            assert cancelled.acquire(timeout=TIMEOUT)
    logged.wait_for("client_closed", "client_closed")
    assert logged.tracebacks() == []


def test_a_client_that_hangs_up_during_a_call_leaves_the_thread_busy(path, kind, client, logged):
    """A callback of a function cannot be stopped: it counts until it returns."""
    gate = Gate()
    with answering(path, gate.as_kind(kind), max_concurrency=1):
        stream = client(message(b"one"))
        gate.wait_until_begun()
        stream.close()
        logged.wait_for("client_closed")
        gate.open()
        assert ask(path, b"two") == b"owt"
    assert logged.tracebacks() == []
