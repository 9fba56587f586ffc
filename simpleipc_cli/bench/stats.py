"""What a report says of one histogram: its figures, and the rows of a chart in text.

Pure functions on numbers. Nothing here draws, and nothing knows what was measured.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from simpleipc_cli.bench.histogram import HIGHEST, Histogram, percentile_name

# Tenths of a power of ten at which rows may begin, from fine to coarse: round numbers, in
# steps as even on a log scale as round numbers are.
_ROUND = (
    (10, 12, 15, 20, 25, 30, 40, 50, 60, 80),
    (10, 15, 20, 30, 50, 70),
    (10, 20, 50),
    (10, 30),
    (10,),
)
_STEPS = (1, 2, 5)
_LINEAR_BELOW = 10  # highest over lowest; within a power of ten people count, at will


@dataclass(frozen=True, slots=True)
class SummaryStats:
    """What is said of one histogram. Times are in nanoseconds, None what it cannot give."""

    count: int
    clamped: int
    min: int | None
    mean: float | None
    stdev: float | None
    percentiles: dict[float, int | None]
    max: int | None

    @classmethod
    def of(cls, histogram: Histogram) -> SummaryStats:
        """The figures of a histogram, as they are now."""
        return cls(
            count=histogram.count,
            clamped=histogram.clamped,
            min=histogram.min,
            mean=histogram.mean,
            stdev=histogram.stdev,
            percentiles=histogram.percentiles(),
            max=histogram.max,
        )

    def by_name(self, prefix: str = "") -> dict[str, float | int | None]:
        """By the names that verdict.py knows; `prefix` is one of its, such as "connect."."""
        figures: dict[str, float | int | None] = {
            "min": self.min,
            "mean": self.mean,
            "stddev": self.stdev,
            **{percentile_name(q): value for q, value in self.percentiles.items()},
            "max": self.max,
        }
        return {prefix + name: value for name, value in figures.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a histogram in text: how many times `low <= time < high`, in nanoseconds."""

    low: int
    high: int
    count: int


def text_histogram(histogram: Histogram, rows: int) -> list[Row]:
    """At most `rows` rows, one below the other, that hold every time; [] if there is none.

    They begin and end at round numbers: equally wide where the longest time is less than
    ten times the shortest, else on a log scale. A time within 0.1 % of a bound may be
    counted on its other side. Raises ValueError below 2 rows.
    """
    if rows < 2:
        raise ValueError(f"a histogram has at least 2 rows, not {rows}")
    if histogram.min is None or histogram.max is None:
        return []
    bounds = _bounds(histogram.min, histogram.max, rows)
    counts = [0] * (len(bounds) - 1)
    for low, high, count in histogram.buckets():
        middle = min(max((low + high) // 2, histogram.min), histogram.max)
        counts[bisect_right(bounds, middle) - 1] += count
    return [Row(*row) for row in zip(bounds, bounds[1:], counts, strict=False)]


def _bounds(lowest: int, highest: int, rows: int) -> list[int]:
    """Where rows begin, and where the last one ends."""
    linear = highest < _LINEAR_BELOW * lowest
    for scale in _linear_scales(lowest, highest) if linear else _log_scales():
        first = bisect_right(scale, lowest) - 1
        last = bisect_right(scale, highest)
        if last < len(scale) and last - first <= rows:
            break
    return scale[first : last + 1]


def _log_scales() -> Iterator[list[int]]:
    """All bounds there could be, on ever coarser scales; each begins with 0."""
    powers = range(len(str(HIGHEST)) + 1)
    for marks in _ROUND:
        # Only whole nanoseconds: below 10 ns a mark such as 1.5 is none.
        yield [0, *(mark * 10**n // 10 for n in powers for mark in marks if not mark * 10**n % 10)]
    for step in powers[2:]:
        yield [0, *(10**n for n in range(0, len(powers) + step, step))]


def _linear_scales(lowest: int, highest: int) -> Iterator[list[int]]:
    """Bounds from just below the lowest on, with ever wider steps.

    None narrower than what three digits tell apart: that is what format_ns() shows.
    """
    finest = max(0, len(str(highest)) - 3)
    for n in range(finest, len(str(HIGHEST)) + 1):
        for mark in _STEPS:
            step = mark * 10**n
            start = lowest // step * step
            yield list(range(start, highest + 2 * step, step))
