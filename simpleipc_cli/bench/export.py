"""A report as CSV for spreadsheets and awk, and as Markdown for GitHub.

The CSV has three columns, `figure,unit,value`, and one line per figure, which can be selected
by name: `awk -F, '$1 == "p99" { print $3 }'`. Figures have the names of conditions.KINDS, and
more of the same kind. The first lines are the same in every report; the times of failures
follow if there were any. A value that is not available is empty. Units: ns (whole
nanoseconds), 1/s, ratio (0 to 1), count, bytes, bool, and text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from simpleipc_cli.bench import format as fmt
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import COUNT, KINDS, RATE, SHARE, SIZE, TIME, ConditionResult
from simpleipc_cli.bench.generator import FAILURES
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.text import printable

_UNITS = {TIME: "ns", RATE: "1/s", SHARE: "ratio", COUNT: "count", SIZE: "bytes"}
_FORMULA = ("=", "+", "-", "@")

_Value = str | float | int | None


def to_csv(report: Report) -> str:
    """Return the figures, one per line; lines end with a line feed alone, for awk."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(("figure", "unit", "value"))
    for name, unit, value in _csv_lines(report):
        writer.writerow((name, unit, "" if value is None else _csv_value(unit, value)))
    return written.getvalue()


def _csv_lines(report: Report) -> Iterator[tuple[str, str, _Value]]:
    """Yield figure, unit and value."""
    results = report.results
    yield "path", "text", _no_formula(printable(report.path))
    yield "started_at", "text", printable(report.started_at)
    yield "partial", "bool", report.partial
    yield "elapsed", "ns", results.elapsed
    yield "offered_rate", "1/s", report.settings.rate
    yield "cpu_share", "ratio", round(report.cpu_share, 3)
    yield "generator_saturated", "bool", report.generator_saturated
    yield "answered", "count", report.answered
    yield "unfinished", "count", results.unfinished
    values = report.values()
    for name, kind in sorted(KINDS.items(), key=lambda entry: entry[1] == TIME):
        if name in values:  # not "total.p99", which is another name of p99
            yield name, _UNITS[kind], values[name]
    for kind in FAILURES:
        times = results.failures.get(kind, Histogram())
        yield f"failures.{kind.replace(' ', '_')}", "count", times.count
    for kind in FAILURES:
        if (times := results.failures.get(kind, Histogram())).count:
            figures = times.figures(f"failures.{kind.replace(' ', '_')}.")
            yield from ((name, "ns", value) for name, value in figures.items())


def _csv_value(unit: str, value: str | float | int) -> str:
    if unit == "bool":
        return "true" if value else "false"
    if unit == "ns" and isinstance(value, float):
        return str(round(value))
    return str(value)


def _no_formula(path: str) -> str:
    """Write a path so that no spreadsheet takes it for a formula."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def to_markdown(
    report: Report,
    conditions: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
) -> str:
    """Return the report for a pull request, in GitHub's flavour.

    `changes` are those since a baseline.
    """
    parts = [
        f"### Load on {_code(report.path)}",
        *_load(report),
        *(f"> **{word}:** {_escaped(text)}" for word, text in fmt.notices(report)),
        *_conditions(conditions),
        *(_changes(report, changes) if changes else ()),
        *_times(report),
        *_table(fmt.failures_table(report)),
        _details(report),
    ]
    return "\n\n".join(parts) + "\n"


def _load(report: Report) -> Iterator[str]:
    failures = ""
    if failed := report.results.failed():
        share = fmt.format_figure("error_rate", report.values()["error_rate"])
        failures = f", **{failed:,} failed** ({share})"
    elapsed = fmt.format_ns(report.results.elapsed)
    yield f"**{fmt.format_rate(report.rate)}**: {report.answered:,} in {elapsed}{failures}"
    yield _escaped(f"{fmt.describe_load(report)}; {report.started_at}")


def _conditions(conditions: Sequence[ConditionResult]) -> Iterator[str]:
    if conditions:
        yield "\n".join(
            f"- {'❌' if one.fails else '✅'} {_escaped(fmt.describe_condition(one))}"
            for one in conditions
        )


def _changes(report: Report, changes: Mapping[str, Change]) -> Iterator[str]:
    times = fmt.compared_times(report, changes)
    text = _escaped(fmt.describe_changes(changes))
    yield f"**Since the baseline:** {text} ({times} times)."
    yield from _table(fmt.changes_table(changes))


def _times(report: Report) -> Iterator[str]:
    yield from _table(fmt.times_table(report))
    if report.answered:
        kinds = list(fmt.timed(report))[: 1 + report.is_open]
        yield "\n".join(f"- {_escaped(fmt.TIME_DESCRIPTIONS[kind])}" for kind in kinds)


def _details(report: Report) -> str:
    """Return settings and counts, collapsed."""
    lines = (f"{name}: {_code(value)}" for name, value in fmt.details(report).items())
    return "<details><summary>Settings and counts</summary>\n\n- {}\n\n</details>".format(
        "\n- ".join(lines)
    )


def _table(table: fmt.Table | None) -> Iterator[str]:
    """Yield a table: row names and verdicts are aligned left, figures right."""
    if table is None:
        return
    alignment = [":--", *["--:"] * (len(table.heads) - 1)]
    rows = [list(row) for row in table.rows]
    if table.has_verdicts:
        alignment[-1] = ":--"
        for row in rows:
            row[-1] = f"**{row[-1]}**" if row[-1] in {"worse", "better"} else row[-1]
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in (table.heads, alignment, *rows))


def _code(text: str) -> str:
    """Return text as code, in which GitHub sees no markup, no mention and no issue number."""
    text = printable(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    # One space at both ends is stripped, and is needed next to a backtick.
    padding = " " if longest or text != text.strip() or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _escaped(text: str) -> str:
    """Escape everything that could be markup."""
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", printable(text))
