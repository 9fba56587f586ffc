from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.format import format_ns
from simpleipc_cli.bench.histogram import HIGHEST, Histogram, text_histogram

US, MS = 1_000, 1_000_000

times = st.integers(1, 47).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))


def histogram_of(values) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_rows_hold_every_time_are_not_too_many_and_have_no_gap(values, rows):
    lines = text_histogram(histogram_of(values), rows)
    assert 1 <= len(lines) <= rows
    assert sum(count for *_, count in lines) == len(values)
    assert all(low < high for low, high, _ in lines)
    assert all(before[1] == after[0] for before, after in pairwise(lines))


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_the_first_and_the_last_row_are_not_empty(values, rows):
    lines = text_histogram(histogram_of(values), rows)
    assert lines[0][0] <= min(values) < lines[0][1]
    assert lines[-1][0] <= max(values) < lines[-1][1]


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_a_time_is_in_its_row_but_for_a_tenth_of_a_percent_at_the_bounds(values, rows):
    for low, high, count in text_histogram(histogram_of(values), rows):
        surely = sum(low * 1.001 <= value < high * 0.999 for value in values)
        perhaps = sum(low * 0.999 <= value < high * 1.001 for value in values)
        assert surely <= count <= perhaps


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_bounds_differ_as_they_are_shown(values, rows):
    bounds = [low for low, *_ in text_histogram(histogram_of(values), rows)]
    assert len({format_ns(bound) for bound in bounds}) == len(bounds)


def test_a_small_spread_gives_rows_of_one_round_width():
    rows = text_histogram(histogram_of([101 * US, 105 * US, 111 * US, 119 * US]), 10)
    assert rows == [
        *((100 * US + 2 * US * n, 102 * US + 2 * US * n, int(n in (0, 2, 5, 9))) for n in range(10))
    ]


@pytest.mark.parametrize(("rows", "step"), [(20, 1), (10, 2), (4, 5), (2, 10)])
def test_steps_are_ones_twos_and_fives(rows, step):
    lines = text_histogram(histogram_of([100 * US, 119 * US]), rows)
    assert {high - low for low, high, _ in lines} == {step * US}


def test_a_large_spread_gives_rows_on_a_log_scale():
    rows = text_histogram(histogram_of([150 * US, 150 * US, 7 * MS, 480 * MS]), 12)
    bounds = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
    assert [low for low, *_ in rows] + [rows[-1][1]] == [bound * US for bound in bounds]
    assert [count for *_, count in rows] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


def test_more_rows_give_a_finer_scale():
    histogram = histogram_of([1 * MS, 99 * MS])
    lengths = [len(text_histogram(histogram, rows)) for rows in (2, 4, 6, 12, 20)]
    assert lengths == [2, 4, 6, 12, 20]


@pytest.mark.parametrize(
    ("rows", "bounds"),
    [
        (10, (100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000)),
        (6, (100, 150, 200, 300, 500, 700, 1000)),
        (3, (100, 200, 500, 1000)),
        (2, (100, 300, 1000)),
    ],
)
def test_rows_on_a_log_scale_begin_at_round_numbers(rows, bounds):
    decades = text_histogram(histogram_of([101 * US, 99 * MS]), 3 * rows)
    assert [low for low, *_ in decades][: rows + 1] == [bound * US for bound in bounds]


def test_the_scale_changes_where_the_longest_is_ten_times_the_shortest():
    linear = text_histogram(histogram_of([100 * US, 999 * US]), 9)
    assert [low for low, *_ in linear] == [n * 100 * US for n in range(1, 10)]
    log = text_histogram(histogram_of([100 * US, 1000 * US]), 9)
    assert [low for low, *_ in log] == [n * US for n in (100, 150, 200, 300, 500, 700, 1000)]


def test_equal_times_are_one_row():
    assert text_histogram(histogram_of([20 * MS] * 9), 12) == [(20 * MS, 20 * MS + 100 * US, 9)]


def test_the_widest_spread_there_is_fits_into_two_rows():
    rows = text_histogram(histogram_of([0, HIGHEST, HIGHEST]), 2)
    assert [count for *_, count in rows] == [1, 2]


def test_without_a_time_there_is_no_row():
    assert text_histogram(Histogram(), 10) == []
