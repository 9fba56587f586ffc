from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.histogram import (
    FIRST_WIDTH,
    MAX_TIME_BUCKETS,
    TimeBucket,
    Timeline,
)

MS = 1_000_000
SECOND = 1_000 * MS

moments = st.integers(0, 40).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))
times = st.integers(1, 47).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))
events = st.lists(st.tuples(moments, st.none() | times), max_size=40)


def timeline_of(happened) -> Timeline:
    """Responses by when and how long; failures by when and None."""
    timeline = Timeline()
    for at, ns in happened:
        if ns is None:
            timeline.bucket_at(at).failures += 1
        else:
            timeline.bucket_at(at).times.record(ns)
    return timeline


def bucket_of(values) -> TimeBucket:
    bucket = TimeBucket()
    for value in values:
        bucket.times.record(value)
    return bucket


def merged(*timelines: Timeline) -> Timeline:
    result = Timeline()
    for timeline in timelines:
        result.merge(timeline)
    return result


# Over time


@given(st.lists(st.lists(st.tuples(moments, times), min_size=1, max_size=9), max_size=4))
def test_recording_batches_equals_recording_each_response(batches):
    timeline = Timeline()
    for batch in batches:
        timeline.record_all(*map(list, zip(*sorted(batch), strict=True)))
    assert timeline.to_json() == timeline_of([one for batch in batches for one in batch]).to_json()


def test_events_are_counted_in_the_bucket_of_their_time():
    timeline = timeline_of(
        [(0, 5), (FIRST_WIDTH - 1, 7), (FIRST_WIDTH, None), (3 * FIRST_WIDTH, 2)]
    )
    assert [
        (bucket.requests, bucket.failures, bucket.times.max) for bucket in timeline.buckets
    ] == [
        (2, 0, 7),
        (1, 1, None),
        (0, 0, None),
        (1, 0, 2),
    ]


def test_buckets_double_their_width_when_an_event_lies_after_the_last_one():
    end = MAX_TIME_BUCKETS * FIRST_WIDTH
    timeline = timeline_of([(0, 1), (FIRST_WIDTH, 2), (end - 1, 3)])
    assert (timeline.width, len(timeline.buckets)) == (FIRST_WIDTH, MAX_TIME_BUCKETS)
    timeline.bucket_at(end).failures += 1
    assert (timeline.width, len(timeline.buckets)) == (2 * FIRST_WIDTH, MAX_TIME_BUCKETS // 2 + 1)
    assert [bucket.requests for bucket in timeline.buckets] == [
        2,
        *[0] * (MAX_TIME_BUCKETS // 2 - 2),
        1,
        1,
    ]
    assert [bucket.times.max for bucket in timeline.buckets][:1] == [2]


def test_an_odd_number_of_buckets_doubles_without_losing_an_event():
    timeline = timeline_of([(0, 1), (FIRST_WIDTH, 1), (2 * FIRST_WIDTH, 1), (10 * SECOND, 1)])
    assert sum(bucket.requests for bucket in timeline.buckets) == 4


@given(events)
def test_no_event_is_lost_and_buckets_never_exceed_their_maximum(happened):
    timeline = timeline_of(happened)
    assert len(timeline.buckets) <= MAX_TIME_BUCKETS
    assert sum(bucket.requests for bucket in timeline.buckets) == len(happened)
    failures = sum(ns is None for _, ns in happened)
    assert sum(bucket.failures for bucket in timeline.buckets) == failures
    assert sum(bucket.times.count for bucket in timeline.buckets) == len(happened) - failures


@given(events)
def test_every_bucket_contains_exactly_the_events_of_its_time(happened):
    timeline = timeline_of(happened)
    for number, bucket in enumerate(timeline.buckets):
        inside = [ns for at, ns in happened if at // timeline.width == number]
        assert bucket.requests == len(inside)
        assert bucket.times.max == max((ns for ns in inside if ns is not None), default=None)


@given(st.integers(MAX_TIME_BUCKETS * FIRST_WIDTH, 1 << 60))
def test_after_widening_more_than_half_of_the_buckets_are_used(at):
    assert MAX_TIME_BUCKETS / 2 < len(timeline_of([(at, 1)]).buckets) <= MAX_TIME_BUCKETS


# Merging, and JSON


@given(events, events)
def test_merging_equals_counting_all_in_one_timeline(first, second):
    both = merged(timeline_of(first), timeline_of(second))
    assert both.to_json() == timeline_of(first + second).to_json()


@given(events, events, events)
def test_merging_is_the_same_in_any_order(first, second, third):
    a, b, c = timeline_of(first), timeline_of(second), timeline_of(third)
    left = merged(merged(a, b), c).to_json()
    assert left == merged(a, merged(b, c)).to_json()
    assert left == merged(c, b, a).to_json()


def test_merging_is_symmetric_and_does_not_change_the_argument():
    short = [(FIRST_WIDTH * n, n) for n in range(100)]
    narrow, wide = timeline_of(short), timeline_of([(5 * SECOND, 9)])
    before = narrow.to_json(), wide.to_json()
    assert narrow.width < wide.width
    assert merged(narrow, wide).to_json() == merged(wide, narrow).to_json()
    assert (narrow.to_json(), wide.to_json()) == before


def test_the_json_has_the_documented_format():
    timeline = timeline_of([(0, 5), (0, None), (0, 2100)])
    assert timeline.to_json() == {
        "width": FIRST_WIDTH,
        "buckets": [
            {
                "requests": 3,
                "failures": 1,
                "max": 2100,
                "times": [[5, 5, 1], [2048, 2175, 1]],
            }
        ],
    }


# One bucket


@given(st.lists(times, min_size=1, max_size=50), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_of_a_bucket_are_off_by_three_percent_at_most(values, q):
    rank = max(1, -(-q * len(values) // 100))
    expected = sorted(values)[rank - 1]
    assert abs(bucket_of(values).times.percentile(q) - expected) <= max(16, expected / 32)


@given(st.lists(times, min_size=1, max_size=50))
def test_no_percentile_of_a_bucket_exceeds_its_longest_time(values):
    assert bucket_of(values).times.percentile(100) <= max(values)


def test_a_bucket_without_an_response_has_no_percentile():
    bucket = TimeBucket()
    bucket.failures += 1
    assert (bucket.times.percentile(50), bucket.times.max, bucket.requests, bucket.failures) == (
        None,
        None,
        1,
        1,
    )


def test_failures_change_no_percentile():
    bucket = bucket_of([5000] * 10)
    before = bucket.times.percentile(50)
    for _ in range(100):
        bucket.failures += 1
    assert bucket.times.percentile(50) == before


def test_a_bucket_never_needs_more_than_704_counters():
    bucket = bucket_of(
        value for bits in range(47) for value in range(1 << bits, 2 << bits, 1 + (1 << bits >> 7))
    )
    assert len(bucket.times._counts) <= 704
