"""CSV and Markdown: the report's numbers, in cells that no program misreads."""

from __future__ import annotations

import csv
import re

import pytest
from helpers.bench_reports import MS, Run, closed_loop, failing, stalled
from helpers.html import read
from markdown_it import MarkdownIt

from simpleipc_cli.bench.conditions import KINDS, TIME, evaluate, parse
from simpleipc_cli.bench.format import sections, to_csv, to_markdown
from simpleipc_cli.bench.report import Report

EMPTY = Run().report()

HOSTILE = [
    "a|b",
    "`",
    "``a`b```",
    " leading and trailing ",
    "</code><script>alert(1)</script>",
    "@everyone #1 **bold** [link](http://example.org) <b>",
    "a\nb\r\n| c |\n# heading",
    "\\",
    "\x1b[31mred\x00",
    "\udcff",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt",
    "a,b;c\t\"d\"'e'",
    "=1+1",
    "x" * 5_000,
]


def named(path: str) -> Report:
    run = Run(path)
    run.respond(0, 0, MS)
    return run.report()


# CSV


def lines(report: Report) -> dict[str, tuple[str, str]]:
    head, *rows = csv.reader(to_csv(report).splitlines())
    assert head == ["figure", "unit", "value"]
    found = {figure: (unit, value) for figure, unit, value in rows}
    assert len(found) == len(rows), "a figure twice"
    return found


@pytest.mark.parametrize("made", [failing, stalled, lambda: EMPTY], ids=["closed", "open", "empty"])
def test_the_csv_has_every_figure_that_a_condition_may_use(made):
    report = made()
    found, values = lines(report), report.values()
    for name, kind in KINDS.items():
        if name.startswith("total."):
            continue
        unit, value = found[name]
        if values[name] is None:
            assert value == ""
        elif kind == TIME:
            assert unit == "ns"
            assert re.fullmatch(r"\d+", value)
            assert int(value) == round(values[name])
        else:
            assert float(value) == values[name]


def test_the_csv_has_the_counts_the_rate_and_failures_by_kind():
    found = lines(failing())
    results = failing().results
    assert found["path"] == ("text", failing().path)
    assert found["partial"] == found["generator_saturated"] == ("bool", "true")
    assert found["elapsed"] == ("ns", str(results.elapsed))
    assert found["rate"] == ("1/s", repr(failing().rate))
    assert found["offered_rate"] == ("1/s", "")
    assert found["answered"] == ("count", str(failing().answered))
    assert found["failures.protocol"] == ("count", "0")
    assert "failures.protocol.max" not in found
    for kind, times in results.failures.items():
        name = f"failures.{kind.replace(' ', '_')}"
        assert found[name] == ("count", str(times.count))
        assert found[f"{name}.max"] == ("ns", str(times.max))
        assert found[f"{name}.mean"] == ("ns", str(round(times.mean)))
    assert lines(stalled())["offered_rate"] == ("1/s", "500.0")


def test_every_csv_has_the_same_lines_before_the_times_of_failures():
    first, second, third = (list(lines(report)) for report in (EMPTY, stalled(), failing()))
    assert first == second == third[: len(first)]
    assert all(name.startswith("failures.") for name in third[len(first) :])


def test_the_csv_needs_no_quotes():
    # No quotes and no carriage return; only the path could need them.
    text = to_csv(failing())
    assert "\r" not in text
    assert '"' not in text
    assert text.endswith("\n")
    p99 = [line.split(",")[2] for line in text.splitlines() if line.split(",")[0] == "p99"]
    assert p99 == [str(failing().values()["p99"])]


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
def test_a_csv_is_valid_for_any_path(path):
    text = to_csv(named(path))
    assert text.encode()
    assert list(lines(named(path)))[:2] == ["path", "started_at"]
    assert len(text.splitlines()) == len(to_csv(named("x")).splitlines())
    assert lines(named(path))["p99"] == ("ns", "")


@pytest.mark.parametrize("path", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_spreadsheet_reads_a_path_as_a_formula(path):
    assert lines(named(path))["path"] == ("text", f"./{path}")


# Markdown


def rendered(report: Report, *more):
    """Return the Markdown as HTML, as GitHub renders it (except for the tags it forbids)."""
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(to_markdown(report, sections(report, *more)))
    )
    return read(f"<body>{html}</body>")


def evaluated(report: Report, *conditions: str):
    return evaluate([parse(text) for text in conditions], report.bounds())


def tables_of(page) -> list[dict[str, list[str]]]:
    """The cells after the first of each row, by the text of the first; heads are "head"."""
    tables = []
    for table in page.all("table"):
        rows = [
            [cell.text for cell in row.content if not isinstance(cell, str)]
            for row in table.all("tr")
        ]
        tables.append({"head": rows[0], **{first: rest for first, *rest in rows[1:]}})
    return tables


def test_the_markdown_has_every_section_with_its_notes():
    conditions = evaluated(failing(), "p99>5s", "errors>0")
    changes = failing().compare(closed_loop())
    page = rendered(failing(), conditions, changes)
    expected = list(sections(failing(), conditions, changes))
    assert [one.title for one in expected] == [
        *("Load", "Conditions", "Since the baseline", "Times", "Failures")
    ]
    for one, found in zip(expected, tables_of(page), strict=True):
        rows = {first: list(rest) for first, *rest in one.rows}
        assert found == {"head": list(one.heads), **rows}
        assert all(text in page.text for text in (one.title, *one.notes, *one.warnings)[1:])


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
def test_no_path_becomes_markup_in_markdown(path):
    report = named(path)
    report.started_at = path
    page = rendered(report)
    assert to_markdown(report, sections(report)).encode()
    plain, hostile = rendered(named("plain")), page.one("h3").one("code")
    allowed = path.strip() if len(path) < 100 and path.isprintable() else ""
    assert allowed in hostile.text
    assert [element.tag for element in page.one("h3")] == ["h3", "code"]
    assert len(page.all("table")) == len(plain.all("table"))
    assert not page.all("a")
    assert not page.all("script")
    assert not any("\n" in code.text or "\x1b" in code.text for code in page.all("code"))
