"""Axes of charts: where a value lies, and which values are written beside it.

Pure functions on numbers. Nothing here draws; places are percent of an axis, 0 being its
left or lower end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as counting
from math import log10

from simpleipc_cli.bench.histogram import samples_needed
from simpleipc_cli.bench.units import NANOSECONDS

_LOG_FROM = 10
"""Highest over lowest from which times are on a log scale: below, people count. At will."""

_EDGE = 0.05
"""Share of a log scale that is left free at each end, at will."""

_MAX_TICKS = 6
_MARKS = ((1, 2, 5), (1, 3), (1,))
_TIME_UNITS = ((1, "s"), (60, "min"), (3600, "h"))
_CLOCK = (
    *((1, 1), (2, 1), (5, 1), (10, 1), (20, 1), (30, 1)),
    *((1, 60), (2, 60), (5, 60), (10, 60), (20, 60), (30, 60)),
    *((1, 3600), (2, 3600), (6, 3600), (12, 3600)),
)
"""Steps between moments in seconds, as number and unit: people count those not in tens."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, and the values written beside it with their names."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in percent; one beyond an end lies at that end."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return log10(value / self.low) / log10(self.high / self.low) * 100
        return (value - self.low) / (self.high - self.low) * 100


@dataclass(frozen=True, slots=True)
class PercentileScale:
    """The axis of HdrHistogram's plots: as much room for each further nine.

    A percentile q lies at log10(1 / (1 - q / 100)), up to the last one that the samples
    support. `ticks` are percentiles and their names.
    """

    last: float
    """In percent, below 100."""
    ticks: tuple[tuple[float, str], ...]

    def place(self, q: float) -> float:
        """Where a percentile lies, in percent; one beyond `last` lies there."""
        return _nines(min(q, self.last)) / _nines(self.last) * 100


def percentile_scale(count: int) -> PercentileScale | None:
    """The axis for so many samples; None if they do not even support the median."""
    if count < samples_needed(50):
        return None
    # By halving: samples_needed() alone knows what is enough.
    low, high = 0.0, 15.0  # nines; 15 are as many as a float can tell from 100 %
    for _ in range(50):
        middle = (low + high) / 2
        if samples_needed(_percentile(middle)) <= count:
            low = middle
        else:
            high = middle
    last = _percentile(low)
    return PercentileScale(last, tuple(_percentile_ticks(last)))


def latency_scale(lowest: float, highest: float) -> Scale:
    """An axis for times from `lowest` to `highest` nanoseconds.

    On a log scale where the highest is ten times the lowest or more, else from 0 up.
    """
    if highest < _LOG_FROM * lowest:
        return _linear(highest, _short_ns)
    lowest = max(lowest, 1)  # the log of 0 is nowhere, and there is nothing below 1 ns
    highest = max(highest, _LOG_FROM * lowest)
    edge = (highest / lowest) ** _EDGE
    low, high = lowest / edge, highest * edge
    for step in counting(1):
        for marks in _MARKS if step == 1 else _MARKS[-1:]:
            ticks = list(_log_marks(marks, step, low, high))
            if len(ticks) <= _MAX_TICKS:
                return Scale(low, high, tuple((mark, _short_ns(mark)) for mark in ticks), True)
    raise AssertionError


def rate_scale(highest: float) -> Scale:
    """An axis for rates per second, from 0 up."""
    return _linear(highest, lambda rate: f"{rate:,.0f}" if rate >= 1000 else f"{rate:g}")


def time_scale(end: int) -> Scale:
    """An axis for the time from 0 to `end` nanoseconds, ending there and at no round number."""
    end = max(end, 1)
    second = NANOSECONDS["s"]
    if end <= second:
        step = _round_step(end)
        ticks = _steps(step, end)
        return Scale(0, end, tuple((at, _short_ns(at)) for at in ticks))
    number, unit = next(
        ((number, unit) for number, unit in _clock() if end <= _MAX_TICKS * number * unit * second)
    )
    name = next(name for seconds, name in _TIME_UNITS if seconds == unit)
    ticks = _steps(number * unit * second, end)
    return Scale(0, end, tuple((at, f"{at / unit / second:g} {name}") for at in ticks))


def spread(places: list[float], gap: float) -> list[float]:
    """Places in percent, moved so that no two are closer than `gap`: for names beside lines.

    They keep their order, of equal ones the first being the highest, stay between 0 and
    100 as far as there is room, and move about as little as that allows.
    """
    order = sorted(range(len(places)), key=lambda index: (places[index], -index))
    moved = [places[index] for index in order]
    for _ in range(100):  # each round pushes every pair apart by what is missing; soon done
        for index in range(len(moved) - 1):
            if (missing := gap - (moved[index + 1] - moved[index])) > 0:
                moved[index] -= missing / 2
                moved[index + 1] += missing / 2
        moved = [
            min(max(place, index * gap), 100 - (len(moved) - 1 - index) * gap)
            for index, place in enumerate(moved)
        ]
    return [moved[order.index(index)] for index in range(len(places))]


def _nines(q: float) -> float:
    return -log10(1 - q / 100)


def _percentile(nines: float) -> float:
    # Never 0, for which samples_needed() has no answer.
    return max(float(100 * (1 - 10**-nines)), 1e-9)


def _percentile_ticks(last: float) -> Iterator[tuple[float, str]]:
    """0, 50, 90, 99 and so on, one nine more each."""
    yield 0, "0 %"
    yield 50, "50 %"
    for nines in range(1, 15):
        # By way of text: 99.9 is to be the same float as in PERCENTILES.
        q = float("90" if nines == 1 else f"99.{'9' * (nines - 2)}")
        if q > last:
            return
        yield q, f"{q:.{max(0, nines - 2)}f} %"


def _linear(highest: float, name: Callable[[float], str]) -> Scale:
    """From 0 to a round number."""
    highest = max(highest, 1e-6)
    step = _round_step(highest)
    ticks = list(_steps(step, highest))
    if ticks[-1] < highest:
        ticks.append(ticks[-1] + step)
    return Scale(0, ticks[-1], tuple((at, name(at)) for at in ticks))


def _round_step(highest: float) -> float:
    """The smallest step of 1, 2 or 5 times a power of ten that is not too small."""
    power = 10.0 ** (len(f"{highest:.0f}") - 3) if highest >= 1 else 1e-7
    while True:
        for mark in (1, 2, 5):
            if mark * power * (_MAX_TICKS - 1) >= highest:
                return mark * power
        power *= 10


def _steps(step: float, end: float) -> Iterator[float]:
    """0, step, and so on, up to `end`."""
    return (number * step for number in range(int(end / step * (1 + 1e-9)) + 1))


def _log_marks(marks: tuple[int, ...], step: int, lowest: float, highest: float) -> Iterator[int]:
    """Whole numbers such as 1, 2, 5, 10, 20, 50 from `lowest` to `highest`."""
    for power in counting(0, step):
        for mark in marks:
            if (value := mark * 10**power) > highest:
                return
            if value >= lowest:
                yield value


def _clock() -> Iterator[tuple[int, int]]:
    """Number and unit of steps in time, ever longer."""
    yield from _CLOCK
    for days in counting():
        yield 24 << days, 3600


def _short_ns(ns: float) -> str:
    """A round time as short as can be: "50 us"."""
    if not ns:
        return "0"
    for unit in ("s", "ms", "us"):
        if ns >= NANOSECONDS[unit]:
            return f"{ns / NANOSECONDS[unit]:g} {unit}"
    return f"{ns:g} ns"
