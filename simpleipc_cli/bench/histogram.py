"""Times in limited memory: a histogram with log-linear buckets, and a timeline of histograms.

All times are whole nanoseconds. Only one thread may use an object; `merge()` adds the objects of
several threads.

The method is Gil Tene's HdrHistogram (https://github.com/HdrHistogram/HdrHistogram,
AbstractHistogram.java, "countsArrayIndex"): each power of two is divided into the same
number of buckets of equal width. It keeps the upper bits of a value, 10 for reports and 5 for
charts, and reports the middle of a bucket.

The error of a reported value is at most 0.1 % with 10 bits. Proof: a bucket of width w = 2**shift
holds values v whose upper 10 bits are the same, the first of them set, so v >= 512 * w. The
middle of the bucket is at most w / 2 from v, which is at most v / 1024, or 0.098 % of v.
Values below 1024 have a bucket each and no error at all. With 5 bits it is at most 3.2 %.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from math import ceil, log, sqrt
from operator import mul
from typing import Any, NamedTuple

PERCENTILES: tuple[float, ...] = (50, 75, 90, 95, 99, 99.9, 99.99)
"""The percentiles of a report, in percent."""

FEW = 3
"""If fewer samples lie beyond a percentile, reports mark it, as it is likely to be too low.

With n samples of which 3 should lie beyond, all n stay below the true percentile with a
probability of 5 % (e**-3, the "rule of three").
"""

MAX_TIME_BUCKETS = 120
"""The maximum number of points in a chart (tunable)."""

FIRST_WIDTH = 10_000_000
"""Initial width of a bucket in nanoseconds; after ten seconds it is 160 ms (tunable)."""

_BITS = 10
_CHART_BITS = 5
_WANTED_WINDOWS = 24  # windows in a chart over time, if possible (tunable)
_MIN_ROW = 1.02  # minimum ratio of the ends of a row: they then differ in three digits


def bucket_of(ns: int, bits: int = _BITS) -> int:
    """Return the index of the bucket for a time of 0 ns or more."""
    shift = ns.bit_length() - bits
    # The first of the kept bits is always 1, so there are 2**(bits - 1) buckets per power of two.
    return (shift << (bits - 1)) + (ns >> shift) if shift > 0 else ns


def bucket_bounds(index: int, bits: int = _BITS) -> tuple[int, int]:
    """Return the lowest and the highest time in a bucket, both inclusive."""
    if index < 1 << bits:
        return index, index
    shift = (index >> (bits - 1)) - 1
    lowest = (index - (shift << (bits - 1))) << shift
    return lowest, lowest + (1 << shift) - 1


def percentile_name(q: float) -> str:
    """Return the name of a percentile: "p99.9", "p50"."""
    return f"p{int(q) if q == int(q) else q}"


def rank_of(q: float, count: int) -> int:
    """Return the rank, from 1, of the percentile `q` among `count` sorted values.

    This is the nearest rank: the lowest value that at least `q` percent of the values do not exceed
    (Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50,
    1996, definition 1). `q` is converted to an integer number of millionths: with floats 99.9 % of
    1000 would be 999.0000000000001, and its rank 1000.
    """
    millionths = round(q * 10_000)
    return max(1, -(-millionths * count // 1_000_000))


def samples_needed(q: float) -> int:
    """Return the number of samples from which on one lies beyond the percentile `q` (0 < q < 100).

    A percentile is reported from this number on: p50 from 2, p90 from 10, p99 from 100.
    """
    return ceil(1_000_000 / (1_000_000 - round(q * 10_000)))


def has_few_beyond(q: float, count: int) -> bool:
    """Return whether fewer than FEW of `count` samples lie beyond the percentile `q`."""
    return count < FEW * samples_needed(q)


class Histogram:
    """Counts of times, to 0.1 %, with exact count, sums, minimum and maximum.

    Takes eight bytes for each bucket up to that of the longest time: at most 160 kB for times below
    39 hours.
    """

    __slots__ = ("_bits", "_counts", "count", "max", "min", "sum_of_squares", "total")

    def __init__(self, bits: int = _BITS) -> None:
        self._bits = bits
        self._counts = array("Q")  # by the index of the bucket
        self.count = 0
        """The number of recorded times."""
        self.min: int | None = None
        """The exact shortest time in nanoseconds; None without times."""
        self.max: int | None = None
        """The exact longest time in nanoseconds; None without times."""
        self.total = 0
        """The exact sum of all times, in nanoseconds."""
        self.sum_of_squares = 0
        """The exact sum of the squares of all times; it may exceed 2**53."""

    def record(self, ns: int, count: int = 1) -> None:
        """Add a time of 0 ns or more, `count` times."""
        self._include(ns, ns)
        self._counts[bucket_of(ns, self._bits)] += count
        self.count += count
        self.total += ns * count
        self.sum_of_squares += ns * ns * count

    def record_all(self, times: list[int]) -> None:
        """Add one or more times. As each request has several times, bucket_of() is inlined."""
        self._include(min(times), max(times))
        counts, bits = self._counts, self._bits
        for ns in times:
            shift = ns.bit_length() - bits
            counts[(shift << (bits - 1)) + (ns >> shift) if shift > 0 else ns] += 1
        self.count += len(times)
        self.total += sum(times)
        self.sum_of_squares += sum(map(mul, times, times))

    def _include(self, lowest: int, highest: int) -> None:
        """Extend the recorded range."""
        if self.min is None or lowest < self.min:
            self.min = lowest
        if self.max is None or highest > self.max:
            self.max = highest
            self._grow(bucket_of(highest, self._bits) + 1)

    def merge(self, other: Histogram) -> None:
        """Add all times of `other`, which has the same number of bits."""
        self._grow(len(other._counts))
        if other.min is not None and other.max is not None:
            # A merge of all slots of a timeline delays the load: most buckets are empty.
            first, last = (bucket_of(ns, self._bits) for ns in (other.min, other.max))
            for index in range(first, last + 1):
                self._counts[index] += other._counts[index]
        ends = [end for end in (self.min, self.max, other.min, other.max) if end is not None]
        self.min, self.max = min(ends, default=None), max(ends, default=None)
        self.count += other.count
        self.total += other.total
        self.sum_of_squares += other.sum_of_squares

    def _grow(self, buckets: int) -> None:
        self._counts.frombytes(bytes(8 * max(0, buckets - len(self._counts))))

    @property
    def mean(self) -> float | None:
        """The mean in nanoseconds, from exact sums; None without times."""
        return self.total / self.count if self.count else None

    @property
    def stdev(self) -> float | None:
        """The sample standard deviation (over n - 1), in nanoseconds; None below two times.

        Computed in integers up to the last division: a difference of large floats would be inexact.
        """
        if self.count < 2:
            return None
        squares = self.count * self.sum_of_squares - self.total * self.total
        return sqrt(squares / (self.count * (self.count - 1)))

    def percentile(self, q: float) -> int | None:
        """Return the nearest-rank percentile `q` in nanoseconds, to 0.1 %; None without times.

        Unlike figures(), this returns a percentile even if there are too few samples.
        """
        return self.value_at(rank_of(q, self.count)) if self.count else None

    def figures(self, prefix: str = "") -> dict[str, float | int | None]:
        """Return all figures by name, with a prefix such as "connect."; None: not available."""
        figures: dict[str, float | int | None] = {
            "min": self.min,
            "mean": self.mean,
            "stddev": self.stdev,
        }
        for q in PERCENTILES:
            is_known = self.count >= samples_needed(q)
            figures[percentile_name(q)] = self.percentile(q) if is_known else None
        figures["max"] = self.max
        return {prefix + name: value for name, value in figures.items()}

    def bounds(self, prefix: str = "") -> dict[str, tuple[float, float]]:
        """Return the lowest and the highest possible value of each missing percentile.

        As no sample lies beyond such a percentile, it is between the two longest times, with any
        definition of percentiles. Return {} without times.
        """
        if self.max is None:
            return {}
        ends = (self.value_at(max(1, self.count - 1)), self.max)
        missing = (q for q in PERCENTILES if self.count < samples_needed(q))
        return {prefix + percentile_name(q): ends for q in missing}

    def value_at(self, rank: int) -> int:
        """Return the `rank`-th shortest time, counted from 1, in nanoseconds, to 0.1 %.

        The result is limited to the recorded range, so that no percentile exceeds the maximum. This
        can only reduce its error.
        """
        low = high = seen = 0
        buckets = self.buckets()
        while seen < rank:
            low, high, count = next(buckets)
            seen += count
        return min(max((low + high) // 2, self.min or 0), self.max or 0)

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """Yield lowest time, highest time and count of every bucket in use, in order."""
        for index, count in enumerate(self._counts):
            if count:
                yield *bucket_bounds(index, self._bits), count

    def to_json(self) -> dict[str, object]:
        """Return everything for json.dumps(). Times are whole nanoseconds.

        `buckets` lists [lowest, highest, count] of each bucket in use, so that other programs need
        not compute the bounds. `total` and `sum_of_squares` may exceed 2**53, beyond which some
        readers of JSON round; Python's does not.
        """
        return {
            "count": self.count,
            "min": self.min,
            "max": self.max,
            "total": self.total,
            "sum_of_squares": self.sum_of_squares,
            "buckets": [list(bucket) for bucket in self.buckets()],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Histogram:
        """Convert the result of to_json() back; ignore unknown fields.

        Raises ValueError if the count differs from that of the buckets, and other errors for
        incomplete data.
        """
        histogram = cls()
        for low, _, count in data["buckets"]:
            histogram._grow(bucket_of(low) + 1)
            histogram._counts[bucket_of(low)] += count
        histogram.count = sum(histogram._counts)
        if histogram.count != data["count"]:
            raise ValueError(f"count is {data['count']!a}, but the buckets hold {histogram.count}")
        for name in ("min", "max", "total", "sum_of_squares"):
            setattr(histogram, name, data[name])
        return histogram


def text_histogram(histogram: Histogram, rows: int) -> list[tuple[int, int, int]]:
    """Return at most `rows` adjoining rows: lowest time, highest, count; [] without times.

    The ends of the rows are evenly spaced on a log scale. A time within 0.1 % of an end may be
    counted in the neighbouring row.
    """
    if histogram.min is None or histogram.max is None:
        return []
    lowest, highest = max(1, histogram.min), max(1, histogram.max)
    spread = log(highest / lowest)
    number = max(1, min(rows, int(spread / log(_MIN_ROW))))
    bounds = [round(lowest * (highest / lowest) ** (n / number)) for n in range(number + 1)]
    counts = [0] * number
    for low, high, count in histogram.buckets():
        row = bisect_right(bounds, (low + high) // 2) - 1
        counts[min(max(row, 0), number - 1)] += count
    return list(zip(bounds, bounds[1:], counts, strict=False))


class TimeBucket:
    """The requests that ended within one interval."""

    __slots__ = ("failures", "times")

    def __init__(self) -> None:
        self.times = Histogram(_CHART_BITS)
        """The times of the responses, to 3.2 %."""
        self.failures = 0
        """The number of failed requests; their times are not recorded."""

    @property
    def requests(self) -> int:
        """The number of requests that ended, failed ones included."""
        return self.times.count + self.failures

    def merge(self, other: TimeBucket) -> None:
        """Add all requests of `other`."""
        self.times.merge(other.times)
        self.failures += other.failures

    def to_json(self) -> dict[str, object]:
        """Return everything for json.dumps(); `times` lists [lowest ns, highest ns, count]."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "max": self.times.max,
            "times": [list(bucket) for bucket in self.times.buckets()],
        }


class Timeline:
    """The requests that ended, in up to MAX_TIME_BUCKETS buckets from the start of the run.

    If an event is too late for the last bucket, pairs of buckets are joined, repeatedly if needed:
    widths are FIRST_WIDTH times a power of two. After the first doubling, the buckets up to the
    latest event are more than half of the maximum.
    """

    __slots__ = ("buckets", "width")

    def __init__(self) -> None:
        self.buckets: list[TimeBucket] = []
        """The buckets up to the latest event; the n-th, from 0, begins at n * width."""
        self.width = FIRST_WIDTH
        """Nanoseconds in each bucket."""

    def merge(self, other: Timeline) -> None:
        """Add all requests of `other`, which has the same start."""
        while self.width < other.width:
            self._widen()
        # The ratio of two widths is a power of two: each narrow bucket lies inside one wide bucket.
        ratio = self.width // other.width
        for index, bucket in enumerate(other.buckets):
            self.bucket_at(index // ratio * self.width).merge(bucket)

    def bucket_at(self, at: int) -> TimeBucket:
        """Return the bucket for a time; widen and add buckets as needed."""
        while at >= MAX_TIME_BUCKETS * self.width:
            self._widen()
        index = at // self.width
        while len(self.buckets) <= index:
            self.buckets.append(TimeBucket())
        return self.buckets[index]

    def record_all(self, ends: list[int], times: list[int]) -> None:
        """Add one or more times of requests that ended at `ends`, in ascending order."""
        last = self.bucket_at(ends[-1])  # before the first one, as this may widen the buckets
        if self.bucket_at(ends[0]) is last:
            last.times.record_all(times)
        else:
            for end, ns in zip(ends, times, strict=True):
                self.bucket_at(end).times.record(ns)

    def _widen(self) -> None:
        """Join pairs of buckets into buckets that are twice as wide."""
        for even, odd in zip(self.buckets[::2], self.buckets[1::2], strict=False):
            even.merge(odd)
        del self.buckets[1::2]
        self.width *= 2

    def to_json(self) -> dict[str, object]:
        """Return everything for json.dumps(). Times are whole nanoseconds."""
        return {"width": self.width, "buckets": [bucket.to_json() for bucket in self.buckets]}


class Window(NamedTuple):
    """The requests that ended from `begin` to `end`, in nanoseconds since the run began."""

    begin: int
    end: int
    bucket: TimeBucket

    def rate(self, count: int) -> float:
        """Convert a count in this window to a rate per second."""
        return count / (self.end - self.begin) * 1e9


def resample(timeline: Timeline, elapsed: int, enough: int) -> list[Window]:
    """Join buckets into adjoining windows for a chart, from 0 to `elapsed` nanoseconds.

    If possible, most windows are wide enough for `enough` requests, to reduce random variation. All
    have the same width, except that the last one ends with the run. Return [] if no request ended.
    """
    counts = sorted(bucket.requests for bucket in timeline.buckets if bucket.requests)
    if not counts:
        return []
    covering = Timeline()
    covering.merge(timeline)
    covering.bucket_at(max(0, elapsed - 1))
    buckets = covering.buckets
    enough *= timeline.width
    joined = 1
    while (
        counts[len(counts) // 2] * joined * covering.width < enough
        and len(buckets) >= 2 * joined * _WANTED_WINDOWS
    ):
        joined *= 2
    width = joined * covering.width
    windows: list[Window] = []
    for number in range(ceil(len(buckets) / joined)):
        whole = TimeBucket()
        for bucket in buckets[number * joined : (number + 1) * joined]:
            whole.merge(bucket)
        windows.append(Window(number * width, (number + 1) * width, whole))
    # Failures may end after `elapsed`.
    if len(windows) > 1 and windows[-1].begin <= elapsed < windows[-1].end:
        last = windows.pop()  # too short for a meaningful rate
        windows[-1].bucket.merge(last.bucket)
        windows[-1] = windows[-1]._replace(end=elapsed)
    return windows
