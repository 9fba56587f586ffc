"""Callbacks of all kinds that answer the requests of a Server, on Linux and Windows."""

from __future__ import annotations

import asyncio
import functools

import pytest
from helpers.callbacks import KINDS, answering
from helpers.inprocess_fixtures import client, kind, logged, path  # noqa: F401 - fixtures
from helpers.inprocess_server import (
    ask,
    payload_of,
    raw_response_to,
    read_all,
    read_some,
    run_concurrently,
    write_all,
)
from helpers.wire import message

from simpleipc_cli.api.server import Server
from simpleipc_cli.errors import SipcError

MUCH = bytes(range(256)) * 20_000
HUGE = bytes(range(256)) * (100 << 12)  # 100 MiB


# answers


@pytest.mark.parametrize("request_", [b"ping", b"", MUCH], ids=["small", "empty", "large"])
def test_a_request_is_answered(path, kind, request_, logged):
    with answering(path, KINDS[kind]):
        assert ask(path, request_) == request_[::-1]
        logged.wait_for("answered")


def test_requests_of_eight_clients_at_once_are_all_answered(path, kind):
    def client():
        return [ask(path, b"%d" % number) for number in range(6)]

    with answering(path, KINDS[kind]):
        expected = [b"%d" % number for number in range(6)]
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
