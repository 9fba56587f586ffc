"""A report as text: sections for all output formats, and the formats CSV and Markdown.

Sections are plain text: each output format escapes and aligns it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from simpleipc_cli.bench.compare import MIN_CHANGE, Change
from simpleipc_cli.bench.conditions import (
    COUNT,
    KINDS,
    NANOSECONDS,
    RATE,
    SHARE,
    SIZE,
    TIME,
    ConditionResult,
)
from simpleipc_cli.bench.generator import FAILURES, LATE_AFTER
from simpleipc_cli.bench.histogram import (
    FEW,
    PERCENTILES,
    Histogram,
    has_few_beyond,
    percentile_name,
)
from simpleipc_cli.bench.report import Report, Settings
from simpleipc_cli.text import printable

NOT_AVAILABLE = "-"
"""Replaces a figure that is not available: too few samples, or none."""

_FEW_BEYOND = "~"  # marks a percentile that is likely to be too low

_MARKS = {
    NOT_AVAILABLE: f'"{NOT_AVAILABLE}": too few samples',
    _FEW_BEYOND: f'"{_FEW_BEYOND}": fewer than {FEW} samples lie beyond, likely to be too low',
}
_TIME_DESCRIPTIONS = {
    "response": "response time: from when a request was due to its complete response",
    "service": "service time: from the actual start of a request to its complete response",
    "connect": "connect: from the start of a request to its connection",
    "first_byte": "first byte: from the start of a request to the first byte of its response",
}
_VERDICT_RULE = (
    f"A change counts if it is at least {MIN_CHANGE * 100:g} %, and significant at 99 % confidence."
)
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_FAILURE_FIGURES = ("mean", "p50", "p99", "max")
_UNITS = {TIME: "ns", RATE: "1/s", SHARE: "ratio", COUNT: "count", SIZE: "bytes"}
_FORMULA = ("=", "+", "-", "@")


def format_ns(ns: float) -> str:
    """Format nanoseconds, 0 or more, with three significant digits: "1.23 ms".

    Below 1 us these are whole nanoseconds, from 1000 s on whole seconds.
    """
    if round(ns) < 1000:
        return f"{round(ns)} ns"
    for unit in ("us", "ms", "s"):
        number = f"{ns / NANOSECONDS[unit]:#.3g}".rstrip(".")
        if float(number) < 1000:
            return f"{number} {unit}"
    return f"{ns / NANOSECONDS['s']:.0f} s"


def format_figure(name: str, value: float | int | None) -> str:
    """Format a figure of KINDS with its unit: "1.23 ms", "950/s", "0.5 %"."""
    if value is None:
        return NOT_AVAILABLE
    kind = KINDS[name]
    if kind == TIME:
        return format_ns(value)
    if kind == RATE:
        return format_rate(value)
    if kind == SHARE:
        return f"{value * 100:.3g} %"
    return format_size(int(value)) if kind == SIZE else f"{value:,}"


def format_rate(per_second: float) -> str:
    """Format responses per second: "12,345/s", "12.3/s"."""
    return f"{per_second:,.0f}/s" if per_second >= 1000 else f"{per_second:.3g}/s"


def format_size(count: int) -> str:
    """Format a number of bytes: "512 B", "4.0 KiB"."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def _describe_load(report: Report) -> str:
    """Describe the requested load: "closed loop, at most 8 at once, for 10.0 s"."""
    settings = report.settings
    parts = ["closed loop"]
    if settings.rate is not None:
        parts = ["open loop", f"{format_rate(settings.rate)} offered"]
    parts.append(f"at most {settings.concurrency} at once")
    if settings.processes != 1:
        parts.append(f"{settings.processes} processes")
    if settings.requests is not None:
        parts.append(f"{settings.requests:,} requests")
    is_mean = settings.data_file is not None
    parts.append(f"{format_size(settings.size)} {'on average' if is_mean else 'each'}")
    if settings.duration is not None:
        parts.append(f"for {format_ns(settings.duration)}")
    if settings.warmup:
        parts.append(f"after {format_ns(settings.warmup)} of warm-up")
    return ", ".join(parts)


def _describe_payloads(settings: Settings) -> str:
    """Describe several payloads: "words.txt, 1,000 payloads in order, 4.9 KiB in total"."""
    count = f"{settings.payloads:,} payload{'' if settings.payloads == 1 else 's'}"
    total = format_size(settings.payload_bytes or 0)
    return f"{settings.data_file}, {count} {settings.order}, {total} in total"


def describe_condition(result: ConditionResult) -> str:
    """Describe a condition and its result: "fail if p99>5ms: p99 is 3.20 ms"."""
    found = f"{result.condition.figure} is {_found(result)}"
    if result.holds is None:
        found += f", which counts as failed{_hint(result)}"
    return f"fail if {result.condition.text}: {found}"


def _found(result: ConditionResult) -> str:
    name = result.condition.figure
    if result.bounds is None:
        return "not available"
    low, high = (format_figure(name, bound) for bound in result.bounds)
    return low if low == high else f"{low} to {high}"


def _hint(result: ConditionResult) -> str:
    return "" if result.bounds is None else f": use -n {result.samples_needed} or more"


# Sections


@dataclass(frozen=True)
class Section:
    """A part of the report: a table of text. The first column names the rows."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_words: bool = False
    """Whether the last column is text; all columns between the first and the last are figures."""
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    """Reasons why the figures may be misleading."""


def sections(
    report: Report,
    conditions: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
    differences: Mapping[str, tuple[object, object]] | None = None,
) -> list[Section]:
    """Return the parts of the report, with the changes and different settings since a baseline."""
    facts = list(_facts(report).items())
    found = [Section("Load", ("", ""), facts, True, warnings=_warnings(report))]
    if conditions:
        rows = [(one.condition.text, _found(one), _result(one)) for one in conditions]
        found.append(Section("Conditions", ("fail if", "found", "result"), rows, True))
    if changes:
        found.append(_changes_section(report, changes, differences or {}))
    if report.answered:
        found.append(_times_section(report))
    if report.results.failures:
        found.append(_failures_section(report))
    return found


def _warnings(report: Report) -> list[str]:
    found = []
    if report.partial:
        found.append("Partial: interrupted before the end of the load.")
    if report.generator_saturated:
        found.append(
            "Warning: the generator may be the limit: use more --processes or a lower rate."
        )
    return found


def _facts(report: Report) -> dict[str, str]:
    """Return settings, rate and counts by name."""
    settings, results = report.settings, report.results
    rate = format_rate(report.rate)
    if settings.rate is not None:
        rate += f" achieved, {format_rate(settings.rate)} offered"
    requests = f"{results.started:,} sent, {report.answered:,} answered"
    requests += f", {results.failed():,} failed"
    if results.failed():
        requests += f" ({format_figure('error_rate', report.values()['error_rate'])})"
    if results.unfinished:
        requests += f", {results.unfinished:,} unfinished"
    found = {
        "started": report.started_at,
        "load": _describe_load(report),
        **({} if settings.data_file is None else {"data": _describe_payloads(settings)}),
        "rate": f"{rate}, over {format_ns(results.elapsed)}",
        "requests": requests,
    }
    if report.is_open:
        late = f"{results.late:,} started more than {format_ns(LATE_AFTER)} after they were due"
        found["late"] = f"{late}, {results.skipped:,} never"
    sent, received = (format_size(n) for n in (results.bytes_out, results.bytes_in))
    return found | {
        "payload": f"{sent} sent and {received} received, by those answered",
        "generator": f"{results.cpu_share * 100:.0f} % of a processor",
    }


def _result(result: ConditionResult) -> str:
    if result.holds is None:
        return f"failed{_hint(result)}"
    return "failed" if result.holds else "passed"


def _changes_section(
    report: Report,
    changes: Mapping[str, Change],
    differences: Mapping[str, tuple[object, object]],
) -> Section:
    rows = [
        (
            _spaced(name),
            format_figure(name, change.old),
            format_figure(name, change.new),
            NOT_AVAILABLE if change.relative is None else f"{change.relative * 100:+.1f} %",
            change.verdict,
        )
        for name, change in changes.items()
    ]
    is_response = report.is_open and changes["mean"].new == report.results.response.mean
    compared = f"Times are {'response' if is_response else 'service'} times."
    heads = ("", "baseline", "now", "change", "verdict")
    warnings = [
        f"Warning: {_spaced(name)} is {_setting(new)}, but {_setting(old)} in the baseline."
        for name, (old, new) in differences.items()
    ]
    return Section("Since the baseline", heads, rows, True, [compared, _VERDICT_RULE], warnings)


def _setting(value: object) -> str:
    return "none" if value is None else str(value)


def _times_section(report: Report) -> Section:
    """Return the figures of each kind of time, the latency first."""
    times = {name: report.times()[name] for name in _TIME_DESCRIPTIONS if name in report.times()}
    columns = [_time_figures(histogram) for histogram in times.values()]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    rows.append(("samples", *(f"{histogram.count:,}" for histogram in times.values())))
    notes = [*_marks_of(rows), *(_TIME_DESCRIPTIONS[name] for name in times)]
    return Section("Times", ("", *map(_spaced, times)), rows, notes=notes)


def _failures_section(report: Report) -> Section:
    """Return count and times of failures by kind, the most frequent first."""
    rows = []
    for kind, times in sorted(report.results.failures.items(), key=lambda item: -item[1].count):
        figures = _time_figures(times)
        rows.append((kind, f"{times.count:,}", *(figures[name] for name in _FAILURE_FIGURES)))
    heads = ("", "count", *_FAILURE_FIGURES)
    return Section("Failures", heads, rows, notes=_marks_of(rows))


def _marks_of(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return explanations of the marks in a table."""
    used = {cell[0] for _, *cells in rows for cell in cells}
    return [text for mark, text in _MARKS.items() if mark in used]


def _time_figures(times: Histogram) -> dict[str, str]:
    """Return all figures of one kind of time as text; mark percentiles if needed."""
    figures = times.figures()
    written = {name: format_figure(name, value) for name, value in figures.items()}
    for q in PERCENTILES:
        name = percentile_name(q)
        if figures[name] is not None and has_few_beyond(q, times.count):
            written[name] = _FEW_BEYOND + written[name]
    return written


def _spaced(name: str) -> str:
    return name.replace("_", " ")


# CSV


def to_csv(report: Report) -> str:
    """Return the figures as CSV, for spreadsheets and awk.

    There are three columns, `figure,unit,value`, and one line per figure, which can be selected by
    name: `awk -F, '$1 == "p99" { print $3 }'`. Figures have the names of KINDS, and more names of
    this form. The first lines are the same in every report; the times of failures follow if there
    were any. The value is empty if it is not available. Units: ns (whole nanoseconds), 1/s, ratio
    (0 to 1), count, bytes, bool, and text. Lines end with a line feed only.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(("figure", "unit", "value"))
    for name, unit, value in _csv_lines(report):
        if unit == "ns" and isinstance(value, float):
            value = round(value)  # noqa: PLW2901
        writer.writerow((name, unit, value))
    return written.getvalue()


def _csv_lines(report: Report) -> Iterator[tuple[str, str, str | float | int | None]]:
    """Yield figure, unit and value."""
    results, settings = report.results, report.settings
    yield "path", "text", _csv_path(report.path)
    yield "started_at", "text", printable(report.started_at)
    yield "partial", "bool", str(report.partial).lower()
    yield "elapsed", "ns", results.elapsed
    yield "offered_rate", "1/s", settings.rate
    yield "data_file", "text", _csv_path(settings.data_file or "")
    yield "order", "text", settings.order
    yield "payloads", "count", settings.payloads
    yield "payload_bytes", "bytes", settings.payload_bytes
    yield "size", "bytes", settings.size
    yield "cpu_share", "ratio", round(results.cpu_share, 3)
    yield "generator_saturated", "bool", str(report.generator_saturated).lower()
    yield "answered", "count", report.answered
    yield "unfinished", "count", results.unfinished
    values = report.values()
    for name, kind in sorted(KINDS.items(), key=lambda entry: entry[1] == TIME):
        if name in values:  # not "total.p99", which is a synonym of p99
            yield name, _UNITS[kind], values[name]
    failures = {
        f"failures.{kind.replace(' ', '_')}": results.failures.get(kind, Histogram())
        for kind in FAILURES
    }
    yield from ((name, "count", times.count) for name, times in failures.items())
    for name, times in failures.items():
        if times.count:
            yield from ((figure, "ns", ns) for figure, ns in times.figures(f"{name}.").items())


def _csv_path(path: str) -> str:
    """Return a path that a spreadsheet does not treat as a formula."""
    path = printable(path)
    return f"./{path}" if path.startswith(_FORMULA) else path


# Markdown


def to_markdown(report: Report, parts: Sequence[Section]) -> str:
    """Return the report in GitHub's Markdown, for example for a pull request."""
    paragraphs = [f"### Load on {_code(report.path)}"]
    for number, section in enumerate(parts):
        if number:
            paragraphs.append(f"**{section.title}**")
        paragraphs += [f"> **{_escaped(text)}**" for text in section.warnings]
        paragraphs += [_markdown_table(section), *map(_escaped, section.notes)]
    return "\n\n".join(paragraphs) + "\n"


def _markdown_table(table: Section) -> str:
    """Return a table: text is aligned left, figures right."""
    alignment = [":--", *["--:"] * (len(table.heads) - 1)]
    if table.has_words:
        alignment[-1] = ":--"
    rows = ([*map(_escaped, row)] for row in table.rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (table.heads, alignment, *rows))


def _code(text: str) -> str:
    """Return text as code, in which GitHub finds no markup, no mention and no issue number."""
    text = printable(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    # Markdown strips one space at each end; next to a backtick a space is needed.
    padding = " " if longest or text != text.strip() or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _escaped(text: str) -> str:
    """Escape all characters that could be markup."""
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", printable(text))
