"""Generate the load of one process: start exchanges when they are due, in one thread.

With several threads, a thread would have to wait for Python's global lock after its response
arrived, and that wait would count as time of the server. All times are nanoseconds of the monotonic
clock, which is the same in all processes of a machine.

Two times are measured. *Service time* is from the actual start of a request to its complete
response; *response time* is from when it was due. In a closed loop they are the same. In an
open loop they differ if a request could not start on time, for example because the server
stalled: a load generator that ignored this wait would hide the stall ("coordinated
omission", Gil Tene, "How NOT to Measure Latency", 2013; wrk2 measures the same way).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import repeat
from math import ceil
from time import monotonic_ns, process_time_ns

from simpleipc_cli.bench.exchange import ExchangeFailed, Request, TimedExchange
from simpleipc_cli.bench.histogram import Histogram, Timeline
from simpleipc_cli.transport import READ, WRITE, Poller, new_poller, new_scalable_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.bench.payloads import Payloads

SECOND = 1_000_000_000
FAILURES = ("refused", "timeout", "truncated", "protocol", "not as expected")
"""The kinds of failure, with their names in reports."""

COUNTS = ("started", "late", "skipped", "unfinished", "bytes_out", "bytes_in")
"""Results that are counts: those of several processes are added."""

LATE_AFTER = 1_000_000
"""A request counts as late if it starts more than these nanoseconds after it was due."""

_BUFFER_SIZE = 256 * 1024  # bytes per read
_BUSY_RETRY_INTERVAL = 500_000  # nanoseconds; no event reports that a full queue has space
_REFUSED_PAUSE = 10_000_000  # nanoseconds that a refused client waits before it retries
_REPORT_INTERVAL = SECOND // 4  # (tunable)
_START_BATCH = 16  # maximum number of requests started between two reads (tunable)
_RECORD_BATCH = 16  # answered requests recorded at once: longer pauses would delay reads (tunable)
_FEW = 64  # connections for which poll(2) takes less time than epoll(7) (tunable)
_COARSE = 2_000_000  # nanoseconds; waits end this early, as they may end a millisecond late
_NEVER = 1 << 62


@dataclass(frozen=True)
class LoadPlan:
    """The load of one process. Times are in nanoseconds."""

    path: str
    payload: bytes = b""
    size: int | None = None
    """Bytes of a generated request, in place of `payload`."""
    payloads: Payloads | None = None
    """A different payload for each request, in place of `payload`."""
    concurrency: int = 1
    """Maximum number of requests in flight."""
    requests: int | None = None
    """Number of requests to count; None: limited by `duration`."""
    duration: int | None = None
    """Time for which requests are due, from the end of the warm-up."""
    interval: int | None = None
    """Time between two due requests of this process in an open loop; None in a closed loop."""
    offset: int = 0
    """Time from the first process's first request to this process's first request."""
    warmup: int = 0
    timeout: int | None = None
    """Maximum time of one exchange, from its start."""
    expect: bytes | None = None
    """The expected response, without a newline at its end; None: any, or that of `payloads`."""

    def requests_in_turn(self) -> Iterator[tuple[Request, bytes | None]]:
        """Return the requests, each with the expected response, without end."""
        if self.payloads is None:
            return repeat((Request(self.payload, self.size), self.expect))
        return (
            (Request(payload, None), self.expect if expected is None else expected)
            for payload, expected in self.payloads.in_turn()
        )


@dataclass
class Results:
    """Counts and times of a run. The results of several processes can be merged."""

    total: Histogram = field(default_factory=Histogram)
    """Service times: from the start of a request to its complete response."""
    response: Histogram = field(default_factory=Histogram)
    """Times from when a request was due to its complete response."""
    connect: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    """Times from the start of a request to the first byte of its response."""
    failures: dict[str, Histogram] = field(default_factory=dict)
    """Times from the start of a request to its failure, by kind of failure."""
    timeline: Timeline = field(default_factory=Timeline)
    started: int = 0
    late: int = 0
    skipped: int = 0
    """Requests that were due, but not started before the end of the load."""
    unfinished: int = 0
    """Requests in flight when the load was interrupted."""
    bytes_out: int = 0
    """Bytes of payload in answered requests."""
    bytes_in: int = 0
    """Bytes of payload in complete responses."""
    cpu_share: float = 0.0
    """Processor time of the generator per elapsed time; the maximum of several processes."""
    elapsed: int = 0
    """Time from the end of the warm-up to the last response or the end of the load, if later."""

    def failed(self) -> int:
        """Return the number of failed requests."""
        return sum(histogram.count for histogram in self.failures.values())

    def merge(self, other: Results) -> None:
        """Add the results of another process of the same run."""
        for name in ("total", "response", "connect", "first_byte", "timeline"):
            getattr(self, name).merge(getattr(other, name))
        for kind, histogram in other.failures.items():
            self.failures.setdefault(kind, Histogram()).merge(histogram)
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.elapsed = max(self.elapsed, other.elapsed)
        self.cpu_share = max(self.cpu_share, other.cpu_share)


def interval_of(rate: float) -> int:
    """Return the nanoseconds between two requests at `rate` requests per second.

    Round up: otherwise an extra request would be due in the last nanoseconds of a run, too late to
    be started.
    """
    return ceil(1e9 / rate)


class Schedule:
    """The times at which the requests of one process are due, in an open or a closed loop."""

    def __init__(self, begin: int, interval: int | None, concurrency: int) -> None:
        """A request is due every `interval` from `begin` on; without it, when a client is free."""
        self._begin = begin
        self._interval = interval
        self._number = 0
        # A heap, as a refused client becomes free later than clients that are released after it.
        self._free = [begin] * concurrency

    def next_due(self) -> int | None:
        """Return the time at which the next request is due; None if all clients are busy."""
        if self._interval is not None:
            return self._begin + self._number * self._interval
        return self._free[0] if self._free else None

    def start(self, now: int) -> int:
        """Start the next request; return the time at which it was due: in a closed loop, now."""
        if self._interval is None:
            heappop(self._free)
            return now
        self._number += 1
        return self._begin + (self._number - 1) * self._interval

    def release(self, at: int) -> None:
        """Make a client available from `at` on."""
        if self._interval is None:
            heappush(self._free, at)

    def count_skipped(self, begin: int, end: int) -> int:
        """Count the requests due from `begin` to before `end` that were not started."""
        if self._interval is None:
            return 0
        first, last = (-(-(at - self._begin) // self._interval) for at in (begin, end))
        return max(0, last - max(first, self._number))


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a running load."""

    answered: int = 0
    failed: int = 0
    elapsed: int = 0
    """Nanoseconds since the end of the warm-up."""


class Generator:
    """Generates the load of one plan and counts the results."""

    def __init__(self, plan: LoadPlan, begin: int, on_progress: Callable[[Progress], bool]) -> None:
        """`begin` is when the first request is due.

        `on_progress` is called every quarter of a second, and returns whether to end the load.
        """
        self.results = Results()
        self._plan = plan
        self._counted_from = begin + plan.warmup
        self._end = _NEVER if plan.duration is None else self._counted_from + plan.duration
        self._to_start = _NEVER if plan.requests is None else plan.requests
        self._schedule = Schedule(begin + plan.offset, plan.interval, plan.concurrency)
        self._is_warming_up = plan.warmup > 0
        self._requests = plan.requests_in_turn()
        self._next_request = next(self._requests)
        self._on_progress = on_progress
        self._stopped = False
        self._next_report = begin + _REPORT_INTERVAL
        # In an open loop waits must end to the microsecond, as poll(2) cannot.
        is_small = plan.interval is None and plan.concurrency <= _FEW
        self._poller: Poller = new_poller() if is_small else new_scalable_poller()
        self._in_flight: dict[int, TimedExchange] = {}  # by descriptor, the oldest first
        self._busy: deque[TimedExchange] = deque()  # waiting until the server's queue has space
        self._next_busy_retry = 0
        self._answered: list[TimedExchange] = []  # not yet recorded, in the order of their ends
        self._last_response = 0
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))

    def run(self) -> Results:
        """Run the load to its end, including the requests in flight."""
        cpu, wall = process_time_ns(), monotonic_ns()
        now = wall
        try:
            while not self._is_done(now):
                self._start_due(monotonic_ns())  # exact, as it is the time of a start
                self._process_events(self._poll_timeout(monotonic_ns()))
                now = monotonic_ns()
                self._expire(now)
                self._report_progress(now)
            self._finish(now)
        finally:
            for exchange in list(self._in_flight.values()):
                self._close(exchange)
            self._poller.close()
        self.results.cpu_share = (process_time_ns() - cpu) / max(1, monotonic_ns() - wall)
        return self.results

    def _is_done(self, now: int) -> bool:
        return self._stopped or not (self._in_flight or self._busy or self._can_start(now))

    def _can_start(self, now: int) -> bool:
        may_start = len(self._in_flight) + len(self._busy) < self._plan.concurrency
        return may_start and now < self._end and self._to_start > 0

    def _finish(self, now: int) -> None:
        """Count unfinished and skipped requests, and report the rest."""
        self._record_answered()
        results = self.results
        results.elapsed = max(0, self._measured_until(now) - self._counted_from)
        in_flight = [*self._in_flight.values(), *self._busy]
        results.unfinished = sum(exchange.due >= self._counted_from for exchange in in_flight)
        skipped = self._schedule.count_skipped(self._counted_from, min(now, self._end))
        results.skipped = min(skipped, self._to_start)
        self._next_report = now
        self._report_progress(now)

    def _measured_until(self, now: int) -> int:
        """Return the end of the measurement, which excludes waiting for failed requests."""
        if self._stopped:
            return now
        load_end = 0 if self._plan.duration is None else min(now, self._end)
        return max(load_end, self._last_response) or now

    def _poll_timeout(self, now: int) -> float:
        """Return the seconds until work is due without an event."""
        until = self._next_report
        if self._can_start(now):
            due = self._schedule.next_due()
            if due is not None:
                until = min(until, due, self._end)
        if self._busy:
            until = min(until, self._next_busy_retry)
        if self._plan.timeout is not None and self._in_flight:
            until = min(until, next(iter(self._in_flight.values())).start + self._plan.timeout)
        pause = max(0, until - now)
        return (pause if pause < 5 * _COARSE else pause - _COARSE) / SECOND

    def _start_due(self, now: int) -> None:
        """Retry busy connections and start due requests.

        Start only a few: responses that arrive meanwhile are read late, which adds to their times.
        """
        for _ in range(_START_BATCH):
            if not self._busy or now < self._next_busy_retry:
                break
            if self._start(self._busy[0]):
                self._busy.popleft()
            else:
                self._next_busy_retry = now + _BUSY_RETRY_INTERVAL
        for _ in range(_START_BATCH):
            if not self._can_start(now):
                return
            due = self._schedule.next_due()
            if due is None or due > now:
                return
            due = self._schedule.start(now)
            if self._is_warming_up and due >= self._counted_from:
                self._is_warming_up = False
                self._requests = self._plan.requests_in_turn()  # from the first payload on
                self._next_request = next(self._requests)
            exchange = TimedExchange(*self._next_request, due, now)
            if exchange.due >= self._counted_from:
                self._to_start -= 1
                self.results.started += 1
                self.results.late += now > exchange.due + LATE_AFTER
            if self._busy:  # first come, first served
                self._busy.append(exchange)
            elif not self._start(exchange):
                self._busy.append(exchange)
                self._next_busy_retry = now + _BUSY_RETRY_INTERVAL
            self._next_request = next(self._requests)  # now, as encoding is not the server's time
            now = monotonic_ns()

    def _start(self, exchange: TimedExchange) -> bool:
        """Connect and write; return False if the server's queue is full."""
        try:
            descriptor = exchange.connect(self._plan.path)
        except ExchangeFailed as failure:
            self._fail(exchange, str(failure))
            return True
        if descriptor is None:
            return False
        self._in_flight[descriptor] = exchange
        self._poller.register(descriptor, READ | WRITE if exchange.write_chunk() else READ)
        return True

    def _process_events(self, timeout: float) -> None:
        """Wait for events, and write and read where possible."""
        answered = []  # closed and recorded after all reads, as both would delay reads
        for descriptor, events in self._poller.wait(timeout):
            exchange = self._in_flight.get(descriptor)
            if exchange is not None:
                try:
                    if self._advance(exchange, events):
                        answered.append(exchange)
                except ExchangeFailed as failure:
                    self._fail(exchange, str(failure))
        for exchange in answered:
            self._close(exchange)
            self._schedule.release(exchange.end)
        self._answered += answered
        if len(self._answered) >= _RECORD_BATCH:
            self._record_answered()

    def _advance(self, exchange: TimedExchange, events: int) -> bool:
        """Write and read; return whether the response is complete. Raises ExchangeFailed."""
        if events & WRITE and not exchange.write_chunk():
            self._poller.register(exchange.fileno(), READ)
        return bool(events & ~WRITE) and exchange.read_once(self._buffer)

    def _expire(self, now: int) -> None:
        """Fail the exchanges that exceed the timeout."""
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

    def _record_answered(self) -> None:
        """Record the times and sizes of the answered requests, except those of the warm-up."""
        answered = [one for one in self._answered if one.due >= self._counted_from]
        self._answered.clear()
        if not answered:
            return
        results = self.results
        self._last_response = answered[-1].end
        results.total.record_all([one.end - one.start for one in answered])
        results.connect.record_all([one.connected - one.start for one in answered])
        results.first_byte.record_all([one.first_byte - one.start for one in answered])
        response = [one.end - one.due for one in answered]
        if self._plan.interval is not None:
            results.response.record_all(response)
        results.timeline.record_all([one.end - self._counted_from for one in answered], response)
        results.bytes_out += sum([one.request.size for one in answered])
        results.bytes_in += sum([one.payload_bytes for one in answered])

    def _fail(self, exchange: TimedExchange, kind: str) -> None:
        now = monotonic_ns()
        self._close(exchange)
        self._schedule.release(now + _REFUSED_PAUSE if kind == "refused" else now)
        if exchange.due >= self._counted_from:
            self.results.failures.setdefault(kind, Histogram()).record(now - exchange.start)
            self.results.timeline.bucket_at(now - self._counted_from).failures += 1

    def _close(self, exchange: TimedExchange) -> None:
        stream, exchange.stream = exchange.stream, None
        if stream is not None:
            descriptor = stream.fileno()
            del self._in_flight[descriptor]
            stream.close()
            self._poller.discard(descriptor)

    def _report_progress(self, now: int) -> None:
        """If a report is due, send it and check for a stop."""
        if now >= self._next_report:
            self._record_answered()
            self._next_report = now + _REPORT_INTERVAL
            elapsed = max(0, now - self._counted_from)
            progress = Progress(self.results.total.count, self.results.failed(), elapsed)
            self._stopped = self._on_progress(progress)
