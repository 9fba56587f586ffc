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
from heapq import heappop, heappush
from time import monotonic_ns, process_time_ns

from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.timeline import Slot, Timeline
from simpleipc_cli.buffers import Buffer, advance
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import Busy, CutOff, EndpointError, PeerGone, ProtocolError
from simpleipc_cli.message import MessageReader
from simpleipc_cli.pktline import FLUSH_PACKET, encode
from simpleipc_cli.transport import READ, WRITE, Poller, Stream, connect, new_wide_poller

SECOND = 1_000_000_000
FAILURES = ("refused", "timeout", "truncated", "protocol", "not as expected")
"""Kinds of failure, as reports name them."""

LATE_AFTER = 1_000_000
"""Nanoseconds behind its due time after which the start of a request counts as late."""

_CHUNK = 256 * 1024  # bytes of a generated request that are made once and sent again and again
_BUFFER_SIZE = 256 * 1024  # bytes of a response read at once
_RETRY_BUSY = 500_000  # nanoseconds before a full queue is tried again; no event tells
_AFTER_REFUSAL = 10_000_000  # nanoseconds a refused client waits, so that it does not spin
_SNAPSHOT_EVERY = SECOND // 4  # at will
_COARSE = 2_000_000  # nanoseconds; long waits may end a millisecond late, so they end this early
_NEVER = 1 << 62


@dataclass(frozen=True)
class Plan:
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
class Tally:
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
    """From the end of the warm-up to the end of the last exchange."""

    def failed(self) -> int:
        """Requests without the answer that was hoped for."""
        return sum(histogram.count for histogram in self.failures.values())

    def merge(self, other: Tally) -> None:
        """Add what another process has counted at the same time."""
        for name in ("total", "response", "connect", "first_byte", "timeline"):
            getattr(self, name).merge(getattr(other, name))
        for kind, histogram in other.failures.items():
            self.failures.setdefault(kind, Histogram()).merge(histogram)
        for name in ("started", "late", "skipped", "unfinished", "bytes_out", "bytes_in", "cpu"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.elapsed = max(self.elapsed, other.elapsed)
        self.wall = max(self.wall, other.wall)


class _Failed(Exception):
    """An exchange has failed; the text is its kind."""


class _Request:
    """The packets of a request, made once for all exchanges."""

    def __init__(self, plan: Plan) -> None:
        self.size = len(plan.payload) if plan.size is None else plan.size
        chunk = plan.payload if plan.size is None else bytes(min(self.size, _CHUNK))
        self._packets = encode(chunk)
        self._chunk = memoryview(chunk)

    def packets(self, begin: int) -> tuple[list[Buffer], int]:
        """What follows the first `begin` bytes of payload, or a part of it, and where that ends.

        The flush, which comes with the last part, counts as one byte of payload more.
        """
        left = self.size - begin
        if left < 0:
            return [], begin
        if left > len(self._chunk):
            return self._packets[:], begin + len(self._chunk)
        packets = self._packets if left == len(self._chunk) else encode(self._chunk[:left])
        return [*packets, FLUSH_PACKET], self.size + 1


class _Exchange:
    """One request in flight."""

    __slots__ = (
        *("_answer", "_begun", "_expect", "_left", "_request"),
        *("connected", "due", "first_byte", "reader", "start", "stream"),
    )

    def __init__(self, request: _Request, expect: bytes | None, due: int, start: int) -> None:
        self.due = due
        self.start = start
        self.connected = 0
        self.first_byte = 0
        self.stream: Stream | None = None
        self._request = request
        self._begun = 0  # bytes of payload that are in _left, or were
        self._left: list[Buffer] = []
        self.reader = MessageReader()
        self._expect = expect
        self._answer = b""

    def connect(self, path: str) -> bool:
        """Connect; False if there is no room in the queue now."""
        try:
            self.stream = connect(path, Deadline(0.0))
        except Busy:
            return False
        except EndpointError as error:
            if type(error) is EndpointError:  # not the endpoint fails, but we, for descriptors
                raise
            raise _Failed("refused") from None
        self.connected = monotonic_ns()
        return True

    def write(self) -> bool:
        """Write what can be written; whether more is to be."""
        assert self.stream is not None  # noqa: S101
        try:
            while True:
                if not self._left:
                    self._left, self._begun = self._request.packets(self._begun)
                    if not self._left:
                        return False
                advance(self._left, self.stream.write_now(self._left))
        except BlockingIOError:
            return True
        except PeerGone:  # it may have answered all the same
            return False

    def read(self, buffer: memoryview) -> bool:
        """Take what has come; whether the answer is complete."""
        assert self.stream is not None  # noqa: S101
        try:
            count = self.stream.read_now(buffer)
        except BlockingIOError:
            return False
        self.first_byte = self.first_byte or monotonic_ns()
        try:
            if not count:
                self.reader.end()
            for payload in self.reader.feed(buffer[:count]):
                if self._expect is not None and len(self._answer) < len(self._expect) + 2:
                    self._answer += payload
        except CutOff:
            raise _Failed("truncated") from None
        except ProtocolError:
            raise _Failed("protocol") from None
        wanted = self._answer if self._expect is None else self._expect
        if self.reader.complete and self._answer.removesuffix(b"\n") != wanted.removesuffix(b"\n"):
            raise _Failed("not as expected")
        return self.reader.complete


class _Schedule:
    """When requests are due."""

    def __init__(self, plan: Plan, begin: int) -> None:
        self._begin = begin + plan.offset
        self._interval = plan.interval
        self._number = 0
        # In a closed loop a request is due as soon as a client is free for it. A heap: a client
        # that was refused is free later than those that come after it.
        self._free = [self._begin] * plan.concurrency

    def next(self) -> int | None:
        """When the next request is due; None if all clients are busy."""
        if self._interval is not None:
            return self._begin + self._number * self._interval
        return self._free[0] if self._free else None

    def take(self, now: int) -> int:
        """When the next request was due that is started now; in a closed loop that is now."""
        if self._interval is None:
            heappop(self._free)
            return now
        self._number += 1
        return self._begin + (self._number - 1) * self._interval

    def give_back(self, at: int) -> None:
        """A client is free again."""
        if self._interval is None:
            heappush(self._free, at)

    def left_over(self, begin: int, end: int) -> int:
        """How many were due from `begin` to before `end` and were not taken."""
        if self._interval is None:
            return 0
        first, last = (-(-(at - self._begin) // self._interval) for at in (begin, end))
        return max(0, last - max(first, self._number))


Tell = Callable[[int, int, int, Slot], None]


class Generator:
    """Makes the load of one plan, and counts."""

    def __init__(
        self, plan: Plan, begin: int, *, stop: int | None = None, report: Tell | None = None
    ) -> None:
        """`begin` is when the first request is due, `stop` a descriptor that ends the load.

        `report` is called now and then: how many were answered and failed, nanoseconds
        since the end of the warm-up, and what has ended since the report before.
        """
        self.tally = Tally()
        self._plan = plan
        self._counted_from = begin + plan.warmup
        self._end = _NEVER if plan.duration is None else self._counted_from + plan.duration
        self._to_start = _NEVER if plan.requests is None else plan.requests
        self._schedule = _Schedule(plan, begin)
        self._request = _Request(plan)
        self._stop, self._stopped = stop, False
        self._report = report
        self._recent = Slot()
        self._next_report = begin + _SNAPSHOT_EVERY
        self._poller: Poller = new_wide_poller()
        if stop is not None:
            self._poller.watch(stop, READ)
        self._flying: dict[int, _Exchange] = {}  # by descriptor, the oldest first
        self._busy: deque[_Exchange] = deque()  # waiting for room in the server's queue
        self._try_busy = 0
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))

    def run(self) -> Tally:
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
            for exchange in list(self._flying.values()):
                self._land(exchange)
            self._poller.close()
        self.tally.cpu = process_time_ns() - cpu
        self.tally.wall = monotonic_ns() - wall
        return self.tally

    def _is_done(self) -> bool:
        return self._stopped or not (self._flying or self._busy or self._may_start(monotonic_ns()))

    def _may_start(self, now: int) -> bool:
        has_room = len(self._flying) + len(self._busy) < self._plan.concurrency
        return has_room and now < self._end and self._to_start > 0

    def _count_rest(self, now: int) -> None:
        """Count what the end of the load leaves, and tell what was not told yet."""
        tally = self.tally
        tally.elapsed = max(0, now - self._counted_from)
        in_flight = [*self._flying.values(), *self._busy]
        tally.unfinished = sum(exchange.due >= self._counted_from for exchange in in_flight)
        skipped = self._schedule.left_over(self._counted_from, min(now, self._end))
        tally.skipped = min(skipped, self._to_start)
        self._next_report = now
        self._tell(now)

    def _pause(self, now: int) -> float:
        """Seconds until something has to be done without an event."""
        moments: list[int] = [self._next_report]
        if self._may_start(now):
            due = self._schedule.next()
            if due is not None:
                moments.append(min(due, self._end))
        if self._busy:
            moments.append(self._try_busy)
        if self._plan.timeout is not None and self._flying:
            moments.append(next(iter(self._flying.values())).start + self._plan.timeout)
        pause = max(0, min(moments) - now)
        return float((pause if pause < 5 * _COARSE else pause - _COARSE) / SECOND)

    def _launch(self, now: int) -> None:
        """Start what is due, and try again what found no room."""
        while self._busy and now >= self._try_busy:
            if self._begin(self._busy[0]):
                self._busy.popleft()
            else:
                self._try_busy = now + _RETRY_BUSY
        # Not without end: where requests fail faster than they are due, there is more to do.
        for _ in range(self._plan.concurrency):
            due = self._schedule.next()
            if due is None or due > now or not self._may_start(now):
                return
            exchange = _Exchange(self._request, self._plan.expect, self._schedule.take(now), now)
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

    def _begin(self, exchange: _Exchange) -> bool:
        """Connect and write; False if there is no room in the server's queue."""
        try:
            if not exchange.connect(self._plan.path):
                return False
        except _Failed as failure:
            self._fail(exchange, str(failure))
            return True
        assert exchange.stream is not None  # noqa: S101
        descriptor = exchange.stream.fileno()
        self._flying[descriptor] = exchange
        self._poller.watch(descriptor, READ | WRITE if exchange.write() else READ)
        return True

    def _wait(self, pause: float) -> None:
        for descriptor, what in self._poller.wait(pause):
            if descriptor == self._stop:
                self._stopped = True
            elif descriptor in self._flying:
                self._advance(self._flying[descriptor], what)

    def _advance(self, exchange: _Exchange, what: int) -> None:
        try:
            if what & WRITE and not exchange.write():
                assert exchange.stream is not None  # noqa: S101
                self._poller.watch(exchange.stream.fileno(), READ)
            if what & ~WRITE and exchange.read(self._buffer):
                self._succeed(exchange)
        except _Failed as failure:
            self._fail(exchange, str(failure))

    def _expire(self, now: int) -> None:
        """Give up what takes too long."""
        if self._plan.timeout is None:
            return
        oldest_start = now - self._plan.timeout
        while (
            self._flying and (exchange := next(iter(self._flying.values()))).start <= oldest_start
        ):
            self._fail(exchange, "timeout")
        while self._busy and self._busy[0].start <= oldest_start:
            self._fail(self._busy.popleft(), "timeout")

    def _succeed(self, exchange: _Exchange) -> None:
        now = monotonic_ns()
        self._land(exchange)
        self._schedule.give_back(now)
        if exchange.due < self._counted_from:
            return
        tally = self.tally
        tally.total.record(now - exchange.start)
        tally.connect.record(exchange.connected - exchange.start)
        tally.first_byte.record(exchange.first_byte - exchange.start)
        if self._plan.interval is not None:
            tally.response.record(now - exchange.due)
        tally.timeline.answer(now - self._counted_from, now - exchange.due)
        self._recent.answer(now - exchange.due)
        tally.bytes_out += self._request.size
        tally.bytes_in += exchange.reader.payload_bytes

    def _fail(self, exchange: _Exchange, kind: str) -> None:
        now = monotonic_ns()
        self._land(exchange)
        self._schedule.give_back(now + _AFTER_REFUSAL if kind == "refused" else now)
        if exchange.due >= self._counted_from:
            self.tally.failures.setdefault(kind, Histogram()).record(now - exchange.start)
            self.tally.timeline.fail(now - self._counted_from)
            self._recent.fail()

    def _land(self, exchange: _Exchange) -> None:
        stream, exchange.stream = exchange.stream, None
        if stream is not None:
            self._flying.pop(stream.fileno(), None)
            self._poller.forget(stream.fileno())
            stream.close()

    def _tell(self, now: int) -> None:
        """Report, if it is time to."""
        if now < self._next_report:
            return
        self._next_report = now + _SNAPSHOT_EVERY
        recent, self._recent = self._recent, Slot()
        if self._report is not None:
            elapsed = max(0, now - self._counted_from)
            self._report(self.tally.total.count, self.tally.failed(), elapsed, recent)
