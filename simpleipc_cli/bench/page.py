"""A report as one file of HTML, without scripts, that loads nothing.

charts.element() escapes all foreign text (the path, the conditions); should that ever fail, the
page's own policy still forbids scripts and connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from simpleipc_cli.bench.charts import (
    Markup,
    element,
    latency_by_percentile,
    latency_over_time,
    throughput_over_time,
)
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import ConditionResult
from simpleipc_cli.bench.format import Section, Table, sections
from simpleipc_cli.bench.report import Report

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CHARTS = (latency_by_percentile, latency_over_time, throughput_over_time)
_COLOURED = frozenset({"better", "worse", "passed", "failed"})  # classes of style.css


def to_html(
    report: Report,
    conditions: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
) -> str:
    """Return the whole page. `changes` are those since a baseline."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"sipc bench: {report.path}"),
        element("style", Markup(files(__package__).joinpath("style.css").read_text("utf-8"))),
    )
    first, *rest = map(_section, sections(report, conditions, changes))
    drawn = [chart for draw in _CHARTS if (chart := draw(report)) is not None]
    heading = element("h1", "Load on ", element("code", report.path))
    body = element("body", heading, element("main", first, *drawn, *rest))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _section(section: Section) -> Markup:
    name = section.title.lower().replace(" ", "-")
    return element(
        "section",
        element("h2", section.title, id=name),
        *(element("p", text, class_="warning") for text in section.warnings),
        *(element("p", text, class_="note") for text in section.notes),
        _table(section.table, name),
    )


def _table(table: Table, name: str) -> Markup:
    """Return a table, which scrolls if the screen is too narrow; `name` is its heading's id."""
    heads = [element("th", head, scope="col") if head else element("td") for head in table.heads]
    rows = [element("tr", *heads)] if any(table.heads) else []
    for first, *cells in table.rows:
        described = (element("td", cell, class_=_class(cell)) for cell in cells)
        rows.append(element("tr", element("th", first, scope="row"), *described))
    kind = "words" if table.has_words else ""
    content = element("table", *rows, aria_labelledby=name, class_=kind)
    return element(
        "div", content, class_="scroll", role="region", tabindex="0", aria_labelledby=name
    )


def _class(cell: str) -> str:
    word = cell.partition(":")[0]
    return word if word in _COLOURED else ""
