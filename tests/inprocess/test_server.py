"""Requests and responses of a server, on Linux and Windows."""

from __future__ import annotations

import pytest
from helpers.inprocess_fixtures import client, path  # noqa: F401 - fixtures
from helpers.inprocess_server import (
    EchoHandler,
    ask,
    echo,
    payload_of,
    raw_response_to,
    run_concurrently,
    serving,
)
from helpers.soak import soak
from helpers.streams import read_all, read_some, write_all
from helpers.waiting import TIMEOUT
from helpers.wire import message

from simpleipc_cli.client import probe
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import IncompleteMessage, SipcError
from simpleipc_cli.server.handler import Handler

MUCH = bytes(range(256)) * 20_000


# answers


@pytest.mark.parametrize("request_", [b"ping", b"", MUCH], ids=["small", "empty", "large"])
def test_a_request_is_answered(path, request_):
    with serving(path) as server:
        assert ask(path, request_) == request_
        assert server.log.outcomes(1) == ["answered"]
    assert server.log.records[0].bytes_in == len(request_)
    assert server.log.records[0].bytes_out == len(request_)


@pytest.mark.parametrize("requests", [25, soak(125)])
def test_all_requests_of_eight_simultaneous_clients_are_answered(path, requests):
    def client():
        return [ask(path, b"%d" % number) for number in range(requests)]

    with serving(path, handler=EchoHandler()) as server:
        answers = run_concurrently(8, client)
        assert answers == [[b"%d" % number for number in range(requests)]] * 8
        assert server.log.outcomes(8 * requests) == ["answered"] * 8 * requests
        assert server.counted()["answered"] == 8 * requests


def test_a_client_that_writes_all_before_reading_is_answered(path, client):
    with serving(path):
        assert payload_of(read_all(client(message(MUCH)))) == MUCH


def test_a_handler_may_answer_before_it_reads(path):
    def act(context):
        context.write(MUCH)
        context.write(context.read_all())

    with serving(path, act):
        assert ask(path, MUCH) == MUCH + MUCH


def test_a_handler_may_answer_without_reading_the_request(path):
    with serving(path, lambda context: context.write(b"no")) as server:
        assert ask(path, MUCH) == b"no"
        assert server.log.outcomes(1) == ["answered"]


def test_the_response_is_sent_as_the_handler_writes_it(path, client):
    """The handler also reads the request as the client writes it."""
    with serving(path):
        stream = client(b"0005a")
        assert read_some(stream) == b"0005a"
        write_all(stream, b"0005b")
        assert read_some(stream) == b"0005b"
        write_all(stream, b"0000")
        assert read_all(stream) == b"0000"


def test_a_handler_may_start_when_the_request_is_complete(path, client):
    begun = []

    def act(context):
        begun.append(context.request.id)
        echo(context)

    with serving(path, act, whole_request=True, read_timeout=0.2) as server:
        client(b"0005x")
        assert server.log.outcomes(1) == ["read_timeout"]
    assert begun == []
    with serving(path, act, whole_request=True):
        assert ask(path, MUCH) == MUCH


def test_a_handler_knows_its_request_and_peer(path):
    seen = []

    def act(context):
        seen.append(context.request)

    with serving(path, act):
        ask(path)
        ask(path)
    assert len({request.id for request in seen}) == 2
    assert all(request.peer.pid > 0 for request in seen)


# what fails


def test_a_failed_handler_sends_no_flush(path):
    def act(context):
        context.write(b"half")
        return 3

    with serving(path, act) as server:
        assert raw_response_to(path, message(b"x")) == b"0008half"
        with pytest.raises(IncompleteMessage):
            ask(path)
        assert server.log.outcomes(2) == ["handler_failed"] * 2
    assert server.log.records[0].detail == "status 3"


def test_the_whole_request_is_read_though_the_handler_failed(path):
    """The client may write the whole request before it reads."""
    with serving(path, lambda context: 1):
        assert raw_response_to(path, message(MUCH)) == b""


class Broken(Handler):
    """A handler that cannot start, or has a defect."""

    def __init__(self, error):
        self._error = error

    def run(self, request, spooled, payload):
        raise self._error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(SipcError("no"), "spawn_failed"), (ValueError("a defect"), "internal_error")],
    ids=["not started", "defect"],
)
def test_a_handler_that_cannot_start_fails_only_its_request(path, error, outcome):
    with serving(path, handler=Broken(error)) as server:
        for _ in range(2):
            with pytest.raises(IncompleteMessage):
                ask(path)
        assert server.log.outcomes(2) == [outcome] * 2


@pytest.mark.parametrize("bytes_", ["zzzz", "0001", "0002", "0003", "-004", " 00f", "fff1"])
def test_a_malformed_request_ends_only_its_connection(path, bytes_):
    with serving(path) as server:
        assert raw_response_to(path, bytes_.encode()) == b""
        assert server.log.outcomes(1) == ["malformed"]
        assert ask(path) == b"ping"


@pytest.mark.parametrize("bytes_", ["0", "000", "0009hel", "0009hello", "0009hello00"])
def test_a_handler_never_reads_the_end_of_a_truncated_request(path, client, bytes_):
    ends = []

    def act(context):
        ends.append(context.read_all())

    with serving(path, act) as server:
        client(bytes_.encode()).close()
        assert server.log.outcomes(1) == ["request_incomplete"]
        assert not server.log.records[0].outcome.is_error
    assert ends == []


def test_bytes_after_the_flush_are_dropped(path):
    with serving(path) as server:
        assert raw_response_to(path, message(b"one") + message(b"two")) == message(b"one")
        assert server.log.outcomes(1) == ["answered"]


def test_a_connection_without_data_is_no_request(path):
    with serving(path) as server:
        assert probe(Endpoint(path).connect, timeout=TIMEOUT).state == "listening"
        assert ask(path) == b"ping"  # accepted after that connection
        server.log.wait_until(
            lambda: [line for line in server.log.lines if "without sending data" in line], "it"
        )
        assert server.log.outcomes(1) == ["answered"]
        assert server.counted()["closed_without_data"] == 1
