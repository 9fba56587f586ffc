"""A run in stretches of time that hold enough to be drawn.

The slots of a timeline are as narrow as its length allows. A chart wants them wide enough
that what it shows is the server, and not that a slot happened to hold three answers or
four. Pure functions; nothing here draws.
"""

from __future__ import annotations

from typing import NamedTuple

from simpleipc_cli.bench.timeline import TimeBucket, Timeline

ENOUGH_FOR_A_RATE = 20
"""Answers per stretch with which one more or less changes a rate by 5 %."""

P99_BELOW_MAX = 100
"""Answers from which the 99th percentile is not just the longest time; see rank_of()."""

ENOUGH_FOR_P99 = 120
"""Answers per stretch with which nearly all stretches have P99_BELOW_MAX; at will."""

_FEWEST = 24
"""Stretches from which a chart tells something about when; at will."""

_FEWEST_IF_EMPTY = 8
"""The same, where otherwise stretches would hold less than _UNUSUALLY_EMPTY; at will."""

_UNUSUALLY_EMPTY = 5
"""Answers per stretch from which an empty one is a gap: by chance alone it is one in 150."""


class Window(NamedTuple):
    """What ended from `begin` to `end`, in nanoseconds since the run began."""

    begin: int
    end: int
    slot: TimeBucket

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.slot.answered / (self.end - self.begin) * 1e9

    @property
    def failure_rate(self) -> float:
        """Failures a second."""
        return self.slot.failures / (self.end - self.begin) * 1e9


def resample(timeline: Timeline, elapsed: int, enough: int) -> list[Window]:
    """The run from its begin to `elapsed` nanoseconds, without gaps; [] if nothing ended.

    All are equally wide but the last, which ends with the run, and is joined with the one
    before where it would be less than half as wide: the rate of a moment tells nothing.
    Where nothing ended in the last part of the run, the last stretch is that part, however
    long. As far as possible they hold `enough` answers each.
    """
    slots = timeline.slots
    joined = _joined(slots, enough)
    width = joined * timeline.width
    found = []
    for first in range(0, len(slots), joined):
        whole = TimeBucket()
        for slot in slots[first : first + joined]:
            whole.add(slot)
        begin = first * timeline.width
        found.append(Window(begin, begin + width, whole))
    return _ended(found, elapsed, width) if found else []


def gaps(run: list[Window]) -> list[tuple[int, int]]:
    """From when to when nothing was answered, though so much else was that it is no chance."""
    if sum(stretch.slot.answered for stretch in run) < _UNUSUALLY_EMPTY * len(run):
        return []
    found: list[tuple[int, int]] = []
    for stretch in run:
        if stretch.slot.answered:
            continue
        if found and found[-1][1] == stretch.begin:
            found[-1] = (found[-1][0], stretch.end)
        else:
            found.append((stretch.begin, stretch.end))
    return found


def has_p99(run: list[Window]) -> bool:
    """Whether most stretches that have answers have enough of them for a 99th percentile."""
    counts = sorted(stretch.slot.answered for stretch in run if stretch.slot.answered)
    return bool(counts) and counts[len(counts) // 2] >= P99_BELOW_MAX


def _joined(slots: list[TimeBucket], enough: int) -> int:
    """How many slots make a stretch."""
    counts = [slot.answered for slot in slots if slot.answered]
    counts = counts or [slot.failures for slot in slots if slot.failures]
    # Of those that are not empty the median: a stall leaves gaps, and a burst behind them.
    typical = sorted(counts)[len(counts) // 2] if counts else enough
    joined = 1
    while typical * joined < enough and len(slots) >= 2 * joined * _FEWEST:
        joined *= 2
    while typical * joined < _UNUSUALLY_EMPTY and len(slots) >= 2 * joined * _FEWEST_IF_EMPTY:
        joined *= 2
    return joined


def _ended(found: list[Window], elapsed: int, width: int) -> list[Window]:
    """Stretches with the end where it was."""
    *before, last = found
    # Less it cannot be: a run ends after all that ended in it. One of no length is joined.
    if elapsed > last.begin or (before and elapsed == last.begin):
        found.append(Window(last.end, elapsed, TimeBucket()))
        if elapsed - last.end < width / 2:
            found = [*before, last._replace(end=elapsed)]
    if before and found[-1].end - found[-1].begin < width / 2:
        before, last = found[:-2], found[-2]
        whole = TimeBucket()
        whole.add(last.slot)
        whole.add(found[-1].slot)
        found = [*before, Window(last.begin, found[-1].end, whole)]
    return found
