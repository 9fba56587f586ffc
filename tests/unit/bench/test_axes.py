from __future__ import annotations

from itertools import pairwise
from math import log10

import pytest
from helpers.bench_reports import LONGEST
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.page import (
    latency_scale,
    percentile_scale,
    rate_scale,
    time_scale,
)

US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000
HOUR = 3_600 * SECOND

times = st.integers(0, 47).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))


def names(scale) -> list[str]:
    return [name for _, name in scale.ticks]


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        (MS, 5 * MS, "0|1 ms|2 ms|3 ms|4 ms|5 ms"),
        (1_100 * US, 1_900 * US, "0|500 us|1 ms|1.5 ms|2 ms"),
        (MS, 2 * SECOND, "1 ms|10 ms|100 ms|1 s"),
        (300 * US, 30 * MS, "500 us|1 ms|2 ms|5 ms|10 ms|20 ms"),
        (200 * US, 40 * MS, "300 us|1 ms|3 ms|10 ms|30 ms"),
        (MS, 20 * MS, "1 ms|2 ms|5 ms|10 ms|20 ms"),
        (0, 900, "1 ns|10 ns|100 ns|1 us"),
        (1, LONGEST, "1 ns|1 us|1 ms|1 s|1000 s"),
        (0, 0, "1 ns|2 ns|5 ns|10 ns"),
        (LONGEST, LONGEST, "0|50000 s|100000 s|150000 s"),
    ],
)
def test_latencies_have_few_round_ticks_with_units(lowest, highest, expected):
    assert "|".join(names(latency_scale(lowest, highest))) == expected


@given(times, times)
def test_every_latency_and_every_tick_is_inside_the_axis(one, other):
    lowest, highest = sorted((one, other))
    scale = latency_scale(lowest, highest)
    places = [scale.position(value) for value in (lowest, highest)]
    assert 0 <= places[0] <= places[1] <= 100
    ticks = [scale.position(value) for value, _ in scale.ticks]
    assert 2 <= len(ticks) <= 7
    assert ticks[0] >= 0
    assert ticks[-1] <= 100
    assert all(below < above for below, above in pairwise(ticks))


def test_a_log_scale_clips_values_beyond_its_ends():
    scale = latency_scale(MS, SECOND)
    assert scale.transform is log10
    steps = {
        round(scale.position(10 * ns) - scale.position(ns), 6) for ns in (MS, 10 * MS, 100 * MS)
    }
    assert len(steps) == 1
    assert (scale.position(1), scale.position(LONGEST)) == (0, 100)
    assert latency_scale(MS, 9 * MS).transform is float


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (500, "0|100|200|300|400|500"),
        (6_898, "0|2,000|4,000|6,000|8,000"),
        (0.019, "0|0.005|0.01|0.015|0.02"),
        (0, "0|2e-07|4e-07|6e-07|8e-07|1e-06"),
        (2_211_797, "0|500,000|1,000,000|1,500,000|2,000,000|2,500,000"),
    ],
)
def test_the_axis_of_rates_begins_at_0(highest, expected):
    scale = rate_scale(highest)
    assert "|".join(names(scale)) == expected
    assert scale.position(0) == 0
    assert scale.position(highest) <= 100


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (1, "0|0.2 ns|0.4 ns|0.6 ns|0.8 ns|1 ns"),
        (18 * MS, "0|5 ms|10 ms|15 ms"),
        (SECOND, "0|200 ms|400 ms|600 ms|800 ms|1 s"),
        (10 * SECOND, "0|2 s|4 s|6 s|8 s|10 s"),
        (90 * SECOND, "0|20 s|40 s|60 s|80 s"),
        (39 * HOUR, "0|50000 s|100000 s"),
    ],
)
def test_the_ticks_of_time_are_round_numbers(end, expected):
    scale = time_scale(end)
    assert "|".join(names(scale)) == expected
    assert scale.position(end) == 100


@pytest.mark.parametrize(
    ("count", "last"),
    [(2, "50 %"), (9, "50 %"), (10, "90 %"), (100, "99 %"), (999, "99 %"), (1_000, "99.9 %")],
)
def test_the_axis_of_percentiles_ends_where_the_samples_end(count, last):
    scale = percentile_scale(count)
    assert names(scale)[-1] == last
    assert scale.high == 100 * (count - 1) / count
    assert scale.position(scale.high) == 100
    assert scale.position(100) == 100


def test_each_further_nine_of_a_percentile_has_the_same_width():
    scale = percentile_scale(10**9)
    places = [scale.position(q) for q in (0, 90, 99, 99.9, 99.99)]
    assert places[0] == 0
    assert [above - below for below, above in pairwise(places)] == pytest.approx([places[1]] * 4)
    assert scale.position(50) == pytest.approx(places[1] * log10(2))
