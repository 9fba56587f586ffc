from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simpleipc_cli.bench.conditions import KINDS, PARTS
from simpleipc_cli.bench.histogram import (
    PERCENTILES,
    Histogram,
    bucket_bounds,
    bucket_of,
    has_few_beyond,
    percentile_name,
    rank_of,
    samples_needed,
)

MS = 1_000_000
HIGHEST = (1 << 47) - 1  # 39 hours
BUCKETS = 19_968

# As many short as long times: integers() by itself seldom gives a long one.
times = st.integers(1, 47).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))
samples = st.lists(times, max_size=60)


def histogram_of(values) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def merged(*histograms: Histogram) -> Histogram:
    result = Histogram()
    for histogram in histograms:
        result.merge(histogram)
    return result


# Buckets


def test_a_bucket_contains_both_its_bounds_and_not_their_neighbours():
    for index in range(0, BUCKETS, 97):
        low, high = bucket_bounds(index)
        assert bucket_of(low) == bucket_of(high) == index
        assert bucket_of(high + 1) == index + 1
        assert low == 0 or bucket_of(low - 1) == index - 1


def test_the_buckets_have_no_gap_from_0_to_the_highest_time():
    bounds = [bucket_bounds(index) for index in range(BUCKETS)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == HIGHEST
    assert all(before[1] + 1 == after[0] for before, after in pairwise(bounds))


# The error


@given(times, times, times)
@example(0, 1024 * 3 - 1, HIGHEST)
def test_a_single_time_is_reported_to_one_part_in_1024(shorter, ns, longer):
    low, value, high = sorted((shorter, ns, longer))
    reported = histogram_of([low, value, high]).percentile(50)
    assert abs(reported - value) <= value / 1024


@pytest.mark.parametrize("end", [0, 1], ids=["lowest", "highest"])
def test_the_ends_of_buckets_where_errors_are_largest_stay_below_one_part_in_a_thousand(end):
    for index in range(0, BUCKETS, 97):
        ns = bucket_bounds(index)[end]
        # Between other times, so that neither the minimum nor the maximum is this time.
        reported = histogram_of([0, ns, HIGHEST]).percentile(50)
        assert abs(reported - ns) * 1000 <= ns


@given(st.lists(times, min_size=1, max_size=200), st.sampled_from([0, 1, 25, *PERCENTILES, 100]))
def test_a_percentile_differs_by_at_most_a_tenth_of_a_percent_from_that_of_the_sorted_times(
    values, q
):
    rank = max(1, math.ceil(round(q * len(values), 6) / 100))
    expected = sorted(values)[rank - 1]
    assert abs(histogram_of(values).percentile(q) - expected) <= expected / 1000


@given(samples)
def test_percentiles_are_in_order_and_between_minimum_and_maximum(values):
    histogram = histogram_of([*values, 5 * MS])
    given_out = [histogram.percentile(q) for q in (0, *PERCENTILES, 100)]
    assert given_out == sorted(given_out)
    assert histogram.min <= given_out[0]
    assert given_out[-1] <= histogram.max


def test_every_percentile_of_a_constant_time_is_exact():
    histogram = Histogram()
    histogram.record(20_000_001, 100_000)
    assert {histogram.percentile(q) for q in PERCENTILES} == {20_000_001}


def test_one_slow_time_in_a_hundred_shows_above_the_99th_percentile_and_not_at_it():
    histogram = Histogram()
    histogram.record(20 * MS, 990)
    histogram.record(500 * MS, 10)
    assert histogram.percentile(99) == pytest.approx(20 * MS, rel=0.001)
    assert histogram.percentile(99.1) == pytest.approx(500 * MS, rel=0.001)


# Exact figures


@given(samples)
def test_count_minimum_maximum_sum_and_mean_are_exact(values):
    histogram = histogram_of(values)
    assert histogram.count == len(values)
    assert (histogram.min, histogram.max) == (min(values, default=None), max(values, default=None))
    assert histogram.total == sum(values)
    assert histogram.mean == (sum(values) / len(values) if values else None)


@given(st.lists(times, min_size=2, max_size=60))
def test_the_standard_deviation_is_that_of_the_sample(values):
    assert histogram_of(values).stdev == pytest.approx(statistics.stdev(values), rel=1e-12)


def test_the_deviation_of_times_of_hours_is_exact_to_nanoseconds():
    hour = 3600 * 10**9
    histogram = Histogram()
    histogram.record(hour, 10**9)
    histogram.record(hour + 2, 10**9)
    assert histogram.stdev == pytest.approx(1.0, rel=1e-8)


@given(times, st.integers(1, 10**6))
def test_recording_a_time_with_a_count_equals_recording_it_that_many_times(ns, count):
    at_once = Histogram()
    at_once.record(ns, count)
    assert at_once.count == count
    assert at_once.total == ns * count
    assert at_once.sum_of_squares == ns * ns * count
    assert list(at_once.buckets()) == [(*bucket_bounds(bucket_of(ns)), count)]


@given(st.lists(st.lists(times, min_size=1, max_size=9), max_size=4))
def test_recording_batches_equals_recording_each_time(batches):
    histogram = Histogram()
    for batch in batches:
        histogram.record_all(batch)
    assert (
        histogram.to_json() == histogram_of([one for batch in batches for one in batch]).to_json()
    )


def test_an_empty_histogram_has_no_figures():
    empty = Histogram()
    assert (empty.count, empty.total) == (0, 0)
    assert [empty.min, empty.max, empty.mean, empty.stdev, empty.percentile(50)] == [None] * 5
    assert set(empty.figures().values()) == {None}
    assert empty.bounds() == {}
    assert list(empty.buckets()) == []


def test_one_time_has_no_standard_deviation():
    assert histogram_of([7]).stdev is None
    assert histogram_of([7, 7]).stdev == 0


def test_memory_does_not_grow_with_the_number_of_recorded_times():
    histogram = Histogram()
    for index in range(BUCKETS):
        histogram.record(bucket_bounds(index)[0])
        histogram.record(bucket_bounds(index)[1], 10**15)
    assert len(histogram._counts) == BUCKETS


# Ranks, and which percentiles are known


@pytest.mark.parametrize(
    ("q", "count", "rank"),
    [
        (0, 10, 1),
        (50, 1, 1),
        (50, 2, 1),
        (50, 3, 2),
        (99, 100, 99),
        (99, 101, 100),
        (99.9, 1000, 999),
        (99.9, 1001, 1000),
        (99.99, 10_000, 9_999),
        (55, 100, 55),  # 55 / 100 * 100 is 55.00000000000001
        (100, 10, 10),
    ],
)
def test_the_nearest_rank_is_exact_where_floats_are_not(q, count, rank):
    assert rank_of(q, count) == rank


@pytest.mark.parametrize(
    ("q", "needed"),
    [(50, 2), (75, 4), (90, 10), (95, 20), (99, 100), (99.9, 1_000), (99.99, 10_000)],
)
def test_a_percentile_is_given_once_one_sample_lies_beyond_it(q, needed):
    assert samples_needed(q) == needed
    assert rank_of(q, needed) == needed - 1
    assert rank_of(q, needed - 1) == needed - 1
    name = percentile_name(q)
    histogram = Histogram()
    histogram.record(20 * MS, needed - 1)
    assert histogram.figures()[name] is None
    histogram.record(20 * MS)
    assert histogram.figures()[name] == 20 * MS


@pytest.mark.parametrize(("q", "enough"), [(50, 6), (90, 30), (99, 300), (99.99, 30_000)])
def test_a_percentile_is_marked_while_fewer_than_three_samples_lie_beyond_it(q, enough):
    assert has_few_beyond(q, enough - 1)
    assert not has_few_beyond(q, enough)


def test_a_missing_percentile_lies_between_the_two_longest_times():
    histogram = histogram_of([*range(1, 19), 700, 1_000])
    assert histogram.bounds() == dict.fromkeys(("p99", "p99.9", "p99.99"), (700, 1_000))
    assert histogram.bounds("connect.")["connect.p99"] == (700, 1_000)
    assert set(histogram_of([7]).bounds().values()) == {(7, 7)}


def test_percentiles_are_named_in_percent():
    names = [percentile_name(q) for q in (*PERCENTILES, 99.0, 99.9999)]
    assert names == ["p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "p99", "p99.9999"]


# Merging, and JSON


@given(samples, samples)
def test_merging_equals_recording_all_in_one_histogram(first, second):
    both = merged(histogram_of(first), histogram_of(second))
    assert both.to_json() == histogram_of(first + second).to_json()


@given(samples, samples, samples)
def test_merging_is_the_same_in_any_order(first, second, third):
    a, b, c = histogram_of(first), histogram_of(second), histogram_of(third)
    left = merged(merged(a, b), c).to_json()
    assert left == merged(a, merged(b, c)).to_json()
    assert left == merged(c, b, a).to_json()


def test_merging_does_not_change_the_argument():
    other = histogram_of([5])
    before = other.to_json()
    both = merged(other, histogram_of([9, 3]))
    both.record(1)
    assert both.count == 4
    assert other.to_json() == before


@given(samples)
@example([HIGHEST + 1, 3])
def test_json_restores_every_field_of_a_histogram(values):
    histogram = histogram_of(values)
    text = json.dumps(histogram.to_json())
    back = Histogram.from_json(json.loads(text))
    assert json.dumps(back.to_json()) == text
    assert back.figures() == histogram.figures()


@given(samples, samples)
def test_merging_restored_histograms_equals_merging_the_originals(first, second):
    a, b = histogram_of(first), histogram_of(second)
    back = merged(*(Histogram.from_json(json.loads(json.dumps(h.to_json()))) for h in (a, b)))
    assert back.to_json() == merged(a, b).to_json()


def test_a_restored_histogram_can_record_more_times():
    back = Histogram.from_json(histogram_of([5, 9]).to_json())
    back.record(2)
    assert back.to_json() == histogram_of([2, 5, 9]).to_json()


def test_the_json_has_the_documented_format():
    histogram = histogram_of([3, 3, 2048, HIGHEST])
    assert histogram.to_json() == {
        "count": 4,
        "min": 3,
        "max": HIGHEST,
        "total": 6 + 2048 + HIGHEST,
        "sum_of_squares": 18 + 2048**2 + HIGHEST**2,
        "buckets": [[3, 3, 2], [2048, 2051, 1], [HIGHEST - 2**37 + 1, HIGHEST, 1]],
    }


GOOD = histogram_of([3, 5000, 5000, 9000]).to_json()


def test_unknown_fields_are_ignored():
    assert Histogram.from_json({**GOOD, "later": "?"}).to_json() == GOOD


def test_a_count_that_differs_from_the_sum_of_the_buckets_is_refused():
    with pytest.raises(ValueError, match="count is 5, but the buckets hold 4"):
        Histogram.from_json({**GOOD, "count": 5})


# Figures


@pytest.mark.parametrize("prefix", ["", *(f"{part}." for part in PARTS)])
def test_a_condition_may_use_every_name_of_a_figure(prefix):
    named = histogram_of(range(100)).figures(prefix)
    assert set(named) <= set(KINDS)
    assert len(named) == 11
    assert [named[prefix + name] for name in ("min", "p50", "p99", "p99.9", "max")] == [
        0,
        49,
        98,
        None,
        99,
    ]
    assert named[prefix + "mean"] == 49.5
    assert named[prefix + "stddev"] == pytest.approx(29.011, abs=0.001)
