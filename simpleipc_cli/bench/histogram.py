"""Many times in fixed memory: a histogram with log-linear buckets, and its percentiles.

Knows numbers only: no clock, no files, no idea of what was measured. All times are whole
nanoseconds. Nothing here locks: one histogram belongs to one thread, and `merge()` joins
what the threads have.

The method is Gil Tene's HdrHistogram (https://github.com/HdrHistogram/HdrHistogram,
AbstractHistogram.java, "countsArrayIndex"): each power of two is divided into the same
number of buckets of equal width. It keeps 10 bits of a value, 512 buckets for each power
of two, where HdrHistogram at three digits keeps 11, and instead of a bucket's highest
value it reports the middle one.

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

from simpleipc_cli.bench import fields

PERCENTILES: tuple[float, ...] = (50, 75, 90, 95, 99, 99.9, 99.99)
"""What a report gives, in percent."""

_KEPT_BITS = 10
_OCTAVE_BITS = _KEPT_BITS - 1  # the first bit kept is always set and tells nothing

HIGHEST = (1 << 47) - 1
"""The longest time that is told apart, in nanoseconds: 39 hours. Longer ones count as this."""

BUCKETS = ((HIGHEST.bit_length() - _KEPT_BITS) << _OCTAVE_BITS) + (1 << _KEPT_BITS)
"""How many buckets there are: 19,968, however long a run is."""

_CONFIDENCE = 0.95


def bucket_of(ns: int) -> int:
    """The bucket of a time from 0 to HIGHEST, counted from 0."""
    shift = ns.bit_length() - _KEPT_BITS
    return (shift << _OCTAVE_BITS) + (ns >> shift) if shift > 0 else ns


def bucket_bounds(index: int) -> tuple[int, int]:
    """The lowest and the highest time in a bucket, both in it."""
    if index < 1 << _KEPT_BITS:
        return index, index
    shift = (index >> _OCTAVE_BITS) - 1
    lowest = (index - (shift << _OCTAVE_BITS)) << shift
    return lowest, lowest + (1 << shift) - 1


def percentile_name(q: float) -> str:
    """99.9 is "p99.9", 50 is "p50"."""
    return f"p{int(q) if q == int(q) else q}"


def rank_of(q: float, count: int) -> int:
    """Which of `count` sorted values, counted from 1, is the percentile `q` of them.

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
    """How many samples there must be before the percentile `q` may be reported.

    So many that with 95 % confidence one of them at least reaches the true percentile:
    all n of independent samples stay below it with probability (q / 100)**n (S. S. Wilks,
    "Determination of Sample Sizes for Setting Tolerance Limits", Annals of Mathematical
    Statistics 12, 1941). With fewer, what would be printed is likely to be too good, and
    nothing in the sample could tell. About 3 / (1 - q / 100): 5 for p50, 59 for p95, 299
    for p99, 2,995 for p99.9, 29,956 for p99.99. Raises ValueError unless 0 < q < 100.
    """
    if not 0 < q < 100:
        raise ValueError(f"samples are needed for percentiles between 0 and 100, not {q}")
    return ceil(log(1 - _CONFIDENCE) / log(q / 100))


class Histogram:
    """How often each time was seen, to 0.1 %, with exact count, sums, lowest and highest.

    Memory: one list of BUCKETS counters, 156 KiB, and at most 32 bytes for each counter
    that is in use; below 800 KiB in all, however many times are recorded. (The sum of
    squares grows by a bit whenever the count doubles.)
    """

    __slots__ = ("_counts", "_highest", "_lowest", "clamped", "count", "sum_of_squares", "total")

    def __init__(self) -> None:
        """An empty one."""
        self._counts = [0] * BUCKETS
        self._lowest = HIGHEST + 1
        self._highest = -1
        self.count = 0
        """How many times were recorded."""
        self.clamped = 0
        """How many of them were longer than HIGHEST, and were recorded as HIGHEST."""
        self.total = 0
        """The sum of all times, in nanoseconds; exact."""
        self.sum_of_squares = 0
        """In square nanoseconds; exact, and soon above 2**53."""

    def record(self, ns: int, count: int = 1) -> None:
        """Add a time from 0 ns up, `count` times. Raises ValueError if one is out of range.

        On the path of every request, hence bucket_of() written out, and one comparison for
        all that is rare: a value outside what was seen so far.
        """
        if count < 1:
            raise ValueError(f"a time is recorded once or more often, not {count} times")
        if not self._lowest <= ns <= self._highest:
            ns = self._widen(ns, count)
        shift = ns.bit_length() - _KEPT_BITS
        self._counts[(shift << _OCTAVE_BITS) + (ns >> shift) if shift > 0 else ns] += count
        self.count += count
        product = ns * count
        self.total += product
        self.sum_of_squares += ns * product

    def _widen(self, ns: int, count: int) -> int:
        """Take a new lowest or highest time; the time that is to be recorded for it."""
        if ns < 0:
            raise ValueError(f"a time is 0 ns or more, not {ns}")
        if ns > HIGHEST:
            self.clamped += count
            ns = HIGHEST
        self._lowest = min(self._lowest, ns)
        self._highest = max(self._highest, ns)
        return ns

    def merge(self, other: Histogram) -> None:
        """Add all that `other` has seen; the same as recording it here."""
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
        """The shortest time, in nanoseconds, exact; None if there is none."""
        return self._lowest if self.count else None

    @property
    def max(self) -> int | None:
        """The longest time, in nanoseconds, exact up to HIGHEST; None if there is none."""
        return self._highest if self.count else None

    @property
    def mean(self) -> float | None:
        """In nanoseconds, rounded once, from exact sums; None if there is no time."""
        return self.total / self.count if self.count else None

    @property
    def stdev(self) -> float | None:
        """The sample standard deviation (over n - 1), in nanoseconds; None below two times.

        In whole numbers up to the last division: in floats the difference of two such
        sums would lose what it is about.
        """
        if self.count < 2:
            return None
        squares = self.count * self.sum_of_squares - self.total * self.total
        return sqrt(squares / (self.count * (self.count - 1)))

    def percentile(self, q: float) -> int | None:
        """The time, in nanoseconds, that `q` percent do not exceed, to 0.1 %; see rank_of().

        None if there is no time. That there are enough of them is not asked here: see
        percentiles(). Raises ValueError unless 0 <= q <= 100.
        """
        rank = rank_of(q, self.count)
        return self.value_at(rank) if self.count else None

    def percentiles(self) -> dict[float, int | None]:
        """PERCENTILES in nanoseconds; None for those that so few samples don't support."""
        return {
            q: self.percentile(q) if self.count >= samples_needed(q) else None for q in PERCENTILES
        }

    def value_at(self, rank: int) -> int:
        """The `rank`-th shortest time, counted from 1, in nanoseconds, to 0.1 %.

        Never outside of what was seen, so that no percentile exceeds the maximum; that
        moves it only towards the true value. Raises ValueError unless 1 <= rank <= count.
        """
        if not 1 <= rank <= self.count:
            raise ValueError(f"there is no time number {rank} among {self.count}")
        first = bucket_of(self._lowest)
        used = self._counts[first : bucket_of(self._highest) + 1]
        low, high = bucket_bounds(first + bisect_left(list(accumulate(used)), rank))
        return min(max((low + high) // 2, self._lowest), self._highest)

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """Lowest time, highest time and count of every bucket that is in use, in order."""
        for index, count in self._used():
            yield *bucket_bounds(index), count

    def _used(self) -> Iterator[tuple[int, int]]:
        """Index and count of the buckets in use, in order."""
        if self.count:
            first, last = bucket_of(self._lowest), bucket_of(self._highest)
            for index in range(first, last + 1):
                if count := self._counts[index]:
                    yield index, count

    def to_json(self) -> dict[str, object]:
        """All of it, for json.dumps(). Times are whole nanoseconds.

        `buckets` lists [lowest, highest, count] of those in use, so that other programs
        need not know how they are made. `total` and `sum_of_squares` are whole numbers that
        may exceed 2**53, which some readers of JSON round; Python's does not.
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
    def from_json(cls, data: object) -> Histogram:
        """What to_json() gave. Raises ValueError that says what is wrong with it.

        Numbers that contradict each other are refused; fields it doesn't know are left alone.
        """
        read = fields.mapping(data, "the histogram")
        histogram = cls()
        for entry in fields.items(read, "buckets"):
            _read_bucket(entry, histogram._counts)
        counted = sum(histogram._counts)
        histogram.count = fields.whole(read, "count")
        if histogram.count != counted:
            raise ValueError(f"count is {histogram.count}, but the buckets hold {counted}")
        histogram.clamped = fields.whole(read, "clamped")
        histogram.total = fields.whole(read, "total")
        histogram.sum_of_squares = fields.whole(read, "sum_of_squares")
        lowest = fields.whole_or_none(read, "min")
        highest = fields.whole_or_none(read, "max")
        if (lowest is None) != (not counted) or (highest is None) != (not counted):
            raise ValueError(f"min is {lowest} and max is {highest}, with a count of {counted}")
        if lowest is not None and highest is not None:
            histogram._lowest = lowest
            histogram._highest = highest
        histogram._check()
        return histogram

    def _check(self) -> None:
        """Raise ValueError if the parts, as they were read, cannot come from one set of times."""
        occupied = [index for index, count in enumerate(self._counts) if count]
        if occupied:
            # Before any use of min and max: they say where the buckets in use are.
            for name, ns, index in (
                ("min", self._lowest, occupied[0]),
                ("max", self._highest, occupied[-1]),
            ):
                low, high = bucket_bounds(index)
                if not low <= ns <= high:
                    raise ValueError(f"{name} is {ns}, outside of its bucket, {low} to {high}")
            if self._lowest > self._highest:
                raise ValueError(f"min is {self._lowest}, above max, {self._highest}")
        if self.clamped > (self._counts[-1] if self._highest == HIGHEST else 0):
            raise ValueError(f"clamped is {self.clamped}, more than there are at {HIGHEST} ns")
        least = sum(low * count for low, _, count in self.buckets())
        most = sum(high * count for _, high, count in self.buckets())
        if not least <= self.total <= most:
            raise ValueError(f"total is {self.total}, but by the buckets {least} to {most}")
        least = sum(low * low * count for low, _, count in self.buckets())
        most = sum(high * high * count for _, high, count in self.buckets())
        # The second: no set of times has a smaller sum of squares for its total (Cauchy).
        squares = self.sum_of_squares
        if not least <= squares <= most or self.total**2 > self.count * squares:
            raise ValueError(f"sum_of_squares is {squares}, which total and buckets rule out")


def _read_bucket(entry: object, counts: list[int]) -> None:
    """Put one [lowest, highest, count] where it belongs. Raises ValueError if it cannot be."""
    low, high, count = fields.whole_numbers(entry, 3, "a bucket")
    if low > HIGHEST or bucket_bounds(bucket_of(low)) != (low, high):
        raise ValueError(f"there is no bucket from {low} to {high} ns")
    if not count:
        raise ValueError(f"the bucket from {low} to {high} ns is empty")
    if counts[bucket_of(low)]:
        raise ValueError(f"the bucket from {low} to {high} ns is there twice")
    counts[bucket_of(low)] = count
