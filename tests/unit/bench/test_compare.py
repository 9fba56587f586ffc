from __future__ import annotations

import random
from itertools import accumulate
from math import comb

import pytest

from simpleipc_cli.bench.compare import (
    compare_means,
    compare_percentiles,
    compare_rates,
    compare_shares,
    confidence_interval,
)
from simpleipc_cli.bench.histogram import Histogram

US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000


def normal(seed: int, count: int, mean: float, deviation: float) -> Histogram:
    chance = random.Random(seed)
    histogram = Histogram()
    for _ in range(count):
        histogram.record(max(0, round(chance.gauss(mean, deviation))))
    return histogram


def alternating(count: int, mean: int, deviation: int) -> Histogram:
    """Return times alternating between mean - deviation and mean + deviation: exact figures."""
    histogram = Histogram()
    histogram.record(mean - deviation, count // 2)
    histogram.record(mean + deviation, count - count // 2)
    return histogram


def constant(ns: int, count: int) -> Histogram:
    histogram = Histogram()
    histogram.record(ns, count)
    return histogram


def counting(count: int) -> Histogram:
    """1, 2, 3 and so on: where the k-th shortest is k (exact up to 1023)."""
    histogram = Histogram()
    for ns in range(1, count + 1):
        histogram.record(ns)
    return histogram


# Means


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(20 * US, "worse"), (-20 * US, "better"), (0, "within noise")],
    ids=["slower", "faster", "the same"],
)
def test_a_clear_change_of_the_mean_is_reported_with_its_direction(shift, verdict):
    change = compare_means(normal(1, 2000, MS, 50 * US), normal(2, 2000, MS + shift, 50 * US))
    assert change.verdict == verdict
    assert change.relative == pytest.approx(shift / MS, abs=0.005)
    assert change.old == pytest.approx(MS, rel=0.005)
    assert change.new == pytest.approx(MS + shift, rel=0.005)


@pytest.mark.parametrize(
    ("shift", "verdict"), [(31, "within noise"), (33, "worse")], ids=["below", "above"]
)
def test_means_are_compared_by_the_deviation_of_welch(shift, verdict):
    # 2.5758 * sqrt((100**2 + 75**2) / 99) is 32.4.
    old, new = alternating(100, 1000, 100), alternating(100, 1000 + shift, 75)
    assert compare_means(old, new).verdict == verdict


@pytest.mark.parametrize(
    ("shift", "verdict"), [(26, "within noise"), (35, "worse")], ids=["below", "above"]
)
def test_each_side_contributes_its_own_size_and_deviation(shift, verdict):
    # 2.5758 * sqrt(500**2 / 9999 + 70**2 / 39) is 31.6; with the sizes mixed up, 205.
    old, new = alternating(10_000, 1000, 500), alternating(40, 1000 + shift, 70)
    assert compare_means(old, new).verdict == verdict


@pytest.mark.parametrize(("few", "many"), [(29, 5000), (5000, 29)], ids=["then", "now"])
def test_the_mean_of_few_samples_is_not_compared(few, many):
    change = compare_means(constant(1000, few), constant(5000, many))
    assert change.verdict == "too few samples"
    assert (change.old, change.new, change.relative) == (1000, 5000, 4.0)


def test_zero_samples_are_too_few_and_have_no_relative_change():
    change = compare_means(Histogram(), constant(5000, 50))
    assert change == (None, 5000, None, "too few samples")


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(10_099, "within noise"), (10_101, "worse"), (9_901, "within noise"), (9_899, "better")],
)
def test_a_change_below_one_percent_is_noise_with_any_number_of_samples(now, verdict):
    assert compare_means(constant(10_000, 10**6), constant(now, 10**6)).verdict == verdict


# Percentiles


@pytest.mark.parametrize("q", [50, 90, 99])
@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.2, "worse"), (0.8, "better"), (1.0, "within noise")],
    ids=["slower", "faster", "the same"],
)
def test_a_clear_change_of_a_percentile_is_reported_with_its_direction(q, factor, verdict):
    old, new = normal(3, 3000, MS, 50 * US), normal(4, 3000, MS * factor, 50 * US * factor)
    change = compare_percentiles(old, new, q)
    assert change.verdict == verdict
    assert (change.old, change.new) == (old.percentile(q), new.percentile(q))


def test_percentiles_whose_intervals_overlap_are_within_noise():
    old = counting(400)
    low, high = confidence_interval(old, 50)
    shifted = {}
    for shift in (high - low, high - low + 1):
        new = Histogram()
        for ns in range(1, 401):
            new.record(ns + shift)
        shifted[shift - (high - low)] = compare_percentiles(old, new, 50).verdict
    assert shifted == {0: "within noise", 1: "worse"}


def test_intervals_that_touch_overlap_in_both_directions():
    old = counting(400)
    low, high = confidence_interval(old, 50)
    faster = Histogram()
    for ns in range(1, 401):
        faster.record(max(0, ns - (high - low)))
    assert confidence_interval(faster, 50)[1] == low
    assert compare_percentiles(old, faster, 50).verdict == "within noise"


def test_rare_slow_requests_change_the_99th_percentile_and_not_the_median():
    old, new = normal(5, 5000, MS, 10 * US), normal(6, 4800, MS, 10 * US)
    new.record(50 * MS, 200)
    assert compare_percentiles(old, new, 99).verdict == "worse"
    assert compare_percentiles(old, new, 50).verdict == "within noise"


@pytest.mark.parametrize(
    ("q", "needed"), [(50, 20), (90, 100), (99, 1_000), (99.9, 10_000), (99.99, 100_000)]
)
def test_a_percentile_is_compared_from_ten_samples_beyond_it(q, needed):
    enough, fewer = constant(2000, needed), constant(2000, needed - 1)
    assert confidence_interval(enough, q) == (2000, 2000)
    assert confidence_interval(fewer, q) is None
    assert compare_percentiles(constant(1000, needed), enough, q).verdict == "worse"
    assert compare_percentiles(constant(1000, needed), fewer, q).verdict == "too few samples"
    assert compare_percentiles(fewer, enough, q).verdict == "too few samples"


def exact_interval(count: int, q: int) -> tuple[int, int]:
    """Compute with whole numbers the narrowest ranks with half a percent outside."""

    # chances[k], out of 100**count: that fewer than k samples lie below the percentile.
    each = (comb(count, k) * q**k * (100 - q) ** (count - k) for k in range(count + 1))
    chances = list(accumulate(each, initial=0))
    tail = 100**count // 200
    low = max(k for k in range(1, count + 1) if chances[k] <= tail)
    high = min(k for k in range(1, count + 1) if 100**count - chances[k] <= tail)
    return low, high


@pytest.mark.parametrize(
    ("count", "q"),
    [(20, 50), (50, 50), (100, 90), (300, 75), (1000, 99), (402, 50), (1000, 60), (1000, 85)],
)
def test_intervals_differ_by_at_most_a_rank_from_those_of_the_binomial_distribution(count, q):
    found, expected = confidence_interval(counting(count), q), exact_interval(count, q)
    assert found == pytest.approx(expected, abs=1)


def test_intervals_of_millions_of_samples_are_narrow_and_contain_the_percentile():
    histogram = Histogram()
    for ns in range(100_000, 200_000):
        histogram.record(ns, 100)
    low, high = confidence_interval(histogram, 50)
    assert 149_000 < low <= histogram.percentile(50) <= high < 151_000


# Rates


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(10_367, "within noise"), (10_368, "better"), (9_640, "within noise"), (9_639, "worse")],
)
def test_rates_are_compared_by_the_standard_deviations_of_both_counts(now, verdict):
    # 2.5758 * sqrt(10000 + now) is 367.6 for the first two, and 361.0 for the others.
    assert compare_rates(10_000, 10 * SECOND, now, 10 * SECOND).verdict == verdict


def test_rates_are_compared_per_second_for_runs_of_any_length():
    change = compare_rates(10_000, 10 * SECOND, 30_000, 60 * SECOND)
    assert change == (1000, 500, -0.5, "worse")
    assert compare_rates(10_000, 10 * SECOND, 60_000, 60 * SECOND).verdict == "within noise"


def test_a_change_of_the_rate_below_a_percent_is_noise():
    assert compare_rates(10**9, SECOND, 10**9 + 9 * 10**6, SECOND).verdict == "within noise"
    assert compare_rates(10**9, SECOND, 10**9 + 11 * 10**6, SECOND).verdict == "better"


@pytest.mark.parametrize(("old", "new"), [(9, 1000), (1000, 9), (0, 1000)])
def test_a_rate_of_few_events_is_not_compared(old, new):
    assert compare_rates(old, SECOND, new, SECOND).verdict == "too few samples"


@pytest.mark.parametrize(("old", "new"), [(10, 1000), (1000, 10)])
def test_a_rate_is_compared_if_it_has_at_least_ten_events(old, new):
    assert compare_rates(old, SECOND, new, SECOND).verdict == ("better" if new > old else "worse")


# Shares


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ((0, 1000), (0, 1000), "within noise"),
        ((0, 1000), (20, 1000), "worse"),
        ((20, 1000), (0, 1000), "better"),
        ((0, 1000), (9, 1000), "too few samples"),
        ((0, 1000), (10, 1000), "worse"),  # 5 to be expected on each side
        ((100, 1000), (110, 1000), "within noise"),
        ((100, 1000), (138, 1000), "worse"),
        ((100, 1000), (137, 1000), "within noise"),
        ((1000, 1000), (999, 1000), "too few samples"),
        ((500_000, 10**6), (504_000, 10**6), "within noise"),
        ((0, 0), (0, 1000), "too few samples"),
        ((5, 1000), (0, 0), "too few samples"),
    ],
)
def test_shares_are_compared_by_the_pooled_test(old, new, verdict):
    assert compare_shares(*old, *new).verdict == verdict


def test_a_share_of_0_has_no_relative_change():
    assert compare_shares(0, 1000, 20, 1000) == (0, 0.02, None, "worse")


# How often a random difference is reported as a change


def test_the_same_server_measured_twice_is_seldom_found_to_have_changed():
    alarms = 0
    for seed in range(0, 400, 2):
        # The deviation equals the mean, so that the minimum of one percent never decides.
        old, new = (normal(100 + seed + n, 200, 5 * MS, MS) for n in (0, 1))
        alarms += compare_means(old, new).verdict != "within noise"
        alarms += compare_percentiles(old, new, 50).verdict != "within noise"
    assert alarms <= 400 * 0.02
