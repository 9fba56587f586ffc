from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.format import format_ns
from simpleipc_cli.bench.histogram import Histogram, text_histogram

US, MS = 1_000, 1_000_000

times = st.integers(11, 47).flatmap(lambda bits: st.integers(1 << 10, (1 << bits) - 1))


def histogram_of(values) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_the_rows_contain_every_time_and_are_few_and_have_no_gap(values, rows):
    lines = text_histogram(histogram_of(values), rows)
    assert 1 <= len(lines) <= rows
    assert sum(count for *_, count in lines) == len(values)
    assert all(low <= high for low, high, _ in lines)
    assert all(before[1] == after[0] for before, after in pairwise(lines))


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_the_rows_begin_with_the_shortest_and_end_with_the_longest_time(values, rows):
    lines = text_histogram(histogram_of(values), rows)
    assert lines[0][0] == min(values)
    assert lines[-1][1] == max(values)


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_a_time_is_in_its_row_to_within_a_tenth_of_a_percent_of_the_bounds(values, rows):
    for low, high, count in text_histogram(histogram_of(values), rows):
        surely = sum(low * 1.001 <= value <= high * 0.999 for value in values)
        perhaps = sum(low * 0.999 <= value <= high * 1.001 for value in values)
        assert surely <= count <= perhaps


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_the_displayed_bounds_of_rows_differ(values, rows):
    bounds = [low for low, *_ in text_histogram(histogram_of(values), rows)]
    assert len({format_ns(bound) for bound in bounds}) == len(bounds)


def test_the_bounds_of_the_rows_have_equal_ratios():
    rows = text_histogram(histogram_of([100 * US, 150 * US, 7 * MS, 99 * MS, 100 * MS]), 3)
    assert rows == [(100 * US, MS, 2), (MS, 10 * MS, 1), (10 * MS, 100 * MS, 2)]


def test_times_in_a_small_range_have_fewer_rows():
    assert len(text_histogram(histogram_of([100 * US, 111 * US]), 12)) == 5
    assert text_histogram(histogram_of([20 * MS] * 9), 12) == [(20 * MS, 20 * MS, 9)]


def test_the_widest_range_of_times_fits_into_two_rows():
    rows = text_histogram(histogram_of([0, (1 << 47), (1 << 47)]), 2)
    assert [count for *_, count in rows] == [1, 2]


def test_no_row_is_shown_for_a_histogram_without_times():
    assert text_histogram(Histogram(), 10) == []
