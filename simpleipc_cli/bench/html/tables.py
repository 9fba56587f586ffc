"""The tables of a page: times, failures, changes since a baseline, settings and counts.

Pure functions from a report to markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench import sections
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.format import format_ns
from simpleipc_cli.bench.histogram import HIGHEST
from simpleipc_cli.bench.html.markup import Markup, element, no_break
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.stats import SummaryStats

_LONG = 30  # characters from which a fact has a line of its own


def times_section(report: Report) -> Iterator[Markup]:
    """Yield the figures of all times and their meaning; nothing without answers."""
    table = sections.times_table(report)
    if table is not None:
        yield element(
            "section",
            element("h2", "Times", id="times"),
            element("dl", *_meanings(sections.timed(report)), class_="kinds"),
            *_notes_on_times(report),
            _table("times", table, has_main_column=True),
        )


def failures_section(report: Report) -> Iterator[Markup]:
    """Yield the failures by kind, with their times; nothing without failures."""
    table = sections.failures_table(report)
    if table is not None:
        yield element(
            "section",
            element("h2", "Failures", id="failures"),
            element("p", "Their times are not part of those of the answers.", class_="note"),
            _table("failures", table),
        )


def changes_section(report: Report, changes: Mapping[str, Change]) -> Markup:
    """Return each figure in the baseline and now, and whether the change is beyond noise."""
    summary = sections.describe_changes(changes)
    times = sections.compared_times(report, changes)
    return element(
        "section",
        element("h2", "Since the baseline", id="baseline"),
        element("p", element("strong", f"{summary[:1].upper()}{summary[1:]}.")),
        element("p", no_break(f"Times are {times} times. {sections.VERDICT_RULE}"), class_="note"),
        _table("baseline", sections.changes_table(changes)),
    )


def facts_section(report: Report) -> Markup:
    """Return the settings and the counts."""
    facts = {"path": report.path, "started": report.started_at}
    facts |= {"measured for": format_ns(report.results.elapsed)}
    facts |= sections.settings(report) | sections.counts(report)
    entries = [
        element(
            "div",
            element("dt", name),
            element("dd", element("code", value) if name == "path" else value),
            class_="long" if name == "path" or len(value) > _LONG else "",
        )
        for name, value in facts.items()
    ]
    return element(
        "section",
        element("h2", "What was measured"),
        element("dl", *entries, class_="facts"),
    )


def _meanings(kinds: Iterable[str]) -> Iterator[Markup]:
    for kind in kinds:
        name, _, meaning = wording.TIME_DESCRIPTIONS[kind].partition(": ")
        yield element("dt", name)
        yield element("dd", meaning)


def _notes_on_times(report: Report) -> Iterator[Markup]:
    if report.is_open:
        text = "If the first two differ, requests could not be started when they were due."
        yield element("p", text, class_="note")
    if clamped := report.latency.clamped:
        text = f"{clamped:,} times were longer than {format_ns(HIGHEST)}, and count as that."
        yield element("p", text, class_="note")
    if None in SummaryStats.of(report.latency).by_name().values():
        text = "A dash stands for a figure with too few answers."
        yield element("p", text, class_="note")


def _table(name: str, table: sections.Table, *, has_main_column: bool = False) -> Markup:
    """Return a table in a frame of its own, which scrolls if the screen is too narrow."""
    *figures, last = table.heads
    heads = [element("th", head, scope="col") if head else element("td") for head in figures]
    heads.append(element("th", last, scope="col", class_="word" if table.has_verdicts else ""))
    rows = [_row(row, table.has_verdicts, has_main_column) for row in table.rows]
    content = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        aria_labelledby=name,
    )
    return element(
        "div", content, class_="scroll", role="region", tabindex="0", aria_labelledby=name
    )


def _row(row: Sequence[str], has_verdict: bool, has_main_column: bool) -> Markup:
    name, *cells = row
    classes = [""] * len(cells)
    if has_main_column and name != "samples":
        classes[0] = "main"
    if has_verdict:
        classes[-1] = f"word {cells[-1].split()[0]}"
    return element(
        "tr",
        element("th", name.replace("_", " "), scope="row"),
        *(element("td", cell, class_=kind) for cell, kind in zip(cells, classes, strict=True)),
    )
