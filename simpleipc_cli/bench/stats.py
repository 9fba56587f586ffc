"""The figures of one histogram, and the rows of its chart in text.

Pure functions on numbers: knows neither how they are drawn nor what was measured.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from simpleipc_cli.bench.histogram import HIGHEST, Histogram, percentile_name

# Tenths of a power of ten at which rows may begin, from fine to coarse: round numbers in
# steps that are nearly even on a log scale.
_ROUND = (
    (10, 12, 15, 20, 25, 30, 40, 50, 60, 80),
    (10, 15, 20, 30, 50, 70),
    (10, 20, 50),
    (10, 30),
    (10,),
)
_STEPS = (1, 2, 5)
_LINEAR_BELOW = 10  # highest over lowest, below which the rows are equally wide (tunable)


@dataclass(frozen=True, slots=True)
class SummaryStats:
    """The figures of one histogram, in nanoseconds; None if not available."""

    count: int
    clamped: int
    min: int | None
    mean: float | None
    stdev: float | None
    percentiles: dict[float, int | None]
    max: int | None

    @classmethod
    def of(cls, histogram: Histogram) -> SummaryStats:
        """Take the figures of a histogram."""
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
        """Return the figures under the names of conditions.py, with a prefix like "connect."."""
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
    """One line of a histogram in text: the count of times `low <= time < high`, in ns."""

    low: int
    high: int
    count: int


def text_histogram(histogram: Histogram, rows: int) -> list[Row]:
    """Return at most `rows` adjoining rows that hold all times; [] without times.

    They begin and end at round numbers: equally wide if the longest time is less than ten
    times the shortest, else on a log scale. A time within 0.1 % of a bound may be counted on
    its other side. Raises ValueError below 2 rows.
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
    """Return where the rows begin and where the last one ends."""
    is_linear = highest < _LINEAR_BELOW * lowest
    for scale in _linear_scales(lowest, highest) if is_linear else _log_scales():
        first = bisect_right(scale, lowest) - 1
        last = bisect_right(scale, highest)
        if last < len(scale) and last - first <= rows:
            break
    return scale[first : last + 1]


def _log_scales() -> Iterator[list[int]]:
    """Yield all possible bounds on ever coarser scales, each beginning with 0."""
    powers = range(len(str(HIGHEST)) + 1)
    for marks in _ROUND:
        # Whole nanoseconds only: below 10 ns there is no mark such as 1.5.
        yield [0, *(mark * 10**n // 10 for n in powers for mark in marks if not mark * 10**n % 10)]
    for step in powers[2:]:
        yield [0, *(10**n for n in range(0, len(powers) + step, step))]


def _linear_scales(lowest: int, highest: int) -> Iterator[list[int]]:
    """Yield bounds from just below the lowest time on, with ever wider steps.

    The finest step is one that the three digits of format_ns() show.
    """
    finest = max(0, len(str(highest)) - 3)
    for n in range(finest, len(str(HIGHEST)) + 1):
        for mark in _STEPS:
            step = mark * 10**n
            start = lowest // step * step
            yield list(range(start, highest + 2 * step, step))
