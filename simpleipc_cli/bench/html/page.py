"""A report as one file of HTML, without scripts, that loads nothing.

svg.element() escapes all foreign text (the path, the conditions); should that ever fail, the
page's own policy still forbids scripts and connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files

from simpleipc_cli.bench import format as fmt
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import ConditionResult
from simpleipc_cli.bench.histogram import samples_needed
from simpleipc_cli.bench.html.charts import (
    latency_by_percentile,
    latency_over_time,
    throughput_over_time,
)
from simpleipc_cli.bench.html.svg import Markup, element
from simpleipc_cli.bench.report import Report

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def to_html(
    report: Report,
    conditions: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
) -> str:
    """Return the whole page. `changes` are those since a baseline."""
    charts = (latency_by_percentile, latency_over_time, throughput_over_time)
    sections = [
        *_conditions(conditions),
        *(_changes(report, changes) if changes else ()),
        *(drawn for chart in charts if (drawn := chart(report)) is not None),
        *_times(report),
        *_failures(report),
        *_details(report),
    ]
    body = element("body", _header(report), element("main", *sections))
    return f"<!DOCTYPE html>\n{element('html', _head(report), body, lang='en')}\n"


def _head(report: Report) -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"sipc bench: {fmt.shortened(report.path, 60)}"),
        element("style", Markup(files(__package__).joinpath("style.css").read_text("utf-8"))),
    )


def _header(report: Report) -> Markup:
    return element(
        "header",
        element("h1", "Load on ", element("code", fmt.shortened(report.path, 80))),
        _note(fmt.describe_load(report)),
        *(
            element("p", element("strong", f"{word}: "), text, class_="notice", role="note")
            for word, text in fmt.notices(report)
        ),
        element("dl", *_tiles(report), class_="tiles"),
    )


def _tiles(report: Report) -> Iterator[Markup]:
    """Yield the most important figures."""
    values, failed = report.values(), report.results.failed()
    detail = f"{report.answered:,} in {fmt.format_ns(report.results.elapsed)}"
    if report.settings.rate is not None:
        detail = f"of {fmt.format_rate(report.settings.rate)} offered"
    yield _tile("responses per second", fmt.format_rate(report.rate), detail)
    kind = "response time" if report.is_open else "service time"
    for name, meaning in ("p50", f"median {kind}"), ("p99", "1 in 100 took longer"):
        needed = f"needs {samples_needed(float(name[1:])):,} responses"
        detail = needed if values[name] is None else meaning
        yield _tile(name, fmt.format_figure(name, values[name]), detail)
    longest = fmt.format_figure("max", values["max"])
    yield _tile("max", longest, f"longest of {report.answered:,}")
    share = f"{fmt.format_figure('error_rate', values['error_rate'])} of " if failed else "of "
    detail = f"{share}{report.answered + failed:,}"
    yield _tile("failed", f"{failed:,}", detail, is_bad=failed > 0)


def _tile(name: str, figure: str, detail: str, *, is_bad: bool = False) -> Markup:
    return element(
        "div",
        element("dt", name),
        element("dd", figure, class_="number"),
        element("dd", detail, class_="detail"),
        class_="bad" if is_bad else "",
    )


def _conditions(conditions: Sequence[ConditionResult]) -> Iterator[Markup]:
    items = []
    for condition in conditions:
        word = "failed" if condition.fails else "passed"
        text = f" {fmt.describe_condition(condition)}"
        items.append(element("li", element("strong", word), text, class_=word))
    if items:
        yield element(
            "section", element("h2", "Conditions"), element("ul", *items, class_="conditions")
        )


def _changes(report: Report, changes: Mapping[str, Change]) -> Iterator[Markup]:
    summary = fmt.describe_changes(changes)
    times = fmt.compared_times(report, changes)
    summed_up = element("p", element("strong", f"{summary[:1].upper()}{summary[1:]}."))
    note = f"Times are {times} times. {fmt.VERDICT_RULE}"
    yield _section("Since the baseline", [summed_up, _note(note)], fmt.changes_table(changes))


def _times(report: Report) -> Iterator[Markup]:
    if (table := fmt.times_table(report)) is not None:
        notes = [fmt.TIME_DESCRIPTIONS[kind] for kind in fmt.timed(report)]
        if None in report.latency.figures().values():
            notes.append(fmt.TOO_FEW_SAMPLES)
        yield _section("Times", map(_note, notes), table)


def _failures(report: Report) -> Iterator[Markup]:
    if (table := fmt.failures_table(report)) is not None:
        note = _note("Their times are not part of those of the responses.")
        yield _section("Failures", [note], table)


def _details(report: Report) -> Iterator[Markup]:
    details = {"path": report.path, "started": report.started_at, **fmt.details(report)}
    entries = [
        element("div", element("dt", name), element("dd", value)) for name, value in details.items()
    ]
    yield element(
        "section", element("h2", "Settings and counts"), element("dl", *entries, class_="details")
    )


def _note(text: str) -> Markup:
    return element("p", text, class_="note")


def _section(title: str, notes: Iterable[Markup], table: fmt.Table) -> Markup:
    """Return a section with a table, which scrolls if the screen is too narrow."""
    name = title.lower().replace(" ", "-")
    heads = [element("th", head, scope="col") if head else element("td") for head in table.heads]
    content = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *map(_row, table.rows)),
        aria_labelledby=name,
    )
    frame = element(
        "div", content, class_="scroll", role="region", tabindex="0", aria_labelledby=name
    )
    return element("section", element("h2", title, id=name), *notes, frame)


def _row(row: Sequence[str]) -> Markup:
    name, *cells = row
    verdicts = {"worse", "better"}
    return element(
        "tr",
        element("th", name.replace("_", " "), scope="row"),
        *(element("td", cell, class_=cell if cell in verdicts else "") for cell in cells),
    )
