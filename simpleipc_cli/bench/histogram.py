"""Times in fixed memory: a histogram with log-linear buckets, and its percentiles.

All times are whole nanoseconds. A histogram belongs to one thread, without locks; `merge()`
joins those of several.

The method is Gil Tene's HdrHistogram (https://github.com/HdrHistogram/HdrHistogram,
AbstractHistogram.java, "countsArrayIndex"): each power of two is divided into the same
number of buckets of equal width. It keeps 10 bits of a value, 512 buckets for each power
of two, and reports the middle of a bucket.

Why the error of a reported value is at most 0.1 %: a bucket of width w = 2**shift holds
values v whose upper 10 bits are the same, the first of them set, so v >= 512 * w. The
middle of the bucket is at most w / 2 from v, which is at most v / 1024, or 0.098 % of v.
Values below 1024 have a bucket each and no error at all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from itertools import count as counting
from math import ceil, log, sqrt
from typing import Any

PERCENTILES: tuple[float, ...] = (50, 75, 90, 95, 99, 99.9, 99.99)
"""The percentiles of a report, in percent."""

_KEPT_BITS = 10
_OCTAVE_BITS = _KEPT_BITS - 1  # the first bit kept is always set

HIGHEST = (1 << 47) - 1
"""The longest recordable time in nanoseconds, 39 hours; longer ones are recorded as this."""

BUCKETS = ((HIGHEST.bit_length() - _KEPT_BITS) << _OCTAVE_BITS) + (1 << _KEPT_BITS)
"""The number of buckets: 19,968, for a run of any length."""

_CONFIDENCE = 0.95

_LINEAR_BELOW = 10  # below this ratio of highest to lowest time, rows are equally wide (tunable)
_LINEAR_MARKS = (1, 2, 5)
# Tenths of a power of ten at which rows may begin, from fine to coarse: round numbers in
# steps that are nearly even on a log scale.
_LOG_MARKS = (
    (10, 12, 15, 20, 25, 30, 40, 50, 60, 80),
    (10, 15, 20, 30, 50, 70),
    (10, 20, 50),
    (10, 30),
    (10,),
)


def bucket_of(ns: int) -> int:
    """Return the index of the bucket of a time from 0 to HIGHEST."""
    shift = ns.bit_length() - _KEPT_BITS
    return (shift << _OCTAVE_BITS) + (ns >> shift) if shift > 0 else ns


def bucket_bounds(index: int) -> tuple[int, int]:
    """Return the lowest and the highest time in a bucket, both inclusive."""
    if index < 1 << _KEPT_BITS:
        return index, index
    shift = (index >> _OCTAVE_BITS) - 1
    lowest = (index - (shift << _OCTAVE_BITS)) << shift
    return lowest, lowest + (1 << shift) - 1


def percentile_name(q: float) -> str:
    """Return the name of a percentile: "p99.9", "p50"."""
    return f"p{int(q) if q == int(q) else q}"


def rank_of(q: float, count: int) -> int:
    """Return the rank, from 1, of the percentile `q` among `count` sorted values.

    The nearest rank: the lowest value that at least `q` percent of the values do not
    exceed (Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American
    Statistician 50, 1996, definition 1). `q` is taken to four decimals, as a whole number
    of millionths: in floats 99.9 % of 1000 would be 999.0000000000001, and its rank 1000.
    """
    millionths = round(q * 10_000)
    return max(1, -(-millionths * count // 1_000_000))


def samples_needed(q: float) -> int:
    """Return the number of samples from which the percentile `q` (0 < q < 100) is reported.

    With 95 % confidence at least one of them reaches the true percentile: all n independent
    samples stay below it with probability (q / 100)**n (S. S. Wilks, "Determination of Sample
    Sizes for Setting Tolerance Limits", Annals of Mathematical Statistics 12, 1941). With
    fewer, the reported value is likely to be too low. 5 for p50, 59 for p95, 299 for p99.
    """
    return ceil(log(1 - _CONFIDENCE) / log(q / 100))


def highest_percentile(samples: int) -> float:
    """Return the highest percentile for which `samples` (1 or more) are enough."""
    return 100 * float((1 - _CONFIDENCE) ** (1 / samples))


class Histogram:
    """Counts of times, to 0.1 %, with exact count, sums, minimum and maximum.

    Memory: one list of BUCKETS counters, 156 KiB, and at most 32 bytes for each counter in
    use; below 800 KiB for any number of recorded times. (The sum of squares grows by a bit
    whenever the count doubles.)
    """

    __slots__ = ("_counts", "_highest", "_lowest", "clamped", "count", "sum_of_squares", "total")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._lowest = HIGHEST + 1
        self._highest = -1
        self.count = 0
        """The number of recorded times."""
        self.clamped = 0
        """How many of them were longer than HIGHEST and recorded as HIGHEST."""
        self.total = 0
        """The exact sum of all times, in nanoseconds."""
        self.sum_of_squares = 0
        """In square nanoseconds; exact, and soon above 2**53."""

    def record(self, ns: int, count: int = 1) -> None:
        """Add a time of 0 ns or more, `count` times.

        Every request calls it, hence bucket_of() is inlined and one comparison covers the
        rare cases: a time outside the range recorded so far.
        """
        if not self._lowest <= ns <= self._highest:
            ns = self._widen(ns, count)
        shift = ns.bit_length() - _KEPT_BITS
        self._counts[(shift << _OCTAVE_BITS) + (ns >> shift) if shift > 0 else ns] += count
        self.count += count
        product = ns * count
        self.total += product
        self.sum_of_squares += ns * product

    def _widen(self, ns: int, count: int) -> int:
        """Extend the range to a time and return it, limited to HIGHEST."""
        if ns > HIGHEST:
            self.clamped += count
            ns = HIGHEST
        self._lowest = min(self._lowest, ns)
        self._highest = max(self._highest, ns)
        return ns

    def merge(self, other: Histogram) -> None:
        """Add all times of `other`."""
        counts = self._counts
        for index, count in other._used():
            counts[index] += count
        self._lowest = min(self._lowest, other._lowest)
        self._highest = max(self._highest, other._highest)
        self.count += other.count
        self.clamped += other.clamped
        self.total += other.total
        self.sum_of_squares += other.sum_of_squares

    @property
    def min(self) -> int | None:
        """The exact shortest time in nanoseconds; None without times."""
        return self._lowest if self.count else None

    @property
    def max(self) -> int | None:
        """The longest time in nanoseconds, exact up to HIGHEST; None without times."""
        return self._highest if self.count else None

    @property
    def mean(self) -> float | None:
        """The mean in nanoseconds, from exact sums; None without times."""
        return self.total / self.count if self.count else None

    @property
    def stdev(self) -> float | None:
        """The sample standard deviation (over n - 1), in nanoseconds; None below two times.

        Computed in integers up to the last division: the difference of two such sums would
        lose its digits in floats.
        """
        if self.count < 2:
            return None
        squares = self.count * self.sum_of_squares - self.total * self.total
        return sqrt(squares / (self.count * (self.count - 1)))

    def percentile(self, q: float) -> int | None:
        """Return the nearest-rank percentile `q` in nanoseconds, to 0.1 %; None without times.

        Unlike percentiles(), also with too few samples.
        """
        rank = rank_of(q, self.count)
        return self.value_at(rank) if self.count else None

    def percentiles(self) -> dict[float, int | None]:
        """Return PERCENTILES in nanoseconds, None for those with too few samples."""
        return {
            q: self.percentile(q) if self.count >= samples_needed(q) else None for q in PERCENTILES
        }

    def figures(self, prefix: str = "") -> dict[str, float | int | None]:
        """Return all figures by name, with a prefix such as "connect."; None: not available."""
        figures: dict[str, float | int | None] = {
            "min": self.min,
            "mean": self.mean,
            "stddev": self.stdev,
            **{percentile_name(q): value for q, value in self.percentiles().items()},
            "max": self.max,
        }
        return {prefix + name: value for name, value in figures.items()}

    def value_at(self, rank: int) -> int:
        """Return the `rank`-th shortest time, counted from 1, in nanoseconds, to 0.1 %.

        It is limited to the recorded range, which moves it only towards the true value, so
        that no percentile exceeds the maximum.
        """
        first = bucket_of(self._lowest)
        used = self._counts[first : bucket_of(self._highest) + 1]
        low, high = bucket_bounds(first + bisect_left(list(accumulate(used)), rank))
        return min(max((low + high) // 2, self._lowest), self._highest)

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """Yield lowest time, highest time and count of every bucket in use, in order."""
        for index, count in self._used():
            yield *bucket_bounds(index), count

    def _used(self) -> Iterator[tuple[int, int]]:
        """Yield index and count of the buckets in use, in order."""
        if self.count:
            first, last = bucket_of(self._lowest), bucket_of(self._highest)
            for index in range(first, last + 1):
                if count := self._counts[index]:
                    yield index, count

    def to_json(self) -> dict[str, object]:
        """Return everything for json.dumps(). Times are whole nanoseconds.

        `buckets` lists [lowest, highest, count] of those in use, so that other programs need
        not know the method. `total` and `sum_of_squares` may exceed 2**53, beyond which some
        readers of JSON round; Python's does not.
        """
        return {
            "count": self.count,
            "min": self.min,
            "max": self.max,
            "total": self.total,
            "sum_of_squares": self.sum_of_squares,
            "clamped": self.clamped,
            "buckets": [list(bucket) for bucket in self.buckets()],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Histogram:
        """Read back what to_json() returned; unknown fields are ignored.

        Raises ValueError if the count differs from that of the buckets; incomplete data raises
        whatever using it raises.
        """
        histogram = cls()
        for low, _, count in data["buckets"]:
            histogram._counts[bucket_of(low)] += count
        histogram.count = sum(histogram._counts)
        if histogram.count != data["count"]:
            raise ValueError(f"count is {data['count']!a}, but the buckets hold {histogram.count}")
        histogram.clamped = data["clamped"]
        histogram.total = data["total"]
        histogram.sum_of_squares = data["sum_of_squares"]
        if histogram.count:
            histogram._lowest, histogram._highest = data["min"], data["max"]
        return histogram


def text_histogram(histogram: Histogram, rows: int) -> list[tuple[int, int, int]]:
    """Return at most `rows` adjoining rows: lowest time, end, count; [] without times.

    They begin and end at round numbers: equally wide if the longest time is less than ten
    times the shortest, else on a log scale. A time within 0.1 % of a bound may be counted on
    its other side. `rows` is 2 or more.
    """
    if histogram.min is None or histogram.max is None:
        return []
    bounds = _bounds(histogram.min, histogram.max, rows)
    counts = [0] * (len(bounds) - 1)
    for low, high, count in histogram.buckets():
        middle = min(max((low + high) // 2, histogram.min), histogram.max)
        counts[bisect_right(bounds, middle) - 1] += count
    return list(zip(bounds, bounds[1:], counts, strict=False))


def _bounds(lowest: int, highest: int, rows: int) -> list[int]:
    """Return where the rows begin and where the last one ends."""
    if highest < _LINEAR_BELOW * lowest:
        finest = max(0, len(str(highest)) - 3)  # the three digits of format_ns() show it
        steps = (mark * 10**n for n in counting(finest) for mark in _LINEAR_MARKS)
        step = next(step for step in steps if highest // step - lowest // step < rows)
        return list(range(lowest // step * step, (highest // step + 2) * step, step))
    for scale in _log_scales():
        first, last = bisect_right(scale, lowest) - 1, bisect_right(scale, highest)
        if last - first <= rows:
            break
    return scale[first : last + 1]


def _log_scales() -> Iterator[list[int]]:
    """Yield all possible bounds on ever coarser scales, each beginning with 0."""
    powers = range(len(str(HIGHEST)) + 1)
    for marks in _LOG_MARKS:
        # Whole nanoseconds only: below 10 ns there is no mark such as 1.5.
        yield [0, *(mark * 10**n // 10 for n in powers for mark in marks if not mark * 10**n % 10)]
    for step in powers[2:]:
        yield [0, *(10**n for n in range(0, len(powers) + step, step))]
