from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.conditions import KINDS, PARTS
from simpleipc_cli.bench.histogram import HIGHEST, Histogram
from simpleipc_cli.bench.stats import SummaryStats, text_histogram
from simpleipc_cli.bench.units import format_ns

US, MS = 1_000, 1_000_000

times = st.integers(1, 47).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))


def histogram_of(values) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def shape(rows):
    return [(row.low, row.high, row.count) for row in rows]


# Figures


def test_figures_are_those_of_the_histogram():
    histogram = histogram_of([*range(1, 1000), HIGHEST + 1])
    figures = SummaryStats.of(histogram)
    assert (figures.count, figures.clamped) == (1000, 1)
    assert (figures.min, figures.max) == (1, HIGHEST)
    assert (figures.mean, figures.stdev) == (histogram.mean, histogram.stdev)
    assert figures.percentiles == histogram.percentiles()


def test_figures_do_not_change_with_the_histogram():
    histogram = histogram_of([5])
    figures = SummaryStats.of(histogram)
    histogram.record(9)
    assert (figures.count, figures.max) == (1, 5)


@pytest.mark.parametrize("prefix", ["", *(f"{part}." for part in PARTS)])
def test_every_name_of_a_figure_is_one_that_a_condition_may_use(prefix):
    named = SummaryStats.of(histogram_of(range(100))).by_name(prefix)
    assert set(named) <= set(KINDS)
    assert len(named) == 11
    assert [named[prefix + name] for name in ("min", "p50", "p99", "max")] == [0, 49, None, 99]
    assert named[prefix + "mean"] == 49.5
    assert named[prefix + "stddev"] == pytest.approx(29.011, abs=0.001)


# Rows of a histogram


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_rows_hold_every_time_are_not_too_many_and_have_no_gap(values, rows):
    lines = text_histogram(histogram_of(values), rows)
    assert 1 <= len(lines) <= rows
    assert sum(line.count for line in lines) == len(values)
    assert all(line.low < line.high for line in lines)
    assert all(a.high == b.low for a, b in pairwise(lines))


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_the_first_and_the_last_row_are_not_empty(values, rows):
    lines = text_histogram(histogram_of(values), rows)
    assert lines[0].low <= min(values) < lines[0].high
    assert lines[-1].low <= max(values) < lines[-1].high


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_a_time_is_in_its_row_but_for_a_tenth_of_a_percent_at_the_bounds(values, rows):
    for line in text_histogram(histogram_of(values), rows):
        surely = sum(line.low * 1.001 <= value < line.high * 0.999 for value in values)
        perhaps = sum(line.low * 0.999 <= value < line.high * 1.001 for value in values)
        assert surely <= line.count <= perhaps


@given(st.lists(times, min_size=1, max_size=50), st.integers(2, 40))
def test_bounds_differ_as_they_are_shown(values, rows):
    bounds = [row.low for row in text_histogram(histogram_of(values), rows)]
    assert len({format_ns(bound) for bound in bounds}) == len(bounds)


def test_a_small_spread_gives_rows_of_one_round_width():
    rows = text_histogram(histogram_of([101 * US, 105 * US, 111 * US, 119 * US]), 10)
    assert shape(rows) == [
        *((100 * US + 2 * US * n, 102 * US + 2 * US * n, int(n in (0, 2, 5, 9))) for n in range(10))
    ]


@pytest.mark.parametrize(("rows", "step"), [(20, 1), (10, 2), (4, 5), (2, 10)])
def test_steps_are_ones_twos_and_fives(rows, step):
    lines = text_histogram(histogram_of([100 * US, 119 * US]), rows)
    assert {line.high - line.low for line in lines} == {step * US}


def test_a_large_spread_gives_rows_on_a_log_scale():
    rows = text_histogram(histogram_of([150 * US, 150 * US, 7 * MS, 480 * MS]), 12)
    bounds = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
    assert [row.low for row in rows] + [rows[-1].high] == [bound * US for bound in bounds]
    assert [row.count for row in rows] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


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
    assert [row.low for row in decades][: rows + 1] == [bound * US for bound in bounds]


def test_the_scale_changes_where_the_longest_is_ten_times_the_shortest():
    linear = text_histogram(histogram_of([100 * US, 999 * US]), 9)
    assert [row.low for row in linear] == [n * 100 * US for n in range(1, 10)]
    log = text_histogram(histogram_of([100 * US, 1000 * US]), 9)
    assert [row.low for row in log] == [n * US for n in (100, 150, 200, 300, 500, 700, 1000)]


def test_equal_times_are_one_row():
    assert shape(text_histogram(histogram_of([20 * MS] * 9), 12)) == [
        (20 * MS, 20 * MS + 100 * US, 9)
    ]


def test_the_widest_spread_there_is_fits_into_two_rows():
    rows = text_histogram(histogram_of([0, HIGHEST, HIGHEST]), 2)
    assert [row.count for row in rows] == [1, 2]


def test_without_a_time_there_is_no_row():
    assert text_histogram(Histogram(), 10) == []


def test_a_single_row_is_refused():
    with pytest.raises(ValueError, match="at least 2 rows, not 1"):
        text_histogram(histogram_of([5]), 1)
