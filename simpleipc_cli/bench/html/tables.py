"""The tables of a page: times, failures, changes since a baseline, and what was measured.

Pure functions from a report to markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench import sections as summary
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.histogram import HIGHEST
from simpleipc_cli.bench.html.markup import Markup, bound, element, join
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.stats import SummaryStats
from simpleipc_cli.bench.units import format_ns

_LONG = 30  # characters from which a fact has a line of its own


def times_table(report: Report) -> Iterator[Markup]:
    """All figures of all that was timed, and what each of them is; nothing without answers."""
    if not report.answered:
        return
    times = summary.timed(report)
    kinds = list(times)
    figures = {kind: SummaryStats.of(times[kind]).by_name() for kind in kinds}
    rows = [
        _row(name, *(_of_time(name, figures[kind][name], kind == kinds[0]) for kind in kinds))
        for name in figures[kinds[0]]
    ]
    samples = _row("samples", *(_cell(f"{times[kind].count:,}") for kind in kinds))
    yield element(
        "section",
        element("h2", "Times", id="times"),
        element("dl", *_explained(kinds), class_="kinds"),
        *_notes_on_times(report),
        _table("times", ["", *(_title(kind) for kind in kinds)], [*rows, samples]),
    )


def failures_table(report: Report) -> Iterator[Markup]:
    """How many failed of each kind, and how long that took; nothing if none did."""
    rows = []
    for kind, times in summary.failures(report).items():
        figures = SummaryStats.of(times).by_name()
        cells = (_of_time(name, figures[name]) for name in summary.FAILURE_FIGURES)
        rows.append(_row(kind, _cell(f"{times.count:,}"), *cells))
    if rows:
        yield element(
            "section",
            element("h2", "Failures", id="failures"),
            element("p", "Their times are no part of those of the answers.", class_="note"),
            _table("failures", ["kind", "count", *summary.FAILURE_FIGURES], rows),
        )


def compared(report: Report, changes: Mapping[str, Change]) -> Markup:
    """Each figure then and now, and whether the change is beyond noise."""
    rows = [
        _row(
            name.replace("_", " "),
            _cell(wording.figure(name, change.old)),
            _cell(wording.figure(name, change.new)),
            _cell(wording.change(change.relative)),
            _cell(change.verdict, f"word {change.verdict.split()[0]}"),
        )
        for name, change in changes.items()
    ]
    said = summary.changed(changes)
    which = f"Times are {summary.compared_times(report, changes)} times. {summary.HOW_JUDGED}"
    return element(
        "section",
        element("h2", "Since the baseline", id="baseline"),
        element("p", element("strong", f"{said[:1].upper()}{said[1:]}.")),
        element("p", bound(which), class_="note"),
        _table("baseline", ["", "baseline", "now", "change", "judgement"], rows),
    )


def facts(report: Report) -> Markup:
    """What was measured, how, and what was counted."""
    known = {"path": report.path, "started": report.started_at}
    known |= {"measured for": format_ns(report.tally.elapsed)}
    known |= summary.settings(report) | summary.counts(report)
    entries = [
        element(
            "div",
            element("dt", name),
            element("dd", element("code", value) if name == "path" else value),
            class_="long" if name == "path" or len(value) > _LONG else "",
        )
        for name, value in known.items()
    ]
    return element(
        "section",
        element("h2", "What was measured"),
        element("dl", *entries, class_="facts"),
    )


def _explained(kinds: Iterable[str]) -> Iterator[Markup]:
    """Each kind of time in one line."""
    for kind in kinds:
        name, _, meaning = wording.TIMES[kind].partition(": ")
        yield element("dt", name)
        yield element("dd", meaning)


def _notes_on_times(report: Report) -> Iterator[Markup]:
    if report.is_open:
        said = "Where the first two differ, requests could not be started when they were due."
        yield element("p", said, class_="note")
    if clamped := report.latency.clamped:
        said = f"{clamped:,} times were longer than {format_ns(HIGHEST)}, and count as that."
        yield element("p", said, class_="note")
    if any(figure is None for figure in SummaryStats.of(report.latency).by_name().values()):
        said = "A dash stands where there were too few answers to tell."
        yield element("p", said, class_="note")


def _title(kind: str) -> str:
    return kind.replace("_", " ")


def _table(name: str, columns: Iterable[str], rows: Iterable[str]) -> Markup:
    """A table in a frame of its own, which is scrolled where a screen is too narrow for it."""
    heads = [
        element("th", column, scope="col", class_="word" if column == "judgement" else "")
        if column
        else element("td")
        for column in columns
    ]
    table = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", join(rows)),
        aria_labelledby=name,
    )
    return element("div", table, class_="scroll", role="region", tabindex="0", aria_labelledby=name)


def _row(name: str, *cells: str) -> Markup:
    return element("tr", element("th", name, scope="row"), *cells)


def _cell(text: str, class_: str = "") -> Markup:
    return element("td", text, class_=class_)


def _of_time(name: str, value: float | int | None, is_main: bool = False) -> Markup:
    return _cell(wording.figure(name, value), "main" if is_main else "")
