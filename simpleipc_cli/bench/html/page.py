"""A report as one file of HTML, without scripts, that loads nothing.

Pure: from a report to text. markup.py escapes all foreign text (the path, the settings, the
conditions); should that ever fail, the page's own policy still forbids scripts and
connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.resources import files

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import ConditionResult
from simpleipc_cli.bench.format import format_ns
from simpleipc_cli.bench.histogram import samples_needed
from simpleipc_cli.bench.html.charts import (
    Chart,
    latency_by_percentile,
    latency_over_time,
    throughput_over_time,
)
from simpleipc_cli.bench.html.markup import Markup, element, join, no_break
from simpleipc_cli.bench.html.tables import (
    changes_section,
    facts_section,
    failures_section,
    times_section,
)
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.sections import notices, shortened

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_CHECK = "M2 6.5 L5 9.5 L10 2.5"
_CROSS = "M2.5 2.5 L9.5 9.5 M9.5 2.5 L2.5 9.5"


def to_html(
    report: Report,
    conditions: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
) -> str:
    """Return the whole page. `changes` are those since a baseline."""
    body = element(
        "body",
        element(
            "header",
            element("h1", "Load on ", element("code", shortened(report.path, 80))),
            element("p", *_lead(report), class_="lead"),
            *_notices(report),
            element("dl", *_tiles(report), class_="tiles"),
        ),
        element(
            "main",
            *_conditions(conditions),
            *([changes_section(report, changes)] if changes else []),
            *_by_percentile(report),
            *_over_time(report),
            *times_section(report),
            *failures_section(report),
            facts_section(report),
        ),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(report), body, lang='en')}\n"


def _head(report: Report) -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"sipc bench: {shortened(report.path, 60)}"),
        element("style", Markup(files(__package__).joinpath("style.css").read_text("utf-8"))),
    )


def _lead(report: Report) -> Iterator[Markup]:
    yield element("span", wording.describe_load(report))
    yield Markup(" ")  # allows a line break
    yield element("span", _time(report.started_at))


def _time(written: str) -> Markup:
    """Format an ISO 8601 time for people; anything else stays as it is."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return element("span", shortened(written, 40))
    shown = moment.isoformat(" ", "seconds").replace("+00:00", " UTC")
    return element("time", shown, datetime=moment.isoformat("T", "seconds"))


def _notices(report: Report) -> Iterator[Markup]:
    for word, text in notices(report):
        yield element(
            "p", element("strong", f"{word}: "), no_break(text), class_="notice", role="note"
        )


def _tiles(report: Report) -> Iterator[Markup]:
    """Yield the most important figures."""
    values = report.values()
    ended = report.answered + report.results.failed()
    kind = "response time" if report.is_open else "service time"
    detail = f"{report.answered:,} in {format_ns(report.results.elapsed)}"
    if report.offered_rate is not None:
        detail = f"of {wording.format_rate(report.offered_rate)} offered"
    yield _tile("answers per second", wording.format_rate(report.rate), detail)
    for name, meaning in ("p50", f"median {kind}"), ("p99", "1 in 100 took longer"):
        needed = f"needs {samples_needed(float(name[1:])):,} answers"
        detail = needed if values[name] is None else meaning
        yield _tile(name, wording.format_figure(name, values[name]), detail)
    yield _tile(
        "max", wording.format_figure("max", values["max"]), f"longest of {report.answered:,}"
    )
    failed = report.results.failed()
    detail = f"of {ended:,}"
    if failed:
        detail = f"{wording.format_figure('error_rate', values['error_rate'])} of {ended:,}"
    yield _tile("failed", f"{failed:,}", detail, is_bad=failed > 0)


def _tile(name: str, figure: str, detail: str, *, is_bad: bool = False) -> Markup:
    return element(
        "div",
        element("dt", name),
        element("dd", _number(figure), class_="number"),
        element("dd", detail, class_="detail"),
        class_="bad" if is_bad else "",
    )


def _number(figure: str) -> Markup:
    """Style the unit of a figure; the text stays the same."""
    for mark in " /":
        number, found, unit = figure.partition(mark)
        if found:
            return join([number, element("span", found + unit, class_="unit")])
    return join([figure])


def _conditions(conditions: Sequence[ConditionResult]) -> Iterator[Markup]:
    if not conditions:
        return
    failed = sum(condition.fails for condition in conditions)
    heading = (
        f"{failed} of {len(conditions)} conditions failed" if failed else "All conditions passed"
    )
    if len(conditions) == 1:
        heading = "The condition failed" if failed else "The condition passed"
    items = [_condition(condition) for condition in conditions]
    yield element("section", element("h2", heading), element("ul", *items, class_="verdicts"))


def _condition(condition: ConditionResult) -> Markup:
    mark = element("path", d=_CROSS if condition.fails else _CHECK)
    word = "failed" if condition.fails else "passed"
    return element(
        "li",
        element("svg", mark, class_="mark", viewBox="0 0 12 12", aria_hidden="true"),
        element("strong", word),
        " ",
        element("span", no_break(wording.describe_condition(condition))),
        class_=word,
    )


def _by_percentile(report: Report) -> Iterator[Markup]:
    chart = latency_by_percentile(report)
    if chart is None:
        return
    text = "Each further nine has the same width: 1 of 100 answers lies to the right of 99 %."
    text += f" Drawn as far as {report.answered:,} answers support it; the longest took"
    text += f" {format_ns(report.latency.max or 0)}."
    yield _figure("Latency by percentile", chart, text)


def _over_time(report: Report) -> Iterator[Markup]:
    chart = latency_over_time(report)
    if chart is not None:
        text = f"Each point stands for the answers within {format_ns(chart.width)}."
        if "p99" not in dict(chart.keys):
            text += " They are too few for a 99th percentile."
        if "failures" in dict(chart.keys):
            text += " Marks at the top are failures, the higher the larger their share."
        yield _figure("Latency over time", chart, text)
    chart = throughput_over_time(report)
    if chart is not None:
        text = f"Answers per second, in steps of {format_ns(chart.width)}."
        yield _figure("Throughput over time", chart, text)


def _figure(heading: str, chart: Chart, text: str) -> Markup:
    if chart.is_log:
        text += " Log scale."
    legend = (element("li", name, class_=f"key {kind}") for kind, name in chart.keys)
    return element(
        "section",
        element("h2", heading),
        element(
            "figure",
            element("figcaption", no_break(text), class_="note"),
            element("ul", *legend, class_="legend", aria_hidden="true"),
            chart.svg,
        ),
    )
