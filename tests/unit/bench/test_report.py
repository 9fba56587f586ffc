"""The report: its figures, its JSON format, and its comparison."""

from __future__ import annotations

import json
import re

import pytest
from helpers.bench_reports import CLOSED, MS, OPEN, report_of

from simpleipc_cli.bench.conditions import KINDS, TIME_FIGURES, ConditionResult, parse
from simpleipc_cli.bench.generator import Results
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report, Settings


def read_back(report: Report) -> Report:
    return Report.from_json(json.loads(json.dumps(report.to_json())))


each_loop = pytest.mark.parametrize("settings", [CLOSED, OPEN], ids=["closed", "open"])


@each_loop
@pytest.mark.parametrize("answered", [0, 1, 1_000])
@pytest.mark.parametrize("failed", [0, 5])
@pytest.mark.parametrize("share", [0.25, 0.8996], ids=["idle", "hardly the limit"])
def test_json_restores_every_figure_of_a_report(settings, answered, failed, share):
    report = report_of(answered, failed, settings, share, partial=True)
    back = read_back(report)
    without = {"timeline": None}  # only for charts
    assert back.to_json() | without == report.to_json() | without
    assert back.values() == report.values()
    assert back.settings == report.settings
    assert (back.generator_saturated, back.partial) == (report.generator_saturated, True)


def floats(data, where: str = ""):
    """Yield the places of all floats."""
    if isinstance(data, float):
        yield where
    elif isinstance(data, dict):
        for name, value in data.items():
            yield from floats(value, f"{where}.{name}")
    elif isinstance(data, list):
        for value in data:
            yield from floats(value, where)


@each_loop
def test_all_times_in_the_json_are_whole_nanoseconds(settings):
    found = set(floats(report_of(settings=settings).to_json()))
    assert found <= {".rate", ".offered_rate", ".generator.cpu_share", ".settings.rate"}


def test_the_json_has_the_fields_that_are_documented():
    data = report_of().to_json()
    assert (data["schema"], data["version"]) == ("sipc-bench", 1)
    assert (
        list(data)
        == (
            "schema version path started_at partial settings counts elapsed rate offered_rate"
            " generator times failures timeline"
        ).split()
    )
    assert data["counts"] == {
        "answered": 1_000,
        "failed": 5,
        "started": 1_007,
        "late": 0,
        "skipped": 0,
        "unfinished": 2,
        "bytes_out": 10_000,
        "bytes_in": 20_000,
    }
    assert data["times"]["response"] is None
    assert list(data["times"]["service"]) == (
        "count min mean stddev p50 p75 p90 p95 p99 p99.9 p99.99 max histogram".split()
    )
    assert data["times"]["service"]["p99.99"] is None
    assert data["failures"]["timeout"]["max"] == 7 * MS


def changed(data, where: str, value):
    """A copy with another value in one place; DELETE takes the field away."""
    copy = json.loads(json.dumps(data))
    *path, last = where.split("/")
    inner = copy
    for name in path:
        inner = inner[name]
    if value is DELETE:
        del inner[last]
    else:
        inner[last] = value
    return copy


DELETE = object()


DAMAGED = "it is incomplete or damaged"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("schema", "other", "it is not a report of sipc-bench"),
        ("schema", DELETE, "it is not a report of sipc-bench"),
        ("version", 2, "its version is 2, not 1"),
        ("version", DELETE, "its version is None, not 1"),
        ("path", DELETE, DAMAGED),
        ("settings", 5, DAMAGED),
        ("counts", None, DAMAGED),
        ("counts/late", DELETE, DAMAGED),
        ("counts/answered", 999, "answered is 999, but the histograms hold 1000"),
        ("counts/failed", 0, "failed is 0, but the histograms hold 5"),
        ("elapsed", "long", DAMAGED),
        ("elapsed", 10**400, DAMAGED),
        ("generator/cpu_share", 10**400, DAMAGED),
        ("settings/more", 1, DAMAGED),
        ("times", 5, DAMAGED),
        ("times/service", 5, DAMAGED),
        ("times/service/histogram/count", 5, "count is 5, but the buckets hold 1000"),
        ("times/service/histogram/total", 10**400, DAMAGED),
        ("times/service/histogram/buckets", [[1.5, 1.5, 1]], DAMAGED),
        ("times/connect", DELETE, DAMAGED),
        ("failures/timeout", [], DAMAGED),
    ],
)
def test_an_invalid_report_is_refused_with_one_short_line(where, value, message):
    data = changed(report_of(settings=OPEN).to_json(), where, value)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Report.from_json(data)
    assert re.fullmatch(r"[ -~]{1,120}", str(caught.value))


@pytest.mark.parametrize("data", [None, 5, [], "text"], ids=ascii)
def test_json_that_is_no_object_is_refused(data):
    with pytest.raises(ValueError, match="it is not a report of sipc-bench"):
        Report.from_json(data)


@each_loop
def test_a_report_has_a_value_for_every_figure_that_a_condition_may_use(settings):
    named = {name.removeprefix("total.") for name in KINDS}
    assert named - report_of(settings=settings).values().keys() == set()


def test_latency_is_response_time_in_an_open_loop_and_service_time_in_a_closed():
    of_open = report_of(settings=OPEN).values()
    assert of_open["p50"] == of_open["response.p50"] > of_open["service.p50"]
    of_closed = report_of().values()
    assert of_closed["p50"] == of_closed["response.p50"] == of_closed["service.p50"]


def test_figures_without_samples_are_none_and_give_conditions_no_result():
    values, bounds = report_of(0, 0).values(), report_of(0, 0).bounds()
    assert values["error_rate"] is values["p50"] is values["connect.mean"] is None
    assert ConditionResult(parse("p50 > 1h"), bounds["p50"]).holds is None


@each_loop
def test_the_bounds_are_the_figures_and_the_bounds_of_missing_percentiles(settings):
    report = report_of(20, settings=settings)
    values, bounds = report.values(), report.bounds()
    assert bounds.keys() == values.keys()
    for name, value in values.items():
        if value is not None:
            assert bounds[name] == (value, value)
    for prefix in ("", "service.", "response.", "connect.", "first_byte."):
        assert values[f"{prefix}p99"] is None
        low, high = bounds[f"{prefix}p99"]
        assert values[f"{prefix}p90"] < low < high == values[f"{prefix}max"]


def test_the_error_rate_is_the_share_of_failures_among_ended_requests():
    assert report_of(95, 5).values()["error_rate"] == 0.05
    assert report_of(95, 5).values()["requests"] == 102


def test_a_report_says_if_a_busy_generator_may_be_the_limit():
    assert report_of(share=0.95).generator_saturated
    assert not report_of(share=0.5).generator_saturated


@each_loop
def test_a_report_compared_with_itself_is_within_noise(settings):
    report = report_of(100_000, 50, settings)
    changes = report.compare(read_back(report))
    assert set(changes) == {"rate", "mean", "error_rate", *TIME_FIGURES} - {
        *("min", "max", "stddev")
    }
    assert {change.verdict for change in changes.values()} == {"within noise"}
    assert {change.relative for change in changes.values()} == {0.0}


def test_a_report_of_a_slower_server_is_worse_and_of_a_faster_one_better():
    fast, slow = report_of(), report_of()
    slow.results.total = Histogram()
    slow.results.total.record(50 * MS, 1_000)
    assert slow.compare(fast)["p50"].verdict == slow.compare(fast)["mean"].verdict == "worse"
    assert fast.compare(slow)["p50"].verdict == "better"


def test_an_open_loop_and_a_closed_one_are_compared_by_their_service_times():
    changes = report_of(settings=OPEN).compare(report_of())
    assert changes["p50"].relative == 0


def test_the_comparison_of_a_report_without_samples_says_too_few_samples():
    empty = Report("/run/x", "now", Settings(), Results())
    changes = empty.compare(report_of())
    assert "rate" not in changes
    assert {change.verdict for change in changes.values()} == {"too few samples"}
