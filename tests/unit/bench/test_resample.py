from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.histogram import FIRST_WIDTH, Timeline, resample

MS, SECOND = 1_000_000, 1_000_000_000


def timeline_of(moments, failed=()) -> Timeline:
    timeline = Timeline()
    for at in moments:
        timeline.bucket_at(at).times.record(MS)
    for at in failed:
        timeline.bucket_at(at).failures += 1
    return timeline


moments = st.lists(st.integers(0, 20 * SECOND), max_size=60)


@given(moments, moments, st.integers(0, 60 * SECOND), st.integers(0, 200))
def test_windows_lose_no_count_and_have_no_gaps(answered, failed, more, enough):
    elapsed = max([0, *answered, *failed]) + more
    windows = resample(timeline_of(answered, failed), elapsed, enough)
    if not answered and not failed:
        assert windows == []
        return
    assert sum(window.bucket.times.count for window in windows) == len(answered)
    assert sum(window.bucket.failures for window in windows) == len(failed)
    assert windows[0].begin == 0
    assert all(before.end == after.begin for before, after in pairwise(windows))
    assert all(window.begin < window.end for window in windows)
    assert windows[-1].end >= elapsed


@pytest.mark.parametrize(
    ("elapsed", "last"),
    [
        (30, (20, 30)),
        (25, (10, 25)),  # incomplete: joined with the one before
        (34, (20, 34)),
        (40, (30, 40)),
        (300, (290, 300)),
        (15, (20, 30)),  # failures may end after the run
    ],
)
def test_the_last_window_ends_with_the_run(elapsed, last):
    assert FIRST_WIDTH == 10 * MS
    windows = resample(timeline_of([0, 10 * MS], failed=[20 * MS]), elapsed * MS, 0)
    assert windows[-1][:2] == tuple(at * MS for at in last)


def test_the_rate_of_the_last_window_is_computed_with_its_real_length():
    windows = resample(timeline_of(range(0, 96 * MS, MS)), 96 * MS, 0)
    assert [round(window.rate(window.bucket.times.count)) for window in windows] == [1_000] * 9


def test_buckets_are_joined_until_they_hold_enough_requests():
    many = timeline_of(range(0, 10 * SECOND, 2 * MS))  # 63 buckets of 80
    assert len(resample(many, 10 * SECOND, 20)) == 62
    assert len(resample(many, 10 * SECOND, 120)) == 31
    few = timeline_of([], failed=range(0, 10 * SECOND, 50 * MS))  # 63 buckets of 3
    assert len(resample(few, 10 * SECOND, 120)) == 31
