"""The sections of a report, which all its formats share."""

from __future__ import annotations

from itertools import pairwise

import pytest
from helpers.bench_reports import (
    CLOSED,
    MS,
    Run,
    closed_loop,
    failing,
    open_loop,
    report_of,
    stalled,
)

from simpleipc_cli.bench.conditions import evaluate, parse
from simpleipc_cli.bench.format import Section, describe_condition, format_figure, sections
from simpleipc_cli.bench.report import Report


def evaluated(report: Report, *conditions: str):
    return evaluate(map(parse, conditions), report.bounds())


def section(title: str, report: Report, *more) -> Section:
    (found,) = [one for one in sections(report, *more) if one.title == title]
    return found


def rows(title: str, report: Report, *more) -> dict[str, list[str]]:
    return {first: rest for first, *rest in section(title, report, *more).rows}


def test_the_first_section_describes_the_load_and_the_numbers_of_requests():
    load = "open loop, 500/s offered, at most 64 at once, 64 B each, for 10.0 s"
    load += ", after 1.00 s of warm-up"
    assert rows("Load", stalled()) == {
        "started": ["2026-01-02T03:04:05+00:00"],
        "load": [load],
        "rate": ["500/s achieved, 500/s offered, over 10.0 s"],
        "requests": ["5,000 sent, 5,000 answered, 0 failed"],
        "late": ["943 started more than 1.00 ms after they were due, 0 never"],
        "payload": ["312.5 KiB sent and 19.5 MiB received, by those answered"],
        "generator": ["31 % of a processor"],
    }
    report = report_of(12, 2, {**CLOSED, "processes": 2, "requests": 1_000})
    found = rows("Load", report)
    assert found["load"] == [
        "closed loop, at most 8 at once, 2 processes, 1,000 requests, 0 B each, for 10.0 s"
    ]
    assert found["rate"] == ["6/s, over 2.00 s"]
    assert found["requests"] == ["16 sent, 12 answered, 2 failed (14.3 %), 2 unfinished"]
    assert "late" not in found


def test_a_partial_report_and_a_busy_generator_are_marked():
    first, second = section("Load", failing()).warnings
    assert first.startswith("Partial: interrupted")
    assert second.startswith("Warning: the generator may be the limit")
    assert not section("Load", stalled()).warnings


@pytest.mark.parametrize("made", [stalled, failing], ids=["open", "closed"])
def test_the_section_of_times_has_all_times_with_the_number_of_samples(made):
    report = made()
    found = section("Times", report)
    kinds = ["response", "service", "connect", "first byte"][0 if report.is_open else 1 :]
    assert found.heads == ("", *kinds)
    shown = {first: rest for first, *rest in found.rows}
    for kind, histogram in report.times().items():
        column = kinds.index(kind.replace("_", " "))
        for name, value in histogram.figures().items():
            assert shown[name][column].removeprefix("~") == format_figure(name, value)
        assert shown["samples"][column] == f"{histogram.count:,}"


def test_a_percentile_is_marked_where_few_samples_lie_beyond_it():
    report = report_of(299)
    found = rows("Times", report)
    assert [found[name][0][0] for name in ("p95", "p99", "p99.9")] == ["1", "~", "-"]
    assert section("Times", report).notes[:2] == [
        '"-": too few samples',
        '"~": fewer than 3 samples lie beyond, likely to be too low',
    ]
    assert not rows("Times", report_of(300))["p99"][0].startswith("~")
    assert not any(note.startswith('"') for note in section("Times", report_of(30_000)).notes)


def test_the_section_of_failures_lists_them_by_kind_with_the_most_frequent_first():
    found = section("Failures", failing())
    assert found.heads == ("", "count", "mean", "p50", "p99", "max")
    assert [row[0] for row in found.rows] == [
        *("refused", "timeout", "truncated", "not as expected")
    ]
    counts = [int(row[1].replace(",", "")) for row in found.rows]
    assert all(more >= fewer for more, fewer in pairwise(counts))
    for kind, count, mean, *_, longest in found.rows:
        times = failing().results.failures[kind]
        assert count == f"{times.count:,}"
        assert mean == format_figure("mean", times.mean)
        assert longest == format_figure("max", times.max)


def test_the_section_of_conditions_shows_each_condition_with_its_figure():
    report = report_of(20, failed=0)
    conditions = evaluated(report, "p99>5s", "p99>1010us", "p99>1018500ns", "errors==0")
    assert rows("Conditions", report, conditions) == {
        "p99>5s": ["1.02 ms", "passed"],
        "p99>1010us": ["1.02 ms", "failed"],
        "p99>1018500ns": ["1.02 ms", "failed: use -n 100 or more"],
        "errors==0": ["0", "failed"],
    }
    assert [describe_condition(one) for one in conditions] == [
        "fail if p99>5s: p99 is 1.02 ms",
        "fail if p99>1010us: p99 is 1.02 ms",
        "fail if p99>1018500ns: p99 is 1.02 ms, which counts as failed: use -n 100 or more",
        "fail if errors==0: errors is 0",
    ]


def test_a_condition_without_a_result_shows_its_bounds():
    run = Run()
    for ns in (MS, 4 * MS, 6 * MS):
        run.respond(0, 0, ns)
    (result,) = evaluated(run.report(), "p90>5ms")
    assert describe_condition(result) == (
        "fail if p90>5ms: p90 is 4.00 ms to 6.00 ms, which counts as failed: use -n 10 or more"
    )
    (result,) = evaluated(Run().report(), "p90>5ms")
    assert describe_condition(result) == (
        "fail if p90>5ms: p90 is not available, which counts as failed"
    )


def test_each_change_since_the_baseline_has_a_verdict():
    changes = stalled().compare(open_loop(seed=5))
    found = rows("Since the baseline", stalled(), (), changes)
    for name, change in changes.items():
        relative = "-" if change.relative is None else f"{change.relative * 100:+.1f} %"
        assert found[name.replace("_", " ")] == [
            format_figure(name, change.old),
            format_figure(name, change.new),
            relative,
            change.verdict,
        ]


@pytest.mark.parametrize(
    ("now", "then", "kind"),
    [
        (stalled, lambda: open_loop(seed=5), "response"),
        (stalled, lambda: closed_loop(seconds=1), "service"),
        (lambda: closed_loop(seconds=1), stalled, "service"),
    ],
    ids=["both open", "then closed", "now closed"],
)
def test_the_section_of_changes_names_the_compared_times(now, then, kind):
    notes = section("Since the baseline", now(), (), now().compare(then())).notes
    assert notes[0] == f"Times are {kind} times."


def test_a_report_without_responses_has_no_times():
    run = Run()
    run.fail("refused", 0, MS)
    assert [one.title for one in sections(run.report())] == ["Load", "Failures"]
    assert [one.title for one in sections(Run().report())] == ["Load"]
