"""Axes of charts: the position of a value, and the ticks.

Positions are percent of an axis, from its left or lower end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count, pairwise
from math import ceil, floor, log10

from simpleipc_cli.bench.conditions import NANOSECONDS
from simpleipc_cli.bench.histogram import highest_percentile, samples_needed

_LOG_FROM = 10
"""Highest over lowest from which times are on a log scale (tunable)."""

_EDGE = 0.05
"""Share of a log scale that is left free at each end (tunable)."""

_MAX_STEPS = 5
_TIME_UNITS = {"h": "h", "min": "m", "s": "s", "ms": "ms", "us": "us", "ns": "ns"}


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `ticks` are values and their labels."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    transform: Callable[[float], float] = float

    @property
    def is_log(self) -> bool:
        return self.transform is log10

    def position(self, value: float) -> float:
        """Return the position of a value in percent; one beyond an end is at that end."""
        low, high = self.transform(self.low), self.transform(self.high)
        return (self.transform(min(max(value, self.low), self.high)) - low) / (high - low) * 100


def percentile_scale(samples: int) -> Scale | None:
    """Return an axis of percentiles on which each further nine has the same width.

    It ends at the last percentile that the samples support, as in the plots of HdrHistogram.
    None with too few samples for a median.
    """
    if samples < samples_needed(50):
        return None
    last = highest_percentile(samples)
    ticks = [(0.0, "0 %"), (50.0, "50 %"), (90.0, "90 %"), (99.0, "99 %")]
    ticks += [(float(f"99.{'9' * n}"), f"99.{'9' * n} %") for n in range(1, 13)]
    return Scale(0, last, tuple(tick for tick in ticks if tick[0] <= last), _nines)


def latency_scale(lowest: float, highest: float) -> Scale:
    """Return an axis for times from `lowest` to `highest` nanoseconds.

    On a log scale if the highest is at least ten times the lowest, else linear from 0.
    """
    if highest < _LOG_FROM * lowest:
        return _from_zero(highest, _short_ns)
    lowest = max(lowest, 1)  # log(0) is undefined, and times are whole nanoseconds
    highest = max(highest, _LOG_FROM * lowest)
    edge = (highest / lowest) ** _EDGE
    low, high = lowest / edge, highest * edge
    for marks, step in chain([((1, 2, 5), 1), ((1, 3), 1)], (((1,), step) for step in count(1))):
        powers = range(0, floor(log10(high)) + 1, step)
        ticks = [mark * 10**power for power in powers for mark in marks]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _MAX_STEPS + 1:
            break
    return Scale(low, high, tuple((tick, _short_ns(tick)) for tick in ticks), log10)


def rate_scale(highest: float) -> Scale:
    """Return an axis for rates per second, from 0."""
    return _from_zero(highest, lambda rate: f"{rate:,.0f}" if rate >= 1000 else f"{rate:g}")


def time_scale(end: int) -> Scale:
    """Return an axis from 0 to exactly `end` nanoseconds, 1 or more."""
    units = [(name, NANOSECONDS[unit]) for name, unit in _TIME_UNITS.items()]
    name, unit = next(((name, unit) for name, unit in units if end >= 2 * unit), units[-1])
    step = _round_step(end / unit)
    numbers = [number * step for number in range(floor(end / unit / step + 1e-9) + 1)]
    return Scale(0, end, tuple((number * unit, f"{number:g} {name}") for number in numbers))


def spread(positions: list[float], gap: float) -> list[float]:
    """Move positions in percent so that no two are closer than `gap`: for labels beside lines.

    They keep their order; of equal ones the first is the highest.
    """
    order = sorted(range(len(positions)), key=lambda index: (positions[index], -index))
    moved = list(positions)
    for below, index in pairwise(order):
        moved[index] = max(moved[index], moved[below] + gap)
    highest = 100.0
    for index in reversed(order):
        moved[index] = min(moved[index], highest)
        highest = moved[index] - gap
    return moved


def _nines(q: float) -> float:
    return -log10(1 - q / 100)


def _from_zero(highest: float, name: Callable[[float], str]) -> Scale:
    """Return an axis from 0 to a round number."""
    highest = max(highest, 1e-6)
    step = _round_step(highest)
    ticks = [number * step for number in range(ceil(highest / step - 1e-9) + 1)]
    return Scale(0, ticks[-1], tuple((tick, name(tick)) for tick in ticks))


def _round_step(highest: float) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that gives few ticks."""
    power = floor(log10(highest / _MAX_STEPS))
    steps = [float(f"{mark}e{power + more}") for more in (0, 1) for mark in (1, 2, 5)]
    return next(step for step in steps if step * _MAX_STEPS >= highest * (1 - 1e-9))


def _short_ns(ns: float) -> str:
    """Format a round time briefly: "50 us"."""
    if not ns:
        return "0"
    for unit in ("s", "ms", "us"):
        if ns >= NANOSECONDS[unit]:
            return f"{ns / NANOSECONDS[unit]:g} {unit}"
    return f"{ns:g} ns"
