from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.histogram import HIGHEST
from simpleipc_cli.bench.timeline import FIRST_WIDTH, SLOTS, TimeBucket, Timeline

MS = 1_000_000
SECOND = 1_000 * MS

moments = st.integers(0, 40).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))
times = st.integers(1, 47).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))
events = st.lists(st.tuples(moments, st.none() | times), max_size=40)


def timeline_of(happened) -> Timeline:
    """Answers by when and how long; failures by when and None."""
    timeline = Timeline()
    for at, ns in happened:
        if ns is None:
            timeline.fail(at)
        else:
            timeline.answer(at, ns)
    return timeline


def slot_of(values) -> TimeBucket:
    slot = TimeBucket()
    for value in values:
        slot.answer(value)
    return slot


def merged(*timelines: Timeline) -> Timeline:
    result = Timeline()
    for timeline in timelines:
        result.merge(timeline)
    return result


# Over time


def test_events_are_counted_in_the_slot_of_their_time():
    timeline = timeline_of(
        [(0, 5), (FIRST_WIDTH - 1, 7), (FIRST_WIDTH, None), (3 * FIRST_WIDTH, 2)]
    )
    assert [(slot.requests, slot.failures, slot.max) for slot in timeline.slots] == [
        (2, 0, 7),
        (1, 1, None),
        (0, 0, None),
        (1, 0, 2),
    ]


def test_slots_double_their_width_after_the_last_one():
    end = SLOTS * FIRST_WIDTH
    timeline = timeline_of([(0, 1), (FIRST_WIDTH, 2), (end - 1, 3)])
    assert (timeline.width, len(timeline.slots)) == (FIRST_WIDTH, SLOTS)
    timeline.fail(end)
    assert (timeline.width, len(timeline.slots)) == (2 * FIRST_WIDTH, SLOTS // 2 + 1)
    assert [slot.requests for slot in timeline.slots] == [2, *[0] * (SLOTS // 2 - 2), 1, 1]
    assert [slot.max for slot in timeline.slots][:1] == [2]


def test_an_odd_number_of_slots_doubles_without_a_loss():
    timeline = timeline_of([(0, 1), (FIRST_WIDTH, 1), (2 * FIRST_WIDTH, 1), (10 * SECOND, 1)])
    assert sum(slot.requests for slot in timeline.slots) == 4


@given(events)
def test_no_event_is_lost_and_slots_never_exceed_their_maximum(happened):
    timeline = timeline_of(happened)
    assert len(timeline.slots) <= SLOTS
    assert sum(slot.requests for slot in timeline.slots) == len(happened)
    failures = sum(ns is None for _, ns in happened)
    assert sum(slot.failures for slot in timeline.slots) == failures
    assert sum(slot.answered for slot in timeline.slots) == len(happened) - failures


@given(events)
def test_every_slot_holds_the_events_of_its_time(happened):
    timeline = timeline_of(happened)
    for number, slot in enumerate(timeline.slots):
        inside = [ns for at, ns in happened if at // timeline.width == number]
        assert slot.requests == len(inside)
        assert slot.max == max((ns for ns in inside if ns is not None), default=None)


@given(st.integers(SLOTS * FIRST_WIDTH, 1 << 60))
def test_after_widening_more_than_half_of_the_slots_are_used(at):
    assert SLOTS / 2 < len(timeline_of([(at, 1)]).slots) <= SLOTS


@pytest.mark.parametrize(
    "add",
    [lambda t: t.answer(-1, 5), lambda t: t.fail(-1), lambda t: t.answer(5, -1)],
    ids=["answer before the start", "failure before the start", "answer before its question"],
)
def test_a_time_below_0_is_refused_and_changes_nothing(add):
    timeline = Timeline()
    with pytest.raises(ValueError, match=r"before the start|0 ns or more, not -1"):
        add(timeline)
    assert timeline.slots == []


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


def test_merging_gives_the_same_both_ways_and_leaves_the_argument():
    short = [(FIRST_WIDTH * n, n) for n in range(100)]
    narrow, wide = timeline_of(short), timeline_of([(5 * SECOND, 9)])
    before = narrow.to_json(), wide.to_json()
    assert narrow.width < wide.width
    assert merged(narrow, wide).to_json() == merged(wide, narrow).to_json()
    assert (narrow.to_json(), wide.to_json()) == before


@given(events)
def test_json_restores_everything(happened):
    timeline = timeline_of(happened)
    text = json.dumps(timeline.to_json())
    back = Timeline.from_json(json.loads(text))
    assert json.dumps(back.to_json()) == text
    back.merge(timeline)
    assert back.to_json() == timeline_of(happened * 2).to_json()


def test_json_restores_a_full_timeline():
    timeline = timeline_of([(SLOTS * FIRST_WIDTH - 1, 5)])
    assert len(Timeline.from_json(timeline.to_json()).slots) == SLOTS


def test_the_form_of_the_json_is_what_is_documented():
    timeline = timeline_of([(0, 5), (0, None), (0, 2100)])
    assert timeline.to_json() == {
        "width": FIRST_WIDTH,
        "slots": [
            {
                "requests": 3,
                "failures": 1,
                "max": 2100,
                "times": [[0, 31, 1], [2048, 2175, 1]],
            }
        ],
    }


SLOT = {"requests": 3, "failures": 1, "max": 2100, "times": [[0, 31, 1], [2048, 2175, 1]]}
EMPTY = {"requests": 0, "failures": 0, "max": None, "times": []}


@pytest.mark.parametrize("slot", [SLOT, EMPTY], ids=["used", "unused"])
def test_slots_are_restored_from_json(slot):
    assert TimeBucket.from_json(slot).to_json() == slot


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requests": 4}, "requests is 4, but there are 1 failures and 2 times"),
        ({"failures": 0}, "requests is 3, but there are 0 failures and 2 times"),
        ({"failures": -1}, "failures is -1, which is below 0"),
        ({"max": None}, "max is None, which is not among the longest times"),
        ({"max": 2176}, "max is 2176, which is not"),
        ({"max": 31}, "max is 31, which is not"),
        ({"times": [[0, 30, 2]]}, "times cannot have an entry 0 to 30, 2 times"),
        ({"times": [[0, 31, 0]]}, "times cannot have an entry 0 to 31, 0 times"),
        ({"times": [[0, 31, 1], [0, 31, 1]]}, "times cannot have an entry 0 to 31, 1 times"),
        ({"times": [[1 << 47, 1 << 48, 2]]}, "times cannot have an entry 140737488355328"),
        ({"times": [5]}, "an entry of times is 5, not a list of 3 whole numbers"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_a_slot_that_contradicts_itself_is_refused_and_the_message_says_how(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TimeBucket.from_json({**SLOT, **change})


def test_a_maximum_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="max is 0, which is not"):
        TimeBucket.from_json({**EMPTY, "max": 0})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the timeline is [], not an object"),
        ({"slots": []}, "width is missing"),
        ({"width": FIRST_WIDTH}, "slots is missing"),
        ({"width": 0, "slots": []}, "width is 0, not 10000000 times 1, 2, 4 and so on"),
        ({"width": 3 * FIRST_WIDTH, "slots": []}, "width is 30000000, not"),
        ({"width": FIRST_WIDTH + 1, "slots": []}, "width is 10000001, not"),
        ({"width": FIRST_WIDTH, "slots": [EMPTY] * 121}, "there are 121 slots, more than 120"),
        ({"width": FIRST_WIDTH, "slots": [7]}, "a slot is 7, not an object"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_an_invalid_timeline_is_refused_and_the_message_says_why(data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Timeline.from_json(data)


# One slot


@given(st.lists(times, min_size=1, max_size=50), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_of_a_slot_are_off_by_three_percent_at_most(values, q):
    rank = max(1, -(-q * len(values) // 100))
    expected = sorted(values)[rank - 1]
    assert abs(slot_of(values).percentile(q) - expected) <= max(16, expected / 32)


@given(st.lists(times, min_size=1, max_size=50))
def test_no_percentile_of_a_slot_exceeds_its_longest_time(values):
    assert slot_of(values).percentile(100) <= max(values)


def test_a_slot_without_an_answer_has_no_percentile():
    slot = TimeBucket()
    slot.fail()
    assert (slot.percentile(50), slot.max, slot.requests, slot.failures) == (None, None, 1, 1)


def test_failures_change_no_percentile():
    slot = slot_of([5000] * 10)
    before = slot.percentile(50)
    for _ in range(100):
        slot.fail()
    assert slot.percentile(50) == before


def test_times_beyond_the_highest_count_as_the_highest():
    slot = slot_of([HIGHEST * 5])
    assert slot.max == HIGHEST
    assert TimeBucket.from_json(slot.to_json()).to_json() == slot.to_json()


def test_a_slot_never_needs_more_than_624_counters():
    slot = slot_of(
        value for bits in range(48) for value in range(1 << bits, 2 << bits, 1 + (1 << bits >> 7))
    )
    assert len(slot._groups) <= 624
