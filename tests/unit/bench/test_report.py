"""The report: what it says, as JSON and back, and compared."""

from __future__ import annotations

import json
import re

import pytest
from helpers.bench_reports import CLOSED, MS, OPEN, report_of

from simpleipc_cli.bench import conditions as verdict
from simpleipc_cli.bench.generator import Results
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report


def read_back(report: Report) -> Report:
    return Report.from_json(json.loads(json.dumps(report.to_json())))


each_loop = pytest.mark.parametrize("settings", [CLOSED, OPEN], ids=["closed", "open"])


@each_loop
@pytest.mark.parametrize("answered", [0, 1, 1_000])
@pytest.mark.parametrize("failed", [0, 5])
@pytest.mark.parametrize("share", [0.25, 0.8996], ids=["idle", "hardly the limit"])
def test_json_restores_every_figure(settings, answered, failed, share):
    report = report_of(answered, failed, settings, share, partial=True)
    back = read_back(report)
    assert back.to_json() == report.to_json()
    assert back.values() == report.values()
    assert (back.rate, back.offered_rate, back.is_open) == (
        report.rate,
        report.offered_rate,
        report.is_open,
    )
    assert (back.is_limit, back.partial) == (report.is_limit, True)


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


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("schema", "other", "it is no report of sipc-bench: schema is 'other'"),
        ("schema", DELETE, "it is no report of sipc-bench"),
        ("version", 2, "it is of version 2, not 1"),
        ("version", "1", "version is '1', not a whole number"),
        ("version", True, "version is True, not a whole number"),
        ("path", DELETE, "path is None, not a text"),
        ("started_at", 5, "started_at is 5, not a text"),
        ("partial", "no", "partial is 'no', not true or false"),
        ("settings", [], "settings is [], not an object"),
        ("settings/rate", "500", "rate is '500', not a number"),
        ("settings/rate", float("nan"), "rate is nan, not a number"),
        ("counts", None, "counts is None, not an object"),
        ("counts/late", -1, "late is -1, which is below 0"),
        ("counts/late", DELETE, "late is missing"),
        ("counts/answered", 999, "answered is 999, but the rest makes it 1000"),
        ("counts/failed", 0, "failed is 0, but the rest makes it 5"),
        ("counts/started", 1_000, "started is 1000, but the rest makes it 1007"),
        ("elapsed", 1.5, "elapsed is 1.5, not a whole number"),
        ("generator", DELETE, "generator is None, not an object"),
        ("generator/cpu_share", "busy", "cpu_share is 'busy', not a number"),
        ("generator/cpu_share", float("inf"), "cpu_share is inf, not a number"),
        ("times", 5, "times is 5, not an object"),
        ("times/service", None, "service is None, not an object"),
        ("times/service/histogram/count", 5, "service: count is 5, but the buckets hold 1000"),
        ("times/connect", DELETE, "connect is None, not an object"),
        ("times/response", None, "response has 0 times for 1000 answers"),
        ("failures/timeout", None, "timeout is None, not an object"),
        ("failures/boredom", {}, "there is no failure of the kind 'boredom'"),
        ("timeline", None, "the timeline is None, not an object"),
        ("timeline/slots", [], "the timeline has 0 requests"),
    ],
)
def test_a_broken_report_is_refused_and_the_message_says_what_is_wrong(where, value, message):
    data = changed(report_of(settings=OPEN).to_json(), where, value)
    with pytest.raises(ValueError, match=re.escape(message)):
        Report.from_json(data)


@pytest.mark.parametrize("data", [None, 5, [], "text"], ids=ascii)
def test_data_that_is_no_object_is_refused(data):
    with pytest.raises(ValueError, match=r"the report is .*, not an object"):
        Report.from_json(data)


@each_loop
def test_there_is_a_value_for_every_figure_that_a_condition_may_name(settings):
    named = {name.removeprefix("total.") for name in verdict.KINDS}
    assert named - report_of(settings=settings).values().keys() == set()


def test_latency_is_response_time_in_an_open_loop_and_service_time_in_a_closed():
    of_open = report_of(settings=OPEN).values()
    assert of_open["p50"] == of_open["response.p50"] > of_open["service.p50"]
    of_closed = report_of().values()
    assert of_closed["p50"] == of_closed["response.p50"] == of_closed["service.p50"]


def test_figures_without_samples_are_none_and_fail_a_condition():
    values = report_of(0, 0).values()
    assert values["error_rate"] is values["p50"] is values["connect.mean"] is None
    assert verdict.parse("p50 > 1h").holds(values) is None


def test_the_error_rate_is_a_share_of_what_ended():
    assert report_of(95, 5).values()["error_rate"] == 0.05
    assert report_of(95, 5).values()["requests"] == 102


def test_a_busy_generator_may_be_the_limit():
    assert report_of(share=0.95).is_limit
    assert not report_of(share=0.5).is_limit


@each_loop
def test_a_report_is_within_noise_of_itself(settings):
    report = report_of(60_000, 50, settings)
    changes = report.compare(read_back(report))
    assert set(changes) == {"rate", "mean", "error_rate", *verdict.TIME_FIGURES} - {
        *("min", "max", "stddev")
    }
    assert {change.verdict for change in changes.values()} == {"within noise"}
    assert {change.relative for change in changes.values()} == {0.0}


def test_a_slower_report_is_worse_and_the_other_one_better():
    fast, slow = report_of(), report_of()
    slow.tally.total = Histogram()
    slow.tally.total.record(50 * MS, 1_000)
    assert slow.compare(fast)["p50"].verdict == slow.compare(fast)["mean"].verdict == "worse"
    assert fast.compare(slow)["p50"].verdict == "better"


def test_an_open_loop_and_a_closed_one_are_compared_by_their_service_times():
    changes = report_of(settings=OPEN).compare(report_of())
    assert changes["p50"].relative == 0


def test_a_report_without_samples_compares_as_too_few_samples():
    empty = Report("/run/x", "now", CLOSED, Results(), 0.0)
    changes = empty.compare(report_of())
    assert "rate" not in changes
    assert {change.verdict for change in changes.values()} == {"too few samples"}
