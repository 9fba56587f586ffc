"""Decide whether a figure differs significantly from a baseline.

Pure functions on two measurements. The tests consider only the sampling error, not changes of the
machine between the two runs. Because of these, changes below MIN_CHANGE never count (Criterion.rs:
noise_threshold, default 1 %). The confidence is 99 % and not the usual 95 %, because a report
compares about ten figures at once. Requests are assumed to be independent.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import Literal, NamedTuple

from simpleipc_cli.bench.histogram import Histogram, percentile_name

ChangeVerdict = Literal["better", "worse", "within noise", "too few samples"]

MIN_CHANGE = 0.01
"""A change by less than this share of the old value is noise, even if it is significant."""

_Z = 2.5758  # two-sided 99 % quantile of the normal distribution
_MIN_FOR_MEAN = 30  # samples; the usual minimum for the central limit theorem
_MIN_EVENTS = 10  # with fewer, a binomial or Poisson variable is not approximately normal
_MIN_EXPECTED = 5  # Cochran, "Some Methods for Strengthening the Common chi-squared Tests", 1954


class Change(NamedTuple):
    """A figure in the baseline and in the new run; None if it is not available."""

    old: float | int | None
    new: float | int | None
    relative: float | None
    """(new - old) / old; None if there is no old value, or it is 0."""
    verdict: ChangeVerdict


def compare_means(old: Histogram, new: Histogram) -> Change:
    """Compare mean times; less is better.

    Welch's test for means of unequal variance (B. L. Welch, "The Generalization of
    'Student's' Problem when Several Different Population Variances are Involved", Biometrika
    34, 1947). It needs 30 samples in each run: then the normal distribution approximates Student's.
    """
    if min(old.count, new.count) < _MIN_FOR_MEAN or old.mean is None or new.mean is None:
        return _change(old.mean, new.mean, None)
    variance = sum((h.stdev or 0.0) ** 2 / h.count for h in (old, new))
    return _change(old.mean, new.mean, abs(new.mean - old.mean) > _Z * sqrt(variance))


def compare_percentiles(old: Histogram, new: Histogram, q: float) -> Change:
    """Compare the percentile `q`, 50 <= q < 100; less is better.

    The change is significant if the two confidence intervals do not overlap. This is stricter than
    needed (Schenker and Gentleman, "On Judging the Significance of Differences by Examining the
    Overlap Between Confidence Intervals", The American Statistician 55, 2001). There are too few
    samples if the expected number beyond the percentile is below 10 in a run: for p99, with fewer
    than 1,000 samples.
    """
    before, now = (h.figures()[percentile_name(q)] for h in (old, new))
    old_interval, new_interval = confidence_interval(old, q), confidence_interval(new, q)
    if old_interval is None or new_interval is None:
        return _change(before, now, None)
    is_significant = old_interval[1] < new_interval[0] or new_interval[1] < old_interval[0]
    return _change(before, now, is_significant)


def compare_rates(old_count: int, old_ns: int, new_count: int, new_ns: int) -> Change:
    """Compare responses per second, from counts and durations; more is better.

    The counts are treated as Poisson variables and, if each is at least 10, their difference as
    normal. Counts of a closed loop vary less: there the test finds fewer changes than it could.
    """
    old_seconds, new_seconds = old_ns / 1e9, new_ns / 1e9
    old, new = old_count / old_seconds, new_count / new_seconds
    if min(old_count, new_count) < _MIN_EVENTS:
        return _change(old, new, None)
    deviation = sqrt(old_count / old_seconds**2 + new_count / new_seconds**2)
    return _change(old, new, abs(new - old) > _Z * deviation, more_is_better=True)


def compare_shares(old_part: int, old_whole: int, new_part: int, new_whole: int) -> Change:
    """Compare a share from 0 to 1, such as that of failed requests; less is better.

    This is the pooled test for two proportions. It needs at least 5 expected cases on either side
    (Cochran's rule). Equal shares, such as two runs without failures, are no change.
    """
    old = old_part / old_whole if old_whole else None
    new = new_part / new_whole if new_whole else None
    if old is None or new is None:
        return _change(old, new, None)
    if old == new:
        return _change(old, new, False)
    pooled = (old_part + new_part) / (old_whole + new_whole)
    if min(old_whole, new_whole) * min(pooled, 1 - pooled) < _MIN_EXPECTED:
        return _change(old, new, None)
    deviation = sqrt(pooled * (1 - pooled) * (1 / old_whole + 1 / new_whole))
    return _change(old, new, abs(new - old) > _Z * deviation)


def confidence_interval(histogram: Histogram, q: float) -> tuple[int, int] | None:
    """Return the 99 % confidence interval of the percentile `q`, 50 <= q < 100, in nanoseconds.

    It lies between two of the sorted samples, for any distribution: the number of samples
    beyond the true percentile is a binomial variable (Hahn and Meeker, "Statistical
    Intervals", 1991, section 5.2), which is treated as normal. None with too few samples.
    """
    count, share = histogram.count, 1 - q / 100
    expected = count * share
    if round(expected, 6) < _MIN_EVENTS:
        return None
    # 0.5 is the continuity correction for an integer variable.
    distance = _Z * sqrt(expected * (1 - share)) + 0.5
    low, high = floor(expected - distance), ceil(expected + distance)
    return histogram.value_at(max(1, count - high + 1)), histogram.value_at(count - low)


def _change(
    old: float | int | None,
    new: float | int | None,
    is_significant: bool | None,
    *,
    more_is_better: bool = False,
) -> Change:
    """Return a change with its verdict; `is_significant` is None with too few samples."""
    relative = (new - old) / old if old and new is not None else None
    verdict: ChangeVerdict
    if old is None or new is None or is_significant is None:
        verdict = "too few samples"
    elif not is_significant or abs(new - old) < MIN_CHANGE * old:
        verdict = "within noise"
    else:
        verdict = "better" if (new > old) == more_is_better else "worse"
    return Change(old, new, relative, verdict)
