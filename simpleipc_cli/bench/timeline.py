"""A run over time, in fixed memory: buckets of equal width that widen during the run.

For charts. Times are whole nanoseconds since the run began. A timeline belongs to one thread,
without locks; `merge()` joins those of several that share a start.
"""

from __future__ import annotations

from typing import NamedTuple

from simpleipc_cli.bench.histogram import HIGHEST, bucket_bounds, bucket_of, rank_of

MAX_BUCKETS = 120
"""The number of points that a chart as wide as a page can show (tunable)."""

FIRST_WIDTH = 10_000_000
"""Nanoseconds in a bucket at first: 10 ms; a run of ten seconds ends with 160 ms (tunable)."""

# 32 successive buckets of the histogram form one group: a chart shows no more detail. 32 is a
# power of two, so that no group crosses from one bucket width to the next.
_GROUP_BITS = 5

_MIN_WINDOWS = 24  # that a chart should have (tunable)


class TimeBucket:
    """The requests that ended within one interval.

    Their times are kept in at most 624 counters, by the method of histogram.py with 5 bits:
    percentiles are off by at most 3.2 % (below 512 ns, by 16 ns).
    """

    __slots__ = ("_groups", "failures", "max", "requests")

    def __init__(self) -> None:
        self._groups: dict[int, int] = {}
        self.requests = 0
        """All requests that ended, failed ones included."""
        self.failures = 0
        """Failed requests; their times are not in the percentiles."""
        self.max: int | None = None
        """The exact longest time of a response, in nanoseconds."""

    @property
    def answered(self) -> int:
        """The number of responses, which is the number of samples of the percentiles."""
        return self.requests - self.failures

    def record(self, ns: int) -> None:
        """Add a response that took `ns` nanoseconds."""
        ns = min(ns, HIGHEST)
        group = bucket_of(ns) >> _GROUP_BITS
        self._groups[group] = self._groups.get(group, 0) + 1
        self.requests += 1
        if self.max is None or ns > self.max:
            self.max = ns

    def record_failure(self) -> None:
        """Add a failed request."""
        self.requests += 1
        self.failures += 1

    def merge(self, other: TimeBucket) -> None:
        """Add all requests of `other`."""
        for group, count in other._groups.items():
            self._groups[group] = self._groups.get(group, 0) + count
        self.requests += other.requests
        self.failures += other.failures
        if other.max is not None:
            self.max = other.max if self.max is None else max(self.max, other.max)

    def percentile(self, q: float) -> int | None:
        """Return the approximate nearest-rank percentile of the responses, in nanoseconds.

        None without responses. For few responses it says little about the endpoint; see
        samples_needed().
        """
        remaining = rank_of(q, self.answered)
        for group in sorted(self._groups):
            remaining -= self._groups[group]
            if remaining <= 0 and self.max is not None:
                low, high = _group_bounds(group)
                return min((low + high) // 2, self.max)
        return None

    def to_json(self) -> dict[str, object]:
        """Return everything for json.dumps(); `times` lists [lowest ns, highest ns, count]."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "max": self.max,
            "times": [
                [*_group_bounds(group), self._groups[group]] for group in sorted(self._groups)
            ],
        }


class Timeline:
    """The requests that ended, in up to MAX_BUCKETS buckets from the start of the run.

    If an event is too late for the last bucket, neighbours are joined, as often as needed:
    widths are FIRST_WIDTH times a power of two, and after the first such doubling more than
    half of the buckets are in use up to the latest event.
    """

    __slots__ = ("_buckets", "width")

    def __init__(self) -> None:
        self._buckets: list[TimeBucket] = []
        self.width = FIRST_WIDTH
        """Nanoseconds in each bucket."""

    @property
    def buckets(self) -> list[TimeBucket]:
        """The buckets up to the latest event; the n-th, from 0, begins at n * width."""
        return self._buckets

    def record(self, at: int, ns: int) -> None:
        """Add a response that came `at` nanoseconds after the start and took `ns`."""
        self._bucket_at(at).record(ns)

    def record_failure(self, at: int) -> None:
        """Add a failure `at` nanoseconds after the start."""
        self._bucket_at(at).record_failure()

    def merge(self, other: Timeline) -> None:
        """Add all requests of `other`, which has the same start."""
        while self.width < other.width:
            self._widen()
        # The ratio of two widths is a power of two: each narrow bucket lies inside one wide bucket.
        ratio = self.width // other.width
        for index, bucket in enumerate(other._buckets):
            self._bucket_at(index // ratio * self.width).merge(bucket)

    def _bucket_at(self, at: int) -> TimeBucket:
        """Return the bucket of a moment, after widening and adding buckets as needed."""
        while at >= MAX_BUCKETS * self.width:
            self._widen()
        index = at // self.width
        while len(self._buckets) <= index:
            self._buckets.append(TimeBucket())
        return self._buckets[index]

    def _widen(self) -> None:
        """Join neighbours into buckets that are twice as wide."""
        for even, odd in zip(self._buckets[::2], self._buckets[1::2], strict=False):
            even.merge(odd)
        del self._buckets[1::2]
        self.width *= 2

    def to_json(self) -> dict[str, object]:
        """Return everything for json.dumps(). Times are whole nanoseconds."""
        return {"width": self.width, "buckets": [bucket.to_json() for bucket in self._buckets]}


class Window(NamedTuple):
    """The requests that ended from `begin` to `end`, in nanoseconds since the run began."""

    begin: int
    end: int
    bucket: TimeBucket

    def rate(self, count: int) -> float:
        """Return a count of this window per second."""
        return count / (self.end - self.begin) * 1e9


def resample(timeline: Timeline, elapsed: int, enough: int) -> list[Window]:
    """Join buckets into adjoining windows for a chart, from 0 to `elapsed` nanoseconds.

    So wide that most hold `enough` requests, if possible: a chart should show the server, not
    chance. All have the same width, except that the last one ends with the run; a run that
    ends without requests has one more window for that. Returns [] if no request ended.
    """
    buckets = timeline.buckets
    counts = sorted(bucket.requests for bucket in buckets if bucket.requests)
    if not counts:
        return []
    joined = 1
    while counts[len(counts) // 2] * joined < enough and len(buckets) >= 2 * joined * _MIN_WINDOWS:
        joined *= 2
    width = joined * timeline.width
    windows: list[Window] = []
    for first in range(0, len(buckets), joined):
        whole = TimeBucket()
        for bucket in buckets[first : first + joined]:
            whole.merge(bucket)
        windows.append(Window(first * timeline.width, first * timeline.width + width, whole))
    last = windows.pop()
    if elapsed >= last.end + width:
        return [*windows, last, Window(last.end, elapsed, TimeBucket())]
    # Failures may end after `elapsed`.
    end = elapsed if elapsed > last.begin else last.end
    if end < last.end and windows:  # the rate of a short moment would mean nothing
        before = windows.pop()
        last.bucket.merge(before.bucket)
        last = before._replace(bucket=last.bucket)
    return [*windows, last._replace(end=end)]


def _group_bounds(group: int) -> tuple[int, int]:
    """Return the lowest and the highest time in a group of buckets, both inclusive."""
    first = group << _GROUP_BITS
    last = first + (1 << _GROUP_BITS) - 1
    return bucket_bounds(first)[0], bucket_bounds(last)[1]
