"""Join the buckets of a timeline into windows that hold enough answers for a chart.

The buckets of a timeline are as narrow as its length allows. In a chart they must be wide
enough to show the server and not chance, such as three answers or four. Pure functions.
"""

from __future__ import annotations

from typing import NamedTuple

from simpleipc_cli.bench.timeline import TimeBucket, Timeline

ENOUGH_FOR_A_RATE = 20
"""Answers per window with which one more or less changes a rate by 5 %."""

P99_BELOW_MAX = 100
"""Answers from which the 99th percentile differs from the maximum; see rank_of()."""

ENOUGH_FOR_P99 = 120
"""Answers per window with which nearly all windows have P99_BELOW_MAX (tunable)."""

_MIN_WINDOWS = 24
"""Windows that a chart over time should have at least (tunable)."""

_MIN_WINDOWS_IF_SPARSE = 8
"""The same, if windows would otherwise hold less than _MIN_FOR_GAPS (tunable)."""

_MIN_FOR_GAPS = 5
"""Answers per window from which an empty one is a gap: the chance of it is 1 in 150."""


class Window(NamedTuple):
    """The requests that ended from `begin` to `end`, in nanoseconds since the run began."""

    begin: int
    end: int
    bucket: TimeBucket

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.bucket.answered / (self.end - self.begin) * 1e9

    @property
    def failure_rate(self) -> float:
        """Failures per second."""
        return self.bucket.failures / (self.end - self.begin) * 1e9


def resample(timeline: Timeline, elapsed: int, enough: int) -> list[Window]:
    """Return adjoining windows from 0 to `elapsed` nanoseconds; [] if no request ended.

    All have the same width except the last, which ends with the run. It is joined with the
    one before if it would be less than half as wide, because the rate of a moment is
    meaningless. If no request ended in the last part of the run, that part is one window. If
    possible, each window holds `enough` answers.
    """
    buckets = timeline.buckets
    joined = _join_count(buckets, enough)
    width = joined * timeline.width
    found = []
    for first in range(0, len(buckets), joined):
        whole = TimeBucket()
        for bucket in buckets[first : first + joined]:
            whole.merge(bucket)
        begin = first * timeline.width
        found.append(Window(begin, begin + width, whole))
    return _end_at(found, elapsed, width) if found else []


def gaps(run: list[Window]) -> list[tuple[int, int]]:
    """Return the spans without answers, if there are too many answers for chance."""
    if sum(window.bucket.answered for window in run) < _MIN_FOR_GAPS * len(run):
        return []
    found: list[tuple[int, int]] = []
    for window in run:
        if window.bucket.answered:
            continue
        if found and found[-1][1] == window.begin:
            found[-1] = (found[-1][0], window.end)
        else:
            found.append((window.begin, window.end))
    return found


def has_p99(run: list[Window]) -> bool:
    """Return whether most windows with answers have enough for a 99th percentile."""
    counts = sorted(window.bucket.answered for window in run if window.bucket.answered)
    return bool(counts) and counts[len(counts) // 2] >= P99_BELOW_MAX


def _join_count(buckets: list[TimeBucket], enough: int) -> int:
    """Return how many buckets form a window."""
    counts = [bucket.answered for bucket in buckets if bucket.answered]
    counts = counts or [bucket.failures for bucket in buckets if bucket.failures]
    # The median of those with answers: a stall leaves gaps, followed by a burst.
    typical = sorted(counts)[len(counts) // 2] if counts else enough
    joined = 1
    while typical * joined < enough and len(buckets) >= 2 * joined * _MIN_WINDOWS:
        joined *= 2
    while typical * joined < _MIN_FOR_GAPS and len(buckets) >= 2 * joined * _MIN_WINDOWS_IF_SPARSE:
        joined *= 2
    return joined


def _end_at(found: list[Window], elapsed: int, width: int) -> list[Window]:
    """End the last window where the run ended."""
    *before, last = found
    # A run ends after all its requests. A window without length is joined.
    if elapsed > last.begin or (before and elapsed == last.begin):
        found.append(Window(last.end, elapsed, TimeBucket()))
        if elapsed - last.end < width / 2:
            found = [*before, last._replace(end=elapsed)]
    if before and found[-1].end - found[-1].begin < width / 2:
        before, last = found[:-2], found[-2]
        whole = TimeBucket()
        whole.merge(last.bucket)
        whole.merge(found[-1].bucket)
        found = [*before, Window(last.begin, found[-1].end, whole)]
    return found
