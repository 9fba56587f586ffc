"""A report as a page: one file of HTML, without scripts, that loads nothing.

Pure: from a report to text. Whatever came from outside - the path, the settings, the
conditions - is escaped by markup.py, and should that ever fail, the page's own policy
still forbids scripts and connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import ConditionResult
from simpleipc_cli.bench.histogram import samples_needed
from simpleipc_cli.bench.html.charts import (
    Chart,
    latency_by_percentile,
    latency_over_time,
    throughput_over_time,
)
from simpleipc_cli.bench.html.markup import Markup, bound, element, join
from simpleipc_cli.bench.html.style import sheet
from simpleipc_cli.bench.html.tables import (
    compared,
    facts,
    failures_table,
    times_table,
)
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.sections import notices, shortened
from simpleipc_cli.bench.units import format_ns

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_CHECK = "M2 6.5 L5 9.5 L10 2.5"
_CROSS = "M2.5 2.5 L9.5 9.5 M9.5 2.5 L2.5 9.5"


def to_html(
    report: Report,
    judged: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
) -> str:
    """The whole page. `judged` are conditions, `changes` those since a baseline."""
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
            *_verdicts(judged),
            *([compared(report, changes)] if changes else []),
            *_by_percentile(report),
            *_over_time(report),
            *times_table(report),
            *failures_table(report),
            facts(report),
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
        element("style", Markup(sheet())),
    )


def _lead(report: Report) -> Iterator[Markup]:
    """What was done, and when."""
    yield element("span", wording.load(report))
    yield Markup(" ")  # where a line may end
    yield element("span", _moment(report.started_at))


def _moment(written: str) -> Markup:
    """A moment as people read it; as it stands where it is none."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return element("span", shortened(written, 40))
    shown = moment.isoformat(" ", "seconds").replace("+00:00", " UTC")
    return element("time", shown, datetime=moment.isoformat("T", "seconds"))


def _notices(report: Report) -> Iterator[Markup]:
    for what, said in notices(report):
        yield element(
            "p", element("strong", f"{what}: "), bound(said), class_="notice", role="note"
        )


def _tiles(report: Report) -> Iterator[Markup]:
    """The numbers that one looks for first."""
    values = report.values()
    ended = report.answered + report.tally.failed()
    kind = "response time" if report.is_open else "service time"
    detail = f"{report.answered:,} in {format_ns(report.tally.elapsed)}"
    if report.offered_rate is not None:
        detail = f"of {wording.rate(report.offered_rate)} offered"
    yield _tile("answers per second", wording.rate(report.rate), detail)
    for name, meaning in ("p50", f"median {kind}"), ("p99", "1 in 100 took longer"):
        needed = f"needs {samples_needed(float(name[1:])):,} answers"
        said = needed if values[name] is None else meaning
        yield _tile(name, wording.figure(name, values[name]), said)
    yield _tile("max", wording.figure("max", values["max"]), f"longest of {report.answered:,}")
    lost = values["error_rate"]
    detail = f"of {ended:,}" if not lost else f"{wording.figure('error_rate', lost)} of {ended:,}"
    yield _tile("failed", f"{report.tally.failed():,}", detail, is_bad=report.tally.failed() > 0)


def _tile(name: str, figure: str, detail: str, *, is_bad: bool = False) -> Markup:
    return element(
        "div",
        element("dt", name),
        element("dd", _number(figure), class_="number"),
        element("dd", detail, class_="detail"),
        class_="bad" if is_bad else "",
    )


def _number(figure: str) -> Markup:
    """A figure with its unit set apart, for the eye only: the text stays the same."""
    for mark in " /":
        number, found, unit = figure.partition(mark)
        if found:
            return join([number, element("span", found + unit, class_="unit")])
    return join([figure])


def _verdicts(judged: Sequence[ConditionResult]) -> Iterator[Markup]:
    """The conditions, and what became of them."""
    if not judged:
        return
    failed = sum(judgement.fails for judgement in judged)
    heading = f"{failed} of {len(judged)} conditions failed" if failed else "All conditions passed"
    if len(judged) == 1:
        heading = "The condition failed" if failed else "The condition passed"
    items = [_verdict(judgement) for judgement in judged]
    yield element("section", element("h2", heading), element("ul", *items, class_="verdicts"))


def _verdict(judgement: ConditionResult) -> Markup:
    mark = element("path", d=_CROSS if judgement.fails else _CHECK)
    word = "failed" if judgement.fails else "passed"
    return element(
        "li",
        element("svg", mark, class_="mark", viewBox="0 0 12 12", aria_hidden="true"),
        element("strong", word),
        " ",
        element("span", bound(wording.judgement(judgement))),
        class_=word,
    )


def _by_percentile(report: Report) -> Iterator[Markup]:
    chart = latency_by_percentile(report)
    if chart is None:
        return
    said = "Each further nine has the same room: of a hundred answers, one lies right of 99 %."
    said += f" Drawn as far as {report.answered:,} answers support it; the longest took"
    said += f" {format_ns(report.latency.max or 0)}."
    yield _figure("Latency by percentile", chart, said)


def _over_time(report: Report) -> Iterator[Markup]:
    """The charts over time."""
    chart = latency_over_time(report)
    if chart is not None:
        said = f"Each point sums up the answers that came within {format_ns(chart.width)}."
        if "p99" not in dict(chart.keys):
            said += " They are too few for a 99th percentile."
        if "failures" in dict(chart.keys):
            said += " The bar above marks failures, the higher the larger their share."
        yield _figure("Latency over time", chart, said)
    chart = throughput_over_time(report)
    if chart is not None:
        said = f"Answers per second, in steps of {format_ns(chart.width)}."
        yield _figure("Throughput over time", chart, said)


def _figure(heading: str, chart: Chart, said: str) -> Markup:
    if chart.is_log:
        said += " Log scale."
    legend = (element("li", name, class_=f"key {kind}") for kind, name in chart.keys)
    return element(
        "section",
        element("h2", heading),
        element(
            "figure",
            element("figcaption", bound(said), class_="note"),
            element("ul", *legend, class_="legend", aria_hidden="true"),
            chart.svg,
        ),
    )
