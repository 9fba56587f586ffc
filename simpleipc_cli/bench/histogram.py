"""Durations in fixed memory: a histogram with log-linear buckets, and its percentiles.

Knows numbers only, and no clock. All times are whole nanoseconds. There are no locks: a
histogram belongs to one thread, and `merge()` joins those of several.

The method is Gil Tene's HdrHistogram (https://github.com/HdrHistogram/HdrHistogram,
AbstractHistogram.java, "countsArrayIndex"): each power of two is divided into the same
number of buckets of equal width. It keeps 10 bits of a value, 512 buckets for each power
of two, where HdrHistogram at three digits keeps 11, and it reports the middle of a bucket
instead of its highest value.

Why the error of a reported value is at most 0.1 %: a bucket of width w = 2**shift holds
values v whose upper 10 bits are the same, the first of them set, so v >= 512 * w. The
middle of the bucket is at most w / 2 from v, which is at most v / 1024, or 0.098 % of v.
Values below 1024 have a bucket each and no error at all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
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
    Raises ValueError unless 0 <= q <= 100.
    """
    if not 0 <= q <= 100:
        raise ValueError(f"a percentile is from 0 to 100, not {q}")
    millionths = round(q * 10_000)
    return max(1, -(-millionths * count // 1_000_000))


def samples_needed(q: float) -> int:
    """Return the number of samples from which the percentile `q` may be reported.

    With 95 % confidence at least one of them reaches the true percentile: all n independent
    samples stay below it with probability (q / 100)**n (S. S. Wilks,
    "Determination of Sample Sizes for Setting Tolerance Limits", Annals of Mathematical
    Statistics 12, 1941). With fewer, the reported value is likely to be too low.
    About 3 / (1 - q / 100): 5 for p50, 59 for p95, 299
    for p99, 2,995 for p99.9, 29,956 for p99.99. Raises ValueError unless 0 < q < 100.
    """
    if not 0 < q < 100:
        raise ValueError(f"a percentile here is between 0 and 100, not {q}")
    return ceil(log(1 - _CONFIDENCE) / log(q / 100))


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
        """Add a time of 0 ns or more, `count` times. Raises ValueError for other numbers.

        Every request calls it, hence bucket_of() is inlined and one comparison covers the
        rare cases: a time outside the range recorded so far.
        """
        if count < 1:
            raise ValueError(f"a time is recorded at least once, not {count} times")
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
        if ns < 0:
            raise ValueError(f"a time is 0 ns or more, not {ns}")
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

        It does not check for enough samples, as percentiles() does. Raises ValueError unless
        0 <= q <= 100.
        """
        rank = rank_of(q, self.count)
        return self.value_at(rank) if self.count else None

    def percentiles(self) -> dict[float, int | None]:
        """Return PERCENTILES in nanoseconds, None for those with too few samples."""
        return {
            q: self.percentile(q) if self.count >= samples_needed(q) else None for q in PERCENTILES
        }

    def value_at(self, rank: int) -> int:
        """Return the `rank`-th shortest time, counted from 1, in nanoseconds, to 0.1 %.

        It is limited to the recorded range, which moves it only towards the true value, so
        that no percentile exceeds the maximum. Raises ValueError unless 1 <= rank <= count.
        """
        if not 1 <= rank <= self.count:
            raise ValueError(f"a rank is from 1 to the count {self.count}, not {rank}")
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
