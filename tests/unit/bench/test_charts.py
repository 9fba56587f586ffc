"""The charts: every point is drawn at its position on the axes, computed independently.

Axes are read off two of their ticks; nothing here uses the positions that page.py computes.
"""

from __future__ import annotations

from itertools import pairwise
from math import log10

import pytest
from helpers.bench_reports import (
    LONGEST,
    MS,
    SECOND,
    US,
    Run,
    closed_loop,
    failing,
    open_loop,
    stalled,
)
from helpers.html import Axis, points, read

from simpleipc_cli.bench.conditions import parse_ns
from simpleipc_cli.bench.page import (
    latency_by_percentile,
    latency_over_time,
    throughput_over_time,
)

STALL = (4 * SECOND, 6 * SECOND)
EVERY_CHART = (latency_by_percentile, latency_over_time, throughput_over_time)


def ns_of(name: str) -> float:
    return 0 if name == "0" else parse_ns(name.replace(" min", "m").replace(" ", ""))


def share_of(name: str) -> float:
    return float(name.removesuffix(" %")) / 100


def nines(share: float) -> float:
    return -log10(1 - share)


def number_of(name: str) -> float:
    return float(name.replace(",", ""))


def line(chart, kind: str, shape: str = "line"):
    (path,) = chart.all("path", f"{shape} {kind}")
    return points(path["d"])


def height_at(stroke, x: float) -> float:
    """Return the height of a path of steps at `x`; at a step, the height before it."""
    for (begin, y), (end, _) in pairwise(stroke):
        if begin < x <= end:
            return y
    raise AssertionError(f"nothing is drawn at {x}")


def keys(chart) -> list[str]:
    return [name.text for name in chart.one("ul", "legend").all("li")]


def is_log(chart) -> bool:
    return "0" not in [tick.text for tick in chart.all("text", "tick up")]


def latency_axis(chart) -> Axis:
    return Axis(chart, "up", ns_of, log10 if is_log(chart) else float)


# By percentile


@pytest.mark.parametrize("seconds", [1, 20], ids=["500 responses", "10,000 responses"])
def test_every_percentile_is_drawn_at_its_position(seconds):
    report = open_loop(seconds=seconds, stall=(100 * MS, 900 * MS))
    chart = read(latency_by_percentile(report))
    along, up = Axis(chart, "along", share_of, nines), latency_axis(chart)
    names = [tick.text for tick in chart.all("text", "tick along")]
    expected = ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    assert names == expected[: 4 + 2 * (seconds == 20)][::-1]
    for kind, histogram in ("response", report.results.response), ("service", report.results.total):
        (stroke,) = line(chart, kind)
        assert all(begin <= end for (begin, _), (end, _) in pairwise(stroke)), "it goes back"
        assert all(high <= low for (_, low), (_, high) in pairwise(stroke)), "it falls"
        for q in (0.001, 10, 50, 75, 90, 95, 99, 99.9)[: 7 + (seconds == 20)]:
            place = along.position(q / 100)
            expected = up.position(histogram.percentile(q))
            # Steps narrower than 1 of 1000 are drawn as one: points near it count, too.
            near = [y for x, y in stroke if abs(x - place) <= 1]
            near.append(height_at(stroke, max(place, 1e-9)))
            assert max(near) + 0.2 >= expected >= min(near) - 0.2


@pytest.mark.parametrize("count", [2, 9, 10, 99, 100, 999, 1_000, 40_000])
def test_no_percentile_is_drawn_beyond_what_the_samples_support(count):
    run = Run()
    for number in range(count):
        took = 100 * US + number * number
        run.respond(number * MS, number * MS, number * MS + took)
    chart = read(latency_by_percentile(run.report()))
    shown = {tick.text for tick in chart.all("text", "tick along")}
    assert ("90 %" in shown) == (count >= 10)
    assert ("99 %" in shown) == (count >= 100)
    assert ("99.9 %" in shown) == (count >= 1_000)
    (stroke,) = line(chart, keys(chart)[0])
    # The line ends at the last known percentile, without a step to the right or upwards.
    ends_at = run.results.total.value_at(count - 1)
    assert stroke[-1] == (1000, pytest.approx(latency_axis(chart).position(ends_at), abs=0.5))


def test_a_closed_loop_has_one_line_for_service_time():
    chart = read(latency_by_percentile(closed_loop(seconds=1)))
    assert keys(chart) == ["service"]
    assert len(chart.all("path", "line service")) == 1


def test_an_open_loop_has_a_named_line_for_each_time():
    chart = read(latency_by_percentile(open_loop(seconds=1)))
    assert keys(chart) == ["response", "service"]


@pytest.mark.parametrize("count", [0, 1])
def test_no_chart_is_drawn_for_too_few_responses_for_a_median(count):
    run = Run()
    for number in range(count):
        run.respond(number, number, number + MS)
    assert latency_by_percentile(run.report()) is None


def test_a_curve_of_many_steps_is_drawn_with_a_limited_number_of_points():
    run = Run()
    for exponent in range(47):
        for number in range(1_000):
            run.results.total.record((1 << exponent) + (number << exponent) // 1_000)
    chart = latency_by_percentile(run.report())
    assert len(chart) < 60_000


def test_the_axis_of_similar_times_begins_at_0():
    run = Run()
    for number in range(100):
        run.respond(number * MS, number * MS, number * MS + MS + number * 10 * US)
    chart = read(latency_by_percentile(run.report()))
    assert "Log scale." not in chart.one("figcaption").text
    up = latency_axis(chart)
    (stroke,) = line(chart, keys(chart)[0])
    assert up.position(0) == pytest.approx(1000)
    assert stroke[0][1] == pytest.approx(up.position(MS), abs=0.2)


# Latency over time


def test_medians_and_maxima_are_drawn_at_the_times_of_their_windows():
    run = Run()
    for number in range(1_000):  # 10 ms apart; the median 5 ms, in the second half 500 ms
        took = (5 if number < 500 else 500) * MS + (number % 5 - 2) * 10 * US
        run.respond(number * 10 * MS, number * 10 * MS, number * 10 * MS + took)
    svg = read(latency_over_time(run.report()))
    along = Axis(svg, "along", ns_of)
    up = latency_axis(svg)
    first, *_, last = line(svg, "p50")
    early = [y for x, y in first if x < along.position(4 * SECOND)]
    late = [y for x, y in last if x > along.position(7 * SECOND)]
    assert early
    assert late
    off = abs(up.position(100 * MS) - up.position(103.3 * MS))  # the precision of times in a slot
    assert all(abs(y - up.position(5 * MS)) <= off for y in early)
    assert all(abs(y - up.position(500 * MS)) <= off for y in late)
    (highest,) = {min(y for stroke in line(svg, "max") for _, y in stroke)}
    assert highest == pytest.approx(up.position(500.02 * MS), abs=0.2)


def test_a_time_without_responses_is_a_gap_in_the_line():
    svg = read(latency_over_time(stalled()))
    along = Axis(svg, "along", ns_of)
    begin, end = (along.position(at) for at in STALL)
    slack = along.position(330 * MS)  # the window in which the stall begins or ends
    for kind in ("p50", "p99", "max"):
        before, after = line(svg, kind)
        assert before[-1][0] == pytest.approx(begin, abs=slack)
        assert after[0][0] == pytest.approx(end, abs=slack)
    assert len(line(read(latency_over_time(open_loop())), "p50")) == 1


def test_a_single_response_is_drawn_as_a_dot():
    run = Run()
    for number in range(200):  # 100 responses in the first second, 100 in the last of ten
        at = (number if number < 100 else 800 + number) * 10 * MS
        run.respond(at, at, at + MS)
    run.respond(5 * SECOND, 5 * SECOND, 5 * SECOND + MS)
    svg = read(latency_over_time(run.report()))
    along = Axis(svg, "along", ns_of)
    ((x, _),) = line(svg, "max")[1]
    assert x == pytest.approx(along.position(5 * SECOND), abs=along.position(330 * MS))


def test_a_99th_percentile_is_drawn_only_from_a_hundred_responses():
    assert keys(read(latency_over_time(open_loop(rate=500)))) == ["max", "p99", "p50"]
    assert keys(read(latency_over_time(open_loop(rate=50)))) == ["max", "p50"]


def test_the_99th_percentile_lies_between_the_median_and_the_longest_time():
    run = Run()
    for number in range(20_000):  # of 100 in a row 2 take 50 ms, and one of 1,000 takes 400 ms
        took = 400 if number % 1_000 == 500 else 50 if number % 50 == 7 else 1
        run.respond(number * MS, number * MS, number * MS + took * MS)
    svg = read(latency_over_time(run.report()))
    up = latency_axis(svg)
    for kind, ns in ("p50", MS), ("p99", 50 * MS):
        off = abs(up.position(ns) - up.position(1.033 * ns))  # the precision of times in a slot
        assert all(abs(y - up.position(ns)) <= off for _, y in line(svg, kind)[0])


# Throughput


def responses_drawn(svg) -> float:
    """The area below the line of responses: a rate times a time is a number."""
    along, up = Axis(svg, "along", ns_of), Axis(svg, "up", number_of)
    (stroke,) = line(svg, "answered")
    assert stroke[0][0] == 0
    assert stroke[-1][0] == 1000
    return sum(
        up.transformed(y) * (along.transformed(end) - along.transformed(begin)) / SECOND
        for (begin, _), (end, y) in pairwise(stroke)
    )


@pytest.mark.parametrize(
    "made",
    [
        open_loop,
        stalled,
        lambda: open_loop(rate=7, seconds=13),
        failing,
        lambda: closed_loop(seconds=3, median=300 * MS),
    ],
    ids=["steady", "stall", "few", "failures", "slow"],
)
def test_the_area_below_the_line_is_the_number_of_responses(made):
    report = made()
    svg = read(throughput_over_time(report))
    # Places have one decimal of 1000; the steps of a stall are high and narrow.
    assert responses_drawn(svg) == pytest.approx(report.answered, rel=0.02)


@pytest.mark.parametrize("odd", [0, 1, 3, 79, 81, 159], ids=lambda odd: f"{odd} ms")
def test_a_steady_rate_is_a_level_line_up_to_the_end(odd):
    run = Run(rate=1_000.0)
    for number in range(10_000 + odd):
        run.respond(number * MS, number * MS, number * MS + 100 * US)
    svg = read(throughput_over_time(run.report()))
    up = Axis(svg, "up", number_of)
    (stroke,) = line(svg, "answered")
    # In the last stretch, of 80 responses or more, one of them may be too early.
    assert all(up.transformed(y) == pytest.approx(1_000, rel=1.5 / 80) for _, y in stroke)


def test_a_run_that_ends_without_responses_is_drawn_to_its_end():
    run = Run()
    for number in range(1_000):
        run.respond(number * 10 * MS, number * 10 * MS, number * 10 * MS + MS)
    run.results.elapsed = 20 * SECOND
    svg = read(throughput_over_time(run.report()))
    up, along = Axis(svg, "up", number_of), Axis(svg, "along", ns_of)
    (stroke,) = line(svg, "answered")
    assert up.transformed(height_at(stroke, along.position(15 * SECOND))) == pytest.approx(
        0, abs=0.2
    )
    assert up.transformed(height_at(stroke, along.position(5 * SECOND))) == pytest.approx(
        100, abs=1
    )


def test_the_offered_rate_is_a_level_line():
    svg = read(throughput_over_time(stalled()))
    up = Axis(svg, "up", number_of)
    (stroke,) = line(svg, "offered")
    assert (stroke[0][0], stroke[-1][0]) == (0, 1000)
    assert all(y == pytest.approx(up.position(500), abs=0.2) for _, y in stroke)
    assert not read(throughput_over_time(closed_loop(seconds=1))).all("path", "line offered")


def test_failures_per_second_have_a_line_if_there_were_failures():
    svg = read(throughput_over_time(failing()))
    up, along = Axis(svg, "up", number_of), Axis(svg, "along", ns_of)
    (stroke,) = line(svg, "failed")
    # Eight clients that wait 10 ms after each refusal.
    rate = up.transformed(height_at(stroke, along.position(4 * SECOND)))
    assert rate == pytest.approx(800, rel=0.05)
    assert not read(throughput_over_time(closed_loop(seconds=1))).all("path", "line failed")


def test_a_run_with_only_failures_has_a_throughput_chart_and_no_latency_chart():
    run = Run()
    for number in range(1_000):
        run.fail("refused", number * 10 * MS, number * 10 * MS)
    assert latency_by_percentile(run.report()) is None
    assert latency_over_time(run.report()) is None
    assert keys(read(throughput_over_time(run.report()))) == ["answered", "failed"]


# All of them


@pytest.mark.parametrize("chart", EVERY_CHART)
@pytest.mark.parametrize(
    "times",
    [[], [1], [0] * 300, [LONGEST] * 300, [LONGEST + 5, 0, 1] * 100, [7] * 2_000],
    ids=["none", "one", "0 ns", "39 h", "both", "alike"],
)
@pytest.mark.parametrize("apart", [0, 1, 10**13], ids=["at once", "1 ns", "3 h"])
def test_unusual_runs_are_drawn_with_valid_numbers(chart, times, apart):
    run = Run(rate=10.0)
    for number, ns in enumerate(times):
        run.respond(number * apart, number * apart, number * apart + ns)
    drawn = chart(run.report())
    if drawn is None:
        assert len(times) < 2 or apart < MS
        return
    assert "nan" not in drawn
    assert "inf" not in drawn
    for path in read(drawn).all("path"):
        for stroke in points(path["d"].partition("Z")[0]):
            assert all(-0.1 <= x <= 1000.1 and -0.1 <= y <= 1000.1 for x, y in stroke)


@pytest.mark.parametrize("chart", EVERY_CHART)
def test_a_chart_has_a_name_for_screen_readers(chart):
    section = read(chart(stalled()))
    svg = section.one("svg", "chart")
    assert (svg["role"], svg["aria-label"]) == ("img", section.one("h2").text)
