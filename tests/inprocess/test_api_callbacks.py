"""Callbacks of all kinds that answer the requests of a Server, on Linux and Windows."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest
from helpers.callbacks import KINDS, Gate, Outcomes, answering
from helpers.inprocess_server import (
    TIMEOUT,
    ask,
    payload_of,
    raw_clients,
    raw_response_to,
    read_all,
    read_some,
    run_concurrently,
    write_all,
)
from helpers.wire import message

from simpleipc_cli.api.server import Server
from simpleipc_cli.errors import IncompleteMessage, PeerClosed, SipcError

MUCH = bytes(range(256)) * 20_000
HUGE = bytes(range(256)) * (100 << 12)  # 100 MiB


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "demo.sock")


@pytest.fixture
def client(path):
    with raw_clients(path) as connect_one:
        yield connect_one


@pytest.fixture
def logged(caplog):
    return Outcomes(caplog)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# answers


@pytest.mark.parametrize("request_", [b"ping", b"", MUCH], ids=["small", "empty", "large"])
def test_a_request_is_answered(path, kind, request_, logged):
    with answering(path, KINDS[kind]):
        assert ask(path, request_) == request_[::-1]
        logged.wait_for("answered")


def test_requests_of_eight_clients_at_once_are_all_answered(path, kind):
    def client():
        return [ask(path, b"%d" % number) for number in range(25)]

    with answering(path, KINDS[kind]):
        expected = [b"%d" % number for number in range(25)]
        assert run_concurrently(8, client) == [[each[::-1] for each in expected]] * 8


def test_a_client_that_writes_one_byte_at_a_time_is_answered(path, kind, client):
    with answering(path, KINDS[kind]):
        stream = client()
        for byte in message(b"slowly"):
            write_all(stream, bytes([byte]))
        assert read_all(stream) == message(b"ylwols")


def test_a_client_that_writes_all_before_reading_is_answered(path, kind, client):
    with answering(path, KINDS[kind]):
        assert payload_of(read_all(client(message(MUCH)))) == MUCH[::-1]


@pytest.mark.soak
def test_a_client_that_writes_100_mb_before_reading_is_answered(path, kind, client):
    with answering(path, KINDS[kind]):
        assert payload_of(read_all(client(message(HUGE)))) == HUGE[::-1]


def test_bytes_after_the_flush_are_dropped(path, kind):
    with answering(path, KINDS[kind]):
        assert raw_response_to(path, message(b"ab") + message(b"cd")) == message(b"ba")


@pytest.mark.parametrize(
    "response", [bytearray(b"abc"), memoryview(b"a.b.c")[::2]], ids=["array", "view"]
)
def test_a_response_may_be_any_object_like_bytes(path, response):
    async def later(_request):
        return response

    for callback in (lambda _request: response, later):
        with answering(path, callback):
            assert ask(path) == b"abc"


def test_requests_and_responses_are_streamed(path, client):
    def echo(request, reply):
        for piece in request:
            reply.write(piece)

    async def echo_later(request, reply):
        async for piece in request:
            await reply.write(piece)

    for callback in (echo, echo_later):
        with answering(path, callback):
            stream = client(b"0005a")
            assert read_some(stream) == b"0005a"
            write_all(stream, b"0005b")
            assert read_some(stream) == b"0005b"
            write_all(stream, b"0000")
            assert read_all(stream) == b"0000"


def test_a_callback_reads_as_many_bytes_as_it_wants(path):
    def answer(request, reply):
        reply.write(b"-".join([request.read(2), request.read(0), request.read(), request.read(5)]))

    async def answer_later(request, reply):
        await reply.write(b"-".join([await request.read(2), await request.read()]))

    with answering(path, answer):
        assert ask(path, b"abcde") == b"ab--cde-"
    with answering(path, answer_later):
        assert ask(path, b"abcde") == b"ab-cde"


def test_a_callback_may_answer_before_it_reads(path):
    def answer(request, reply):
        reply.write(MUCH)
        reply.write(request.read())

    async def answer_later(request, reply):
        await reply.write(MUCH)
        await reply.write(await request.read())

    for callback in (answer, answer_later):
        with answering(path, callback):
            assert ask(path, MUCH) == MUCH + MUCH


def test_a_callback_need_not_read(path, client, logged):
    async def answer_later(_request, reply):
        await reply.write(b"no")

    for callback in (lambda _request, reply: reply.write(b"no"), answer_later):
        with answering(path, callback):
            assert payload_of(read_all(client(message(MUCH)))) == b"no"
    logged.wait_for("answered", "answered")


def test_a_callback_knows_its_request_and_peer(path):
    seen = []

    def answer(request, reply):
        seen.append((request.id, request.peer))

    async def answer_later(request, reply):
        seen.append((request.id, request.peer))

    for callback in (answer, answer_later):
        with answering(path, callback):
            ask(path)
            ask(path)
        assert len(dict(seen)) == 2
        assert all(peer.pid > 0 for _, peer in seen)
        seen.clear()


class Methods:
    """Callbacks that are no plain functions."""

    def answer(self, request):
        return request[::-1]

    async def answer_later(self, request):
        return request[::-1]

    def __call__(self, request):
        return request[::-1]


class LaterObject:
    async def __call__(self, request, reply):
        await KINDS["async-stream"](request, reply)


def with_prefix(prefix, request):
    return prefix + request


async def with_prefix_later(prefix, request):
    return prefix + request


async def write_prefix_later(prefix, request, reply):
    await reply.write(prefix + await request.read())


def run_to_its_end(coroutine_function):
    @functools.wraps(coroutine_function)
    def run(request):
        return asyncio.run(coroutine_function(request))

    return run


CALLABLES = {
    "method": Methods().answer,
    "coroutine-method": Methods().answer_later,
    "object": Methods(),
    "coroutine-object": LaterObject(),
    "default": lambda request, _option=None: request[::-1],
    "arguments": lambda *arguments: arguments[0][::-1],
    "wrapper": run_to_its_end(KINDS["async-bytes"]),
    "partial": functools.partial(with_prefix, b""),
    "partial-coroutine": functools.partial(with_prefix_later, b""),
    "partial-coroutine-stream": functools.partial(write_prefix_later, b""),
}


@pytest.mark.parametrize("callback", CALLABLES.values(), ids=CALLABLES)
def test_any_object_that_can_be_called_may_answer(path, callback):
    with answering(path, callback):
        assert ask(path, b"deed") == b"deed"


@pytest.mark.parametrize(
    "callback",
    [lambda: b"", lambda a, b, c: b"", lambda *, request: request, 7, None],
    ids=["none", "three", "by keyword", "a number", "nothing"],
)
def test_a_callback_with_the_wrong_parameters_is_refused(path, callback):
    with pytest.raises(SipcError, match="callback") as caught:
        Server(path, callback)
    assert "f(request: bytes) -> bytes" in caught.value.hint


# what fails


class Broken(Exception):
    """What a callback raises."""


class BrokenText(Exception):
    """An exception that has no text."""

    def __str__(self):
        raise Broken


FAILURES = (Broken, SystemExit, KeyboardInterrupt, asyncio.CancelledError, BrokenText)


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
