"""Makes the load, in one process: exchanges that start when they are due, all in one thread.

One thread, because a thread that has its answer would have to wait for Python's lock, and
that wait would be counted as the server's. All times are nanoseconds of the monotonic clock,
which on one machine is the same in all processes.

Two times are kept apart. *Service time* is from the actual start of a request to its
complete answer; *response time* is from when it was due. In a closed loop they are the
same. In an open loop they differ when the load could not be started on time: a client that
waits its turn because the server stalls waits all the same, and a load generator that left
that out would hide the stall ("coordinated omission", Gil Tene, "How NOT to Measure
Latency", 2013; wrk2 measures the same way).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic_ns, process_time_ns

from simpleipc_cli.bench.exchange import Exchange, Failed, Request
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.schedule import Schedule
from simpleipc_cli.bench.timeline import TimeBucket, Timeline
from simpleipc_cli.transport import READ, WRITE, Poller, new_scalable_poller

SECOND = 1_000_000_000
FAILURES = ("refused", "timeout", "truncated", "protocol", "not as expected")
"""Kinds of failure, as reports name them."""

LATE_AFTER = 1_000_000
"""Nanoseconds behind its due time after which the start of a request counts as late."""

_BUFFER_SIZE = 256 * 1024  # bytes of a response read at once
_RETRY_BUSY = 500_000  # nanoseconds before a full queue is tried again; no event tells
_AFTER_REFUSAL = 10_000_000  # nanoseconds a refused client waits, so that it does not spin
_SNAPSHOT_EVERY = SECOND // 4  # at will
_START_BATCH = 16  # requests started before answers are looked at again, at will
_COARSE = 2_000_000  # nanoseconds; long waits may end a millisecond late, so they end this early
_NEVER = 1 << 62


@dataclass(frozen=True)
class LoadPlan:
    """What one process is to do. Times in nanoseconds."""

    path: str
    payload: bytes = b""
    size: int | None = None
    """Bytes of a generated request, in place of `payload`."""
    concurrency: int = 1
    """Most requests in flight at once."""
    requests: int | None = None
    """Requests to count, or None to go by time."""
    duration: int | None = None
    """Time for which requests are due, counted from the end of the warm-up, or None."""
    interval: int | None = None
    """Time between due requests of this process in an open loop; None in a closed one."""
    offset: int = 0
    """How much later than the first process this one's first request is due."""
    warmup: int = 0
    timeout: int | None = None
    """Longest time for one exchange, from its start."""
    expect: bytes | None = None
    """What the whole answer must be, a newline at its end aside."""


@dataclass
class Results:
    """What has been counted; tallies of several processes add up."""

    total: Histogram = field(default_factory=Histogram)
    """Service time: from the start of a request to its complete answer."""
    response: Histogram = field(default_factory=Histogram)
    """From when a request was due to its complete answer."""
    connect: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    """From the start of a request to the first byte of its answer."""
    failures: dict[str, Histogram] = field(default_factory=dict)
    """By kind, with the times that failing took."""
    timeline: Timeline = field(default_factory=Timeline)
    started: int = 0
    late: int = 0
    skipped: int = 0
    """Due, but not started when the time was over, or the load was broken off."""
    unfinished: int = 0
    """In flight when the load was broken off."""
    bytes_out: int = 0
    """Payload of requests that were answered."""
    bytes_in: int = 0
    """Payload of complete answers."""
    cpu: int = 0
    """Processor time that making the load took."""
    wall: int = 0
    """Time from start to end, warm-up included."""
    elapsed: int = 0
    """From the end of the warm-up to the last answer, or, if that is later, the end of the load."""

    def failed(self) -> int:
        """Requests without the answer that was hoped for."""
        return sum(histogram.count for histogram in self.failures.values())

    def merge(self, other: Results) -> None:
        """Add what another process has counted at the same time."""
        for name in ("total", "response", "connect", "first_byte", "timeline"):
            getattr(self, name).merge(getattr(other, name))
        for kind, histogram in other.failures.items():
            self.failures.setdefault(kind, Histogram()).merge(histogram)
        for name in ("started", "late", "skipped", "unfinished", "bytes_out", "bytes_in", "cpu"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.elapsed = max(self.elapsed, other.elapsed)
        self.wall = max(self.wall, other.wall)


Tell = Callable[[int, int, int, TimeBucket], None]


class Generator:
    """Makes the load of one plan, and counts."""

    def __init__(
        self, plan: LoadPlan, begin: int, *, stop: int | None = None, report: Tell | None = None
    ) -> None:
        """`begin` is when the first request is due, `stop` a descriptor that ends the load.

        `report` is called now and then: how many were answered and failed, nanoseconds
        since the end of the warm-up, and what has ended since the report before. Where it
        cannot be told without waiting, it raises BlockingIOError, and is told the next time.
        """
        self.tally = Results()
        self._plan = plan
        self._counted_from = begin + plan.warmup
        self._end = _NEVER if plan.duration is None else self._counted_from + plan.duration
        self._to_start = _NEVER if plan.requests is None else plan.requests
        self._schedule = Schedule(begin + plan.offset, plan.interval, plan.concurrency)
        self._request = Request(plan.payload, plan.size)
        self._stop, self._stopped = stop, False
        self._report = report
        self._recent = TimeBucket()
        self._next_report = begin + _SNAPSHOT_EVERY
        self._poller: Poller = new_scalable_poller()
        if stop is not None:
            self._poller.register(stop, READ)
        self._in_flight: dict[int, Exchange] = {}  # by descriptor, the oldest first
        self._busy: deque[Exchange] = deque()  # waiting for room in the server's queue
        self._try_busy = 0
        self._last_answer = 0
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))

    def run(self) -> Results:
        """Make the load to its end, and wait for what is in flight."""
        cpu, wall = process_time_ns(), monotonic_ns()
        try:
            while not self._is_done():
                self._launch(monotonic_ns())
                self._wait(self._pause(monotonic_ns()))
                self._expire(monotonic_ns())
                self._tell(monotonic_ns())
            self._count_rest(monotonic_ns())
        finally:
            for exchange in list(self._in_flight.values()):
                self._land(exchange)
            self._poller.close()
        self.tally.cpu = process_time_ns() - cpu
        self.tally.wall = monotonic_ns() - wall
        return self.tally

    def _is_done(self) -> bool:
        return self._stopped or not (
            self._in_flight or self._busy or self._may_start(monotonic_ns())
        )

    def _may_start(self, now: int) -> bool:
        has_room = len(self._in_flight) + len(self._busy) < self._plan.concurrency
        return has_room and now < self._end and self._to_start > 0

    def _count_rest(self, now: int) -> None:
        """Count what the end of the load leaves, and tell what was not told yet."""
        tally = self.tally
        tally.elapsed = max(0, self._measured_until(now) - self._counted_from)
        in_flight = [*self._in_flight.values(), *self._busy]
        tally.unfinished = sum(exchange.due >= self._counted_from for exchange in in_flight)
        skipped = self._schedule.left_over(self._counted_from, min(now, self._end))
        tally.skipped = min(skipped, self._to_start)
        self._next_report = now
        self._tell(now)

    def _measured_until(self, now: int) -> int:
        """When what was measured ended: waiting for what never came is no part of it."""
        if self._stopped:
            return now
        over = 0 if self._plan.duration is None else min(now, self._end)
        return max(over, self._last_answer) or now

    def _pause(self, now: int) -> float:
        """Seconds until something has to be done without an event."""
        moments: list[int] = [self._next_report]
        if self._may_start(now):
            due = self._schedule.next()
            if due is not None:
                moments.append(min(due, self._end))
        if self._busy:
            moments.append(self._try_busy)
        if self._plan.timeout is not None and self._in_flight:
            moments.append(next(iter(self._in_flight.values())).start + self._plan.timeout)
        pause = max(0, min(moments) - now)
        return float((pause if pause < 5 * _COARSE else pause - _COARSE) / SECOND)

    def _launch(self, now: int) -> None:
        """Try again what found no room, and start what is due.

        Only a few: an answer that comes while we start others would seem to take longer.
        """
        for _ in range(_START_BATCH):
            if not self._busy or now < self._try_busy:
                break
            if self._begin(self._busy[0]):
                self._busy.popleft()
            else:
                self._try_busy = now + _RETRY_BUSY
        for _ in range(_START_BATCH):
            due = self._schedule.next()
            if due is None or due > now or not self._may_start(now):
                return
            exchange = Exchange(self._request, self._plan.expect, self._schedule.take(now), now)
            if exchange.due >= self._counted_from:
                self._to_start -= 1
                self.tally.started += 1
                self.tally.late += now > exchange.due + LATE_AFTER
            if self._busy:  # first come, first served
                self._busy.append(exchange)
            elif not self._begin(exchange):
                self._busy.append(exchange)
                self._try_busy = now + _RETRY_BUSY
            now = monotonic_ns()

    def _begin(self, exchange: Exchange) -> bool:
        """Connect and write; False if there is no room in the server's queue."""
        try:
            if not exchange.connect(self._plan.path):
                return False
        except Failed as failure:
            self._fail(exchange, str(failure))
            return True
        assert exchange.stream is not None  # noqa: S101
        descriptor = exchange.stream.fileno()
        self._in_flight[descriptor] = exchange
        self._poller.register(descriptor, READ | WRITE if exchange.write() else READ)
        return True

    def _wait(self, pause: float) -> None:
        """Go on with what can go on."""
        answered = []  # to be counted once all is read: what waits to be read seems to take longer
        for descriptor, what in self._poller.wait(pause):
            if descriptor == self._stop:
                self._stopped = True
            elif (exchange := self._in_flight.get(descriptor)) is not None:
                try:
                    if self._advance(exchange, what):
                        answered.append(exchange)
                except Failed as failure:
                    self._fail(exchange, str(failure))
        for exchange in answered:
            self._succeed(exchange)

    def _advance(self, exchange: Exchange, what: int) -> bool:
        """Write and read what can be; whether the answer is complete. Raises Failed."""
        if what & WRITE and not exchange.write():
            assert exchange.stream is not None  # noqa: S101
            self._poller.register(exchange.stream.fileno(), READ)
        return bool(what & ~WRITE) and exchange.read(self._buffer)

    def _expire(self, now: int) -> None:
        """Give up what takes too long."""
        if self._plan.timeout is None:
            return
        oldest_start = now - self._plan.timeout
        while (
            self._in_flight
            and (exchange := next(iter(self._in_flight.values()))).start <= oldest_start
        ):
            self._fail(exchange, "timeout")
        while self._busy and self._busy[0].start <= oldest_start:
            self._fail(self._busy.popleft(), "timeout")

    def _succeed(self, exchange: Exchange) -> None:
        self._land(exchange)
        self._schedule.give_back(exchange.end)
        if exchange.due < self._counted_from:
            return
        self._last_answer = max(self._last_answer, exchange.end)
        tally, start, response = self.tally, exchange.start, exchange.end - exchange.due
        tally.total.record(exchange.end - start)
        tally.connect.record(exchange.connected - start)
        tally.first_byte.record(exchange.first_byte - start)
        if self._plan.interval is not None:
            tally.response.record(response)
        tally.timeline.answer(exchange.end - self._counted_from, response)
        self._recent.answer(response)
        tally.bytes_out += self._request.size
        tally.bytes_in += exchange.reader.payload_bytes

    def _fail(self, exchange: Exchange, kind: str) -> None:
        now = monotonic_ns()
        self._land(exchange)
        self._schedule.give_back(now + _AFTER_REFUSAL if kind == "refused" else now)
        if exchange.due >= self._counted_from:
            self.tally.failures.setdefault(kind, Histogram()).record(now - exchange.start)
            self.tally.timeline.fail(now - self._counted_from)
            self._recent.fail()

    def _land(self, exchange: Exchange) -> None:
        stream, exchange.stream = exchange.stream, None
        if stream is not None:
            descriptor = stream.fileno()
            del self._in_flight[descriptor]
            stream.close()
            self._poller.discard(descriptor)

    def _tell(self, now: int) -> None:
        """Report, if it is time to."""
        if now < self._next_report:
            return
        self._next_report = now + _SNAPSHOT_EVERY
        if self._report is None:
            return
        elapsed = max(0, now - self._counted_from)
        try:
            self._report(self.tally.total.count, self.tally.failed(), elapsed, self._recent)
        except BlockingIOError:
            return
        self._recent = TimeBucket()
