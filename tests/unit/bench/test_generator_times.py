"""The times that the load generator reports, with a scripted clock."""

from __future__ import annotations

import pytest

from simpleipc_cli.bench import exchange
from simpleipc_cli.bench import generator as load
from simpleipc_cli.bench.generator import Generator, LoadPlan
from simpleipc_cli.bench.histogram import rank_of
from simpleipc_cli.bench.processes import split
from simpleipc_cli.errors import PathNotFound, ServerBusy

MS = 1_000_000
SECOND = 1_000 * MS

pytestmark = pytest.mark.filterwarnings(
    "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)


class World:
    """A simulated clock, and an endpoint whose n-th response takes a given time."""

    def __init__(self, monkeypatch, service) -> None:
        self.now = self.begin = 10 * SECOND
        self.service = service
        self.starts: list[int] = []
        self.responses: dict[int, int] = {}  # when, by descriptor
        for module in (load, exchange):
            monkeypatch.setattr(module, "monotonic_ns", lambda: self.now)
        for poller in ("new_poller", "new_scalable_poller"):
            monkeypatch.setattr(load, poller, lambda: FakePoller(self))
        monkeypatch.setattr(exchange, "connect_nowait", lambda path: FakeStream(self))

    def run(self, **plan) -> load.Results:
        return self.run_plan(LoadPlan("/fake", **plan))

    def run_plan(self, plan) -> load.Results:
        self.now = self.begin
        return Generator(plan, self.begin, lambda _progress: False).run()


class FakeStream:
    def __init__(self, world) -> None:
        self.world = world
        self.number = len(world.starts)
        world.starts.append(world.now)

    def fileno(self) -> int:
        return self.number

    def write_nowait(self, buffers) -> int:
        self.world.responses[self.number] = self.world.now + self.world.service(self.number)
        return sum(map(len, buffers))

    def read_nowait(self, buffer) -> int:
        buffer[:4] = b"0000"
        return 4

    def close(self) -> None:
        self.world.responses.pop(self.number)


class FakePoller:
    def __init__(self, world) -> None:
        self.world = world
        self.idle = 0

    def register(self, descriptor, wanted) -> None: ...

    def discard(self, descriptor) -> None: ...

    def close(self) -> None: ...

    def wait(self, timeout):
        world = self.world
        until = world.now + round(timeout * SECOND)
        moment = min(world.responses.values(), default=until)
        self.idle = 0 if moment > world.now or moment < until else self.idle + 1
        assert self.idle < 9, "it waits for nothing, again and again"
        world.now = max(world.now, min(until, moment))
        return [(number, load.READ) for number, at in world.responses.items() if at <= world.now]


def assert_is(histogram, times) -> None:
    """Percentiles are exact to 0.1 %; count, mean and bounds are exact."""
    times = sorted(times)
    assert (histogram.count, histogram.min, histogram.max) == (len(times), times[0], times[-1])
    assert histogram.mean == sum(times) / len(times)
    for q in (50, 75, 90, 95, 99, 99.9, 99.99):
        expected = times[rank_of(q, len(times)) - 1]
        assert histogram.percentile(q) == pytest.approx(expected, rel=0.001)


def test_a_constant_service_time_is_reported_exactly(monkeypatch):
    results = World(monkeypatch, lambda number: 20 * MS).run(requests=500)
    assert_is(results.total, [20 * MS] * 500)
    assert_is(results.first_byte, [20 * MS] * 500)
    assert results.elapsed == 10 * SECOND
    assert results.response.count == 0


def test_one_request_in_a_hundred_that_is_slow_shows_from_p99_on(monkeypatch):
    world = World(monkeypatch, lambda number: (20 if number % 100 else 500) * MS)
    results = world.run(requests=3_000, interval=10 * MS, concurrency=100)
    times = [20 * MS] * 2_970 + [500 * MS] * 30
    assert_is(results.total, times)
    assert_is(results.response, times)
    assert results.total.percentile(99) == pytest.approx(20 * MS, rel=0.001)
    assert results.total.percentile(99.9) == pytest.approx(500 * MS, rel=0.001)
    assert (results.late, results.skipped) == (0, 0)


def test_a_stall_shows_in_response_times_for_every_client_and_once_in_service_times(monkeypatch):
    world = World(monkeypatch, lambda number: 2 * SECOND if number == 500 else MS)
    results = world.run(duration=10 * SECOND, interval=10 * MS)
    assert_is(results.total, [MS] * 999 + [2 * SECOND])
    # Each later request waits 10 ms less, as it was due later, and 1 ms more for the one before.
    felt = [max(MS, 2 * SECOND - later * 9 * MS) for later in range(500)]
    assert_is(results.response, [MS] * 500 + felt)
    assert results.late == sum(time > MS + load.LATE_AFTER for time in felt[1:])
    assert (results.started, results.skipped, results.elapsed) == (1_000, 0, 10 * SECOND)


def test_requests_that_are_due_but_cannot_start_in_time_are_skipped(monkeypatch):
    world = World(monkeypatch, lambda number: 2 * SECOND if number == 900 else MS)
    results = world.run(duration=10 * SECOND, interval=10 * MS)
    assert (results.started, results.skipped, results.late) == (901, 99, 0)
    assert results.elapsed == 11 * SECOND
    assert results.total.count == 901


def test_no_request_is_skipped_after_the_given_number_of_requests(monkeypatch):
    results = World(monkeypatch, lambda number: MS).run(
        duration=10 * SECOND, requests=10, interval=10 * MS
    )
    assert (results.started, results.skipped) == (10, 0)


def test_requests_of_the_warm_up_are_never_skipped(monkeypatch):
    world = World(monkeypatch, lambda number: 4 * SECOND)
    results = world.run(warmup=SECOND, duration=2 * SECOND, interval=10 * MS)
    assert (results.started, results.skipped, results.total.count) == (0, 200, 0)


def test_a_request_ends_at_its_timeout(monkeypatch):
    results = World(monkeypatch, lambda number: SECOND).run(requests=3, timeout=100 * MS)
    assert results.failures["timeout"].min == results.failures["timeout"].max == 100 * MS
    assert (results.total.count, results.elapsed) == (0, 300 * MS)


def test_a_missing_response_does_not_lower_the_rate(monkeypatch):
    """The load ends with the last response, not with the timeout after it."""
    world = World(monkeypatch, lambda number: 10 * SECOND if number == 5 else 10 * MS)
    results = world.run(requests=10, concurrency=10, timeout=SECOND)
    assert (results.total.count, results.failures["timeout"].count) == (9, 1)
    assert results.elapsed == 10 * MS


def test_a_refused_client_does_not_delay_the_others(monkeypatch):
    """The other clients are not delayed, and their times do not include its wait."""
    world = World(monkeypatch, lambda number: MS)
    stream = iter([None])

    def connecting(path):
        if next(stream, path) is None:
            raise PathNotFound("gone")
        return FakeStream(world)

    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    results = world.run(duration=10 * MS, concurrency=2)
    assert world.starts == [world.begin + n * MS for n in range(10)]
    assert_is(results.total, [MS] * 10)
    assert max(slot.times.max or 0 for slot in results.timeline.buckets) == MS


@pytest.mark.parametrize(
    "limits",
    [{"requests": 20}, {"duration": 200 * MS}, {"requests": 20, "duration": 100 * MS}],
    ids=["requests", "duration", "both"],
)
@pytest.mark.parametrize("warmup", [0, 45 * MS, 50 * MS], ids=lambda ns: f"warm-up {ns}")
@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_several_processes_send_requests_at_the_same_times_as_one_process(
    monkeypatch, limits, warmup, processes
):
    plan = LoadPlan("/fake", interval=10 * MS, concurrency=10, warmup=warmup, **limits)
    alone = World(monkeypatch, lambda number: MS)
    whole = alone.run_plan(plan)
    together = World(monkeypatch, lambda number: MS)
    parts = [together.run_plan(share) for share in split(plan, processes)]
    assert sorted(together.starts) == alone.starts
    assert sum(results.started for results in parts) == whole.started
    assert sum(results.late + results.skipped for results in parts) == 0


def stalling(world, begin, end):
    """A service time of 1 ms, but no response between two times."""

    def service(number):
        ready = world.now + MS - world.begin
        return MS + (end - ready if begin <= ready < end else 0)

    return service


def test_a_stall_of_the_server_shows_in_both_times_if_enough_clients_are_free(monkeypatch):
    """All requests during the stall wait until its end: from 2 s down to 0 s."""
    world = World(monkeypatch, None)
    world.service = stalling(world, 4 * SECOND, 6 * SECOND)
    results = world.run(duration=10 * SECOND, interval=10 * MS, concurrency=1000)
    # Due every 10 ms, answered 1 ms later: from the one due at 4 s to the one due at 5.99 s.
    felt = [2 * SECOND - later * 10 * MS for later in range(200)]
    assert_is(results.total, [MS] * 800 + felt)
    assert_is(results.response, [MS] * 800 + felt)
    assert results.response.percentile(90) == pytest.approx(SECOND, rel=0.02)
    assert (results.started, results.late, results.skipped) == (1_000, 0, 0)


def test_a_stall_with_few_clients_shows_in_response_times(monkeypatch):
    """The response time includes the wait for a free client."""
    world = World(monkeypatch, None)
    world.service = stalling(world, 4 * SECOND, 6 * SECOND)
    results = world.run(duration=10 * SECOND, interval=10 * MS, concurrency=2)
    assert_is(results.total, [MS] * 998 + [2 * SECOND, 2 * SECOND - 10 * MS])
    # Two at a time, 1 ms each, until no request waits for a client.
    felt = [max(MS, 2 * SECOND + later // 2 * MS - later * 10 * MS) for later in range(600)]
    assert_is(results.response, [MS] * 400 + felt)
    assert results.late == sum(time > MS + load.LATE_AFTER for time in felt[2:])
    assert (results.started, results.skipped) == (1_000, 0)


def test_simultaneous_responses_are_timed_before_any_is_counted(monkeypatch):
    world = World(monkeypatch, lambda number: world.begin + 50 * MS - world.now)
    closing = FakeStream.close

    def close(stream):
        world.now += MS
        closing(stream)

    monkeypatch.setattr(FakeStream, "close", close)
    results = world.run(requests=20, concurrency=20)
    assert_is(results.total, [50 * MS] * 20)


def test_responses_are_read_while_due_requests_are_started(monkeypatch):
    world = World(monkeypatch, lambda number: 5 * MS)

    def connecting(path):
        world.now += MS
        return FakeStream(world)

    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    results = world.run(requests=500, concurrency=500)
    assert results.started == 500
    assert results.total.max <= 6 * MS + load._START_BATCH * MS


def test_responses_are_read_while_requests_wait_for_room_in_the_backlog(monkeypatch):
    world = World(monkeypatch, lambda number: 5 * MS)

    def connecting(path):
        if world.now < world.begin + 20 * MS:
            raise ServerBusy("full")
        world.now += MS
        return FakeStream(world)

    monkeypatch.setattr(exchange, "connect_nowait", connecting)
    results = world.run(requests=100, concurrency=100)
    assert results.started == 100
    assert results.total.min <= (20 + 6 + load._START_BATCH) * MS


def test_a_request_whose_writes_never_end_ends_at_its_timeout(monkeypatch):
    def write_nowait(stream, buffers):
        world.now += MS
        assert world.now < world.begin + SECOND, "other exchanges wait"
        return sum(map(len, buffers))

    def waiting(poller, timeout):
        return [(number, load.WRITE) for number in open_streams]

    open_streams: list[int] = []
    world = World(monkeypatch, lambda number: MS)
    monkeypatch.setattr(FakeStream, "write_nowait", write_nowait)
    monkeypatch.setattr(FakeStream, "close", lambda stream: open_streams.remove(stream.number))
    monkeypatch.setattr(FakePoller, "wait", waiting)
    monkeypatch.setattr(
        FakePoller, "register", lambda poller, descriptor, wanted: open_streams.append(descriptor)
    )
    results = world.run(requests=1, size=1 << 60, timeout=100 * MS)
    assert results.failures["timeout"].count == 1
    assert results.failures["timeout"].max <= 102 * MS
