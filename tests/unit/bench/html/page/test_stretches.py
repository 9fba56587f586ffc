from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.html.resample import (
    ENOUGH_FOR_A_RATE,
    ENOUGH_FOR_P99,
    gaps,
    has_p99,
    resample,
)
from simpleipc_cli.bench.timeline import FIRST_WIDTH, Timeline

MS, SECOND = 1_000_000, 1_000_000_000


def timeline_of(moments, failed=()) -> Timeline:
    timeline = Timeline()
    for at in moments:
        timeline.answer(at, MS)
    for at in failed:
        timeline.fail(at)
    return timeline


def spans(run) -> list[tuple[int, int]]:
    return [(stretch.begin, stretch.end) for stretch in run]


moments = st.lists(st.integers(0, 20 * SECOND), max_size=60)


@given(moments, moments, st.integers(0, 60 * SECOND), st.integers(0, 200))
def test_no_count_is_lost_and_stretches_have_no_gaps(answered, failed, more, enough):
    elapsed = max([0, *answered, *failed]) + more
    run = resample(timeline_of(answered, failed), elapsed, enough)
    if not answered and not failed:
        assert run == []
        return
    assert sum(stretch.slot.answered for stretch in run) == len(answered)
    assert sum(stretch.slot.failures for stretch in run) == len(failed)
    assert run[0].begin == 0
    assert all(before.end == after.begin for before, after in pairwise(run))
    assert all(stretch.begin < stretch.end for stretch in run)
    assert run[-1].end == elapsed or (len(run) == 1 and not elapsed)


@pytest.mark.parametrize(
    ("elapsed", "last"),
    [
        (20, (10, 20)),  # the last answer came at the very end: a stretch of no length
        (30, (20, 30)),
        (25, (20, 25)),
        (24, (10, 24)),  # less than half: joined with the one before
        (34, (20, 34)),  # so short a silence is no stretch of its own
        (35, (30, 35)),
        (300, (30, 300)),  # a long silence is one stretch
    ],
)
def test_the_last_stretch_ends_with_the_run(elapsed, last):
    assert FIRST_WIDTH == 10 * MS
    run = resample(timeline_of([0, 10 * MS, 20 * MS]), elapsed * MS, 0)
    assert spans(run)[-1] == tuple(at * MS for at in last)


def test_the_rate_of_the_last_stretch_is_over_its_real_length():
    timeline = timeline_of(range(0, 96 * MS, MS))
    run = resample(timeline, 96 * MS, 0)
    assert [round(stretch.rate) for stretch in run] == [1_000] * 10


def test_the_rate_of_failures_is_separate():
    timeline = timeline_of([0, 1], failed=[2, 3, 4])
    (only,) = resample(timeline, FIRST_WIDTH, 0)
    assert (only.rate, only.failure_rate) == (200, 300)


def test_slots_are_joined_until_they_hold_enough_answers():
    many = timeline_of(range(0, 10 * SECOND, 2 * MS))  # 63 slots of 80
    assert len(resample(many, 10 * SECOND, ENOUGH_FOR_A_RATE)) == 63
    assert len(resample(many, 10 * SECOND, ENOUGH_FOR_P99)) == 31
    few = timeline_of(range(0, 10 * SECOND, 50 * MS))  # 63 slots of 3
    assert len(resample(few, 10 * SECOND, ENOUGH_FOR_P99)) == 31
    fewest = timeline_of(range(0, 10 * SECOND, 500 * MS))
    assert len(resample(fewest, 10 * SECOND, ENOUGH_FOR_P99)) == 16


def test_where_all_requests_failed_failures_are_counted_instead():
    timeline = timeline_of([], failed=range(0, 10 * SECOND, 25 * MS))
    assert len(resample(timeline, 10 * SECOND, ENOUGH_FOR_A_RATE)) == 31


def test_gaps_are_where_nothing_was_answered():
    busy = [at for at in range(0, 10 * SECOND, 2 * MS) if not 4 * SECOND < at < 6 * SECOND]
    run = resample(timeline_of(busy), 12 * SECOND, ENOUGH_FOR_A_RATE)
    (middle, end) = gaps(run)
    width = run[0].end
    assert middle == (pytest.approx(4 * SECOND, abs=width), pytest.approx(6 * SECOND, abs=width))
    assert end == (pytest.approx(10 * SECOND, abs=width), 12 * SECOND)


def test_where_answers_are_rare_an_empty_stretch_is_no_gap():
    rare = timeline_of([*range(0, 10 * SECOND, 900 * MS)])
    assert gaps(resample(rare, 10 * SECOND, 0)) == []


@pytest.mark.parametrize(("apart", "expected"), [(MS, True), (2 * MS, True), (20 * MS, False)])
def test_a_99th_percentile_needs_a_hundred_answers_in_most_stretches(apart, expected):
    timeline = timeline_of(range(0, 10 * SECOND, apart))
    assert has_p99(resample(timeline, 10 * SECOND, ENOUGH_FOR_P99)) == expected


def test_no_stretches_have_no_99th_percentile():
    assert not has_p99([])
