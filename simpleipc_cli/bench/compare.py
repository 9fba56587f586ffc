"""Whether a figure has changed since a baseline by more than chance explains.

Pure functions on two measurements. What is judged is the chance in which requests
happened to be measured, not what changed about the machine in between: for that a floor
stands below which no change counts (Criterion.rs calls it noise_threshold; 1 % is its
default). The confidence is 99 % each time, not the usual 95 %, as a report compares some
ten figures at once. Requests are taken to be independent of each other.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import Literal, NamedTuple

from simpleipc_cli.bench.histogram import Histogram, samples_needed

ChangeVerdict = Literal["better", "worse", "within noise", "too few samples"]

FLOOR = 0.01
"""Changes by less than this share of the old value are noise, whatever the statistics say."""

_Z = 2.5758  # what a normal variable exceeds in either direction in 1 % of all cases
_TAIL = 0.005  # what of the 1 % lies on each side
_ENOUGH_FOR_A_MEAN = 30  # customary for the central limit theorem; no theorem says so
_ENOUGH_EVENTS = 10  # below, a Poisson variable is no normal one
_ENOUGH_EXPECTED = 5  # Cochran, "Some Methods for Strengthening the Common chi-squared Tests", 1954
_EXACT_BELOW = 100  # variance up to which the binomial is summed, not approximated; at will


class Change(NamedTuple):
    """A figure then and now. None is what could not be given."""

    old: float | int | None
    new: float | int | None
    relative: float | None
    """(new - old) / old; None where there is no old, or it is 0."""
    verdict: ChangeVerdict


def compare_means(old: Histogram, new: Histogram) -> Change:
    """The mean time; less is better.

    Welch's test for means of unequal variance (B. L. Welch, "The Generalization of
    'Student's' Problem when Several Different Population Variances are Involved", Biometrika
    34, 1947). From 30 samples each, where the normal distribution stands for Student's.
    """
    then, now = old.mean, new.mean
    if min(old.count, new.count) < _ENOUGH_FOR_A_MEAN or then is None or now is None:
        return _change(then, now, "too few samples")
    variance = sum((h.stdev or 0.0) ** 2 / h.count for h in (old, new))
    return _judged(then, now, abs(now - then) > _Z * sqrt(variance))


def compare_percentiles(old: Histogram, new: Histogram, q: float) -> Change:
    """The percentile `q`, 50 <= q < 100; less is better.

    Beyond noise if the confidence intervals of the two, see interval(), do not overlap;
    that is stricter than it need be (Schenker and Gentleman, "On Judging the Significance
    of Differences by Examining the Overlap Between Confidence Intervals", The American
    Statistician 55, 2001). Too few samples where one of them has no upper end: below 528
    samples for p99, 5,296 for p99.9. The figures themselves are given from fewer on, see
    samples_needed(). Raises ValueError for another `q`.
    """
    then, now = (h.percentile(q) if h.count >= samples_needed(q) else None for h in (old, new))
    before, after = interval(old, q), interval(new, q)
    if before is None or after is None:
        return _change(then, now, "too few samples")
    return _judged(then, now, before[1] < after[0] or after[1] < before[0])


def compare_rates(old_count: int, old_ns: int, new_count: int, new_ns: int) -> Change:
    """Answers per second, from how many there were in how many nanoseconds; more is better.

    The counts are taken for Poisson variables, and their difference for a normal one, from
    10 each. In a closed loop counts vary less than that: the judgement is then cautious.
    Raises ValueError for a time that is not above 0.
    """
    if old_ns <= 0 or new_ns <= 0:
        raise ValueError(f"rates are over more than 0 ns, not {old_ns} and {new_ns}")
    seconds, seconds_now = old_ns / 1e9, new_ns / 1e9
    then, now = old_count / seconds, new_count / seconds_now
    if min(old_count, new_count) < _ENOUGH_EVENTS:
        return _change(then, now, "too few samples")
    deviation = sqrt(old_count / seconds**2 + new_count / seconds_now**2)
    return _judged(then, now, abs(now - then) > _Z * deviation, more_is_better=True)


def compare_shares(old_part: int, old_whole: int, new_part: int, new_whole: int) -> Change:
    """A share such as that of failed requests, from 0 to 1; less is better.

    The pooled test for two proportions, where at least 5 cases are to be expected on either
    side (Cochran's rule); none at all on both sides is no change.
    """
    then = old_part / old_whole if old_whole else None
    now = new_part / new_whole if new_whole else None
    if then is None or now is None:
        return _change(then, now, "too few samples")
    if then == now:
        return _change(then, now, "within noise")
    pooled = (old_part + new_part) / (old_whole + new_whole)
    if min(old_whole, new_whole) * min(pooled, 1 - pooled) < _ENOUGH_EXPECTED:
        return _change(then, now, "too few samples")
    deviation = sqrt(pooled * (1 - pooled) * (1 / old_whole + 1 / new_whole))
    return _judged(then, now, abs(now - then) > _Z * deviation)


def interval(histogram: Histogram, q: float) -> tuple[int, int] | None:
    """The 99 % confidence interval of the percentile `q`, 50 <= q < 100, in nanoseconds.

    Between two of the sorted samples, whatever the distribution: how many samples lie below
    the true percentile is a binomial variable (Hahn and Meeker, "Statistical Intervals",
    1991, section 5.2). None where the sample is too small to have such an upper end. Raises
    ValueError for another `q`.
    """
    if not 50 <= q < 100:
        raise ValueError(f"intervals are given for percentiles from 50 to below 100, not {q}")
    count = histogram.count
    few, many = _above(count, 1 - q / 100)
    if few < 0:
        return None
    return histogram.value_at(count - many + 1), histogram.value_at(count - few)


def _above(count: int, share: float) -> tuple[int, int]:
    """How few and how many of `count` samples can hardly be those of the largest `share`.

    For a binomial variable: the highest number that it stays at or below, and the lowest
    that it reaches, with a chance of _TAIL at most; -1 if even none at all is more likely.
    """
    mean = count * share
    variance = mean * (1 - share)
    if variance >= _EXACT_BELOW:
        # Half of one more on each side: the usual correction for a variable in whole steps.
        away = _Z * sqrt(variance) + 0.5
        return floor(mean - away), ceil(mean + away)
    few = -1
    below = 0.0  # the chance of fewer than `number`
    chance = (1 - share) ** count
    for number in range(count + 1):
        if 1 - below <= _TAIL:
            return few, number
        below += chance
        if below <= _TAIL:
            few = number
        chance *= (count - number) / (number + 1) * share / (1 - share)
    return few, count


def _judged(
    then: float | int | None, now: float | int | None, clear: bool, *, more_is_better: bool = False
) -> Change:
    """What a change means that statistics found `clear`, or not."""
    if then is None or now is None:
        return _change(then, now, "too few samples")
    if not clear or abs(now - then) < FLOOR * then:
        return _change(then, now, "within noise")
    return _change(then, now, "better" if (now > then) == more_is_better else "worse")


def _change(then: float | int | None, now: float | int | None, verdict: ChangeVerdict) -> Change:
    relative = (now - then) / then if then and now is not None else None
    return Change(then, now, relative, verdict)
