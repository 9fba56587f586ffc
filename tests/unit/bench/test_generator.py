"""The load generator against a scripted server: what it sends and counts."""

from __future__ import annotations

import gc
import os
import threading
from contextlib import ExitStack

import pytest
from helpers.scripted_server import ScriptedServer, receive_wire
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import MAX_PAYLOAD, connect, decode, message, packets

from simpleipc_cli.bench import exchange
from simpleipc_cli.bench import generator as load
from simpleipc_cli.bench.generator import Generator, LoadPlan
from simpleipc_cli.errors import EndpointError, OutOfResources, ServerBusy

MS = 1_000_000
SECOND = 1_000 * MS

pytestmark = pytest.mark.filterwarnings(
    "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)


def receive(connection) -> bytes | None:
    """Return the payload of one message; None if it is truncated."""
    payload, is_complete = decode(receive_wire(connection))
    return payload if is_complete else None


def echo(server, connection, payload) -> None:
    connection.sendall(message(payload))


def hold(server, connection, payload) -> None:
    server.held.enter_context(connection.dup())


class Scripted(ScriptedServer):
    """Reads requests one after the other, and calls `respond(server, connection, payload)`.

    With a backlog of 0 it does not accept before `open` is set.
    """

    def __init__(self, path, respond=echo, backlog=64, take=receive) -> None:
        super().__init__(path, self._response, in_turn=True, backlog=backlog)
        self.respond, self.take = respond, take
        self.payloads: list[bytes] = []
        self.held = ExitStack()
        self.open = threading.Event()
        if backlog:
            self.open.set()

    def _accept(self) -> None:
        self.open.wait(TIMEOUT)
        super()._accept()

    def _response(self, connection) -> None:
        try:
            if (payload := self.take(connection)) is not None:
                self.payloads.append(payload)
                self.respond(self, connection, payload)
        except OSError:
            pass  # the client has closed

    def leave(self) -> None:
        os.unlink(self.path)
        self.refuse()

    def come_back(self) -> None:
        """Listen again, as another process would."""
        self._acceptor.join(TIMEOUT)
        self._bind()
        self.__enter__()

    def stop(self) -> None:
        self.open.set()
        super().stop()
        self.held.close()


def run(path, on_progress=lambda _progress: False, **plan) -> load.Results:
    plan.setdefault("timeout", int(TIMEOUT) * SECOND)
    results = Generator(LoadPlan(str(path), **plan), load.monotonic_ns(), on_progress).run()
    assert results.started == results.total.count + results.failed() + results.unfinished
    assert results.total.count == results.connect.count == results.first_byte.count
    slots = results.timeline.buckets
    assert sum(slot.requests for slot in slots) == results.total.count + results.failed()
    assert sum(slot.failures for slot in slots) == results.failed()
    return results


def stop_clock_until_started(monkeypatch, count: int) -> None:
    """Let no time pass for the generator until it has started so many requests."""
    now, real_time = load.monotonic_ns(), load.monotonic_ns
    connected: list[str] = []

    def connecting(path, real=exchange.connect_nowait):
        connected.append(path)
        return real(path)

    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    monkeypatch.setattr(
        load, "monotonic_ns", lambda: real_time() if len(connected) >= count else now
    )


def failures(results) -> dict[str, int]:
    return {kind: times.count for kind, times in results.failures.items()}


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_closed_loop_sends_exactly_the_given_number_of_requests(endpoint, concurrency):
    with Scripted(endpoint) as server:
        results = run(endpoint, requests=50, concurrency=concurrency, payload=b"hello")
    assert (results.started, results.total.count, results.failures) == (50, 50, {})
    assert server.payloads == [b"hello"] * 50
    assert (results.bytes_out, results.bytes_in) == (250, 250)
    assert (results.response.count, results.late, results.skipped) == (0, 0, 0)


def test_an_open_loop_measures_response_and_service_time(endpoint):
    with Scripted(endpoint) as server:
        results = run(endpoint, duration=100 * MS, interval=5 * MS, concurrency=4)
    assert results.started + results.skipped == 20
    assert results.started == results.total.count == results.response.count == len(server.payloads)
    assert results.response.total >= results.total.total


SIZES = [0, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 1 << 20]


@pytest.mark.parametrize("generated", [True, False], ids=["generated", "given"])
@pytest.mark.parametrize("size", SIZES)
def test_requests_and_responses_of_any_size_arrive_whole(endpoint, size, generated):
    given = {"size": size} if generated else {"payload": bytes(size)}
    with Scripted(endpoint) as server:
        results = run(endpoint, requests=2, **given)
    assert server.payloads == [bytes(size)] * 2
    assert (results.bytes_out, results.bytes_in) == (2 * size, 2 * size)


@pytest.mark.parametrize(
    ("response", "expect", "holds"),
    [
        (b"pong", b"pong", True),
        (b"pong\n", b"pong", True),
        (b"pong", b"pong\n", True),
        (b"pong\n\n", b"pong", False),
        (b"", b"", True),
        (b"\n", b"", True),
        (b"x", b"", False),
        (b"pon", b"pong", False),
        (b"pong" + bytes(200_000), b"pong", False),
        (b"x" * 200_000, b"x" * 200_000, True),
    ],
    ids=lambda case: str(case)[:12],
)
def test_one_newline_at_the_end_of_a_response_is_ignored(endpoint, response, expect, holds):
    def respond(server, connection, payload):
        connection.sendall(message(response))

    with Scripted(endpoint, respond):
        results = run(endpoint, requests=1, expect=expect)
    assert failures(results) == ({} if holds else {"not as expected": 1})


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (b"", "truncated"),
        (b"00", "truncated"),
        (packets(b"half"), "truncated"),
        (packets(b"half")[:-1], "truncated"),
        (b"HTTP/1.1 400 Bad Request", "protocol"),
        (packets(b"good") + b"zzzz", "protocol"),
        (b"0001", "protocol"),
        (message(b"wrong"), "not as expected"),
    ],
    ids=ascii,
)
def test_a_bad_response_is_counted_as_a_failure_of_its_kind_without_a_latency(endpoint, wire, kind):
    def respond(server, connection, payload):
        connection.sendall(message(b"right") if len(server.payloads) % 2 else wire)

    with Scripted(endpoint, respond) as server:
        results = run(endpoint, requests=10, expect=b"right")
    assert len(server.payloads) == results.started == 10
    assert failures(results) == {kind: 5}
    assert results.total.count == 5
    assert results.bytes_in == 25


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (message(b"right"), None),
        (message(b"wrong"), "not as expected"),
        (b"", "truncated"),
        (b"zzzz", "protocol"),
        (None, "timeout"),
        (None, "refused"),
    ],
    ids=lambda case: str(case)[:15],
)
def test_an_exchange_leaves_no_reference_cycle(endpoint, wire, kind):
    """The garbage collector is off while the load runs."""

    def respond(server, connection, payload):
        if wire is None:
            hold(server, connection, payload)
        else:
            connection.sendall(wire)

    path = endpoint.with_name("missing") if kind == "refused" else endpoint
    with Scripted(endpoint, respond):
        gc.freeze()  # ignores objects that exist now
        gc.disable()
        try:
            limit = {"timeout": MS} if kind == "timeout" else {}
            results = run(path, requests=100, interval=1, expect=b"right", **limit)
            found = gc.collect()
        finally:
            gc.unfreeze()
            gc.enable()
    assert failures(results) == ({kind: 100} if kind else {})
    assert found < 100


def test_a_response_counts_even_if_the_server_has_not_read_the_request(endpoint):
    """The server closes its end of the connection before the request is written."""
    with Scripted(endpoint, take=lambda connection: b"never read") as server:
        results = run(endpoint, requests=1, size=1 << 22)
    assert (results.total.count, results.bytes_in) == (1, len(server.payloads[0]))


def test_a_request_that_times_out_is_reported_with_the_length_of_the_timeout(endpoint):
    with Scripted(endpoint, hold) as server:
        results = run(endpoint, requests=4, concurrency=2, timeout=20 * MS)
        wait_until(lambda: len(server.payloads) == 4, "all requests to be read")
    assert failures(results) == {"timeout": 4}
    assert results.failures["timeout"].min >= 20 * MS
    assert results.total.count == 0


@pytest.mark.parametrize("concurrency", [1, 4])
def test_requests_while_no_server_listens_are_refused_and_counts_add_up(
    endpoint, monkeypatch, concurrency
):
    answered = []

    def respond(server, connection, payload):
        if len(server.payloads) == 5:
            server.leave()
        answered.append(payload)
        echo(server, connection, payload)

    def connecting(path, real=exchange.connect_nowait):
        try:
            return real(path)
        except EndpointError:
            refused.append(path)
            if len(refused) == 3:
                server.come_back()
            raise

    refused: list[str] = []
    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    with Scripted(endpoint, respond) as server:
        results = run(endpoint, requests=60, concurrency=concurrency, payload=b"x")
    assert results.started == 60
    assert results.failures["refused"].count == len(refused) >= 3
    assert results.total.count == len(answered) == len(server.payloads)
    # Clients in the backlog of the server that ended were disconnected.
    assert failures(results).keys() <= {"refused", *(["truncated"] if concurrency > 1 else [])}


def test_requests_of_the_warm_up_are_not_counted(endpoint, monkeypatch):
    stop_clock_until_started(monkeypatch, 1)
    with Scripted(endpoint) as server:
        results = run(endpoint, warmup=30 * MS, requests=3, payload=b"x")
    assert len(server.payloads) > results.started == results.total.count == 3
    assert results.bytes_out == 3


def test_the_generator_waits_for_a_full_backlog_without_counting_a_failure(endpoint, monkeypatch):
    tried: list[str] = []

    def connecting(path, real=exchange.connect_nowait):
        try:
            return real(path)
        except ServerBusy:
            tried.append(path)
            if len(tried) == 3:
                first.close()
                server.open.set()
            raise

    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    with Scripted(endpoint, backlog=0) as server:
        first = connect(endpoint)  # the connection that fits into the backlog
        results = run(endpoint, requests=5, concurrency=5)
    assert len(tried) >= 3
    assert (results.started, results.total.count, results.failures) == (5, 5, {})
    assert len(server.payloads) == 5


def test_a_backlog_that_stays_full_causes_a_timeout(endpoint):
    with Scripted(endpoint, backlog=0), connect(endpoint):
        results = run(endpoint, requests=2, concurrency=2, timeout=10 * MS)
    assert failures(results) == {"timeout": 2}


def test_the_generator_waits_for_requests_in_flight_at_the_end_of_the_time(endpoint, monkeypatch):
    over = threading.Event()

    def respond(server, connection, payload):
        over.wait(TIMEOUT)
        echo(server, connection, payload)

    def on_progress(progress):
        if progress.elapsed > 20 * MS:
            over.set()
        return False

    stop_clock_until_started(monkeypatch, 3)
    with Scripted(endpoint, respond) as server:
        results = run(endpoint, on_progress=on_progress, duration=20 * MS, concurrency=3)
    assert over.is_set()
    assert (results.started, results.total.count, results.failures) == (3, 3, {})
    assert len(server.payloads) == 3


def test_a_stop_leaves_requests_in_flight_unfinished(endpoint):
    with Scripted(endpoint, hold) as server:
        results = run(
            endpoint,
            on_progress=lambda _progress: len(server.payloads) == 3,
            concurrency=3,
            duration=3600 * SECOND,
        )
    assert (results.started, results.unfinished, results.failures) == (3, 3, {})
    assert len(server.payloads) == 3


def test_a_load_on_a_missing_endpoint_can_be_stopped_while_many_requests_are_due(endpoint):
    results = run(endpoint, on_progress=lambda _progress: True, interval=1, duration=3600 * SECOND)
    assert failures(results) == {"refused": results.started}
    assert results.skipped > 0


def test_the_last_progress_report_has_all_requests(endpoint):
    reports = []
    with Scripted(endpoint):
        run(endpoint, on_progress=reports.append, requests=7)
    assert (reports[-1].answered, reports[-1].failed) == (7, 0)


def test_a_generator_out_of_descriptors_raises_an_error(endpoint, monkeypatch):
    def connecting(path):
        raise OutOfResources("no socket")

    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    with pytest.raises(OutOfResources, match="no socket"):
        run(endpoint, requests=1)


def test_an_error_of_no_known_class_is_not_reported_as_a_shortage(endpoint, monkeypatch):
    def connecting(path):
        raise EndpointError("input/output error")

    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    assert failures(run(endpoint, requests=1)) == {"refused": 1}
