"""A report in words, the same for every output format, and as CSV and Markdown.

The words are plain text: each output format escapes and aligns them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from simpleipc_cli.bench.compare import MIN_CHANGE, Change, ChangeVerdict
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
from simpleipc_cli.bench.generator import FAILURES
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.text import printable

NOT_AVAILABLE = "-"
"""Stands for a figure that is not available: too few samples, or none."""

TOO_FEW_SAMPLES = f"{NOT_AVAILABLE} too few samples"

TIME_DESCRIPTIONS = {
    "response": "response time: from when a request was due to its complete response",
    "service": "service time: from the actual start of a request to its complete response",
    "connect": "connect: from the start of a request to its connection",
    "first_byte": "first byte: from the start of a request to the first byte of its response",
}
"""Each kind of time in one line, in the order of reports; the first two are easily confused."""

VERDICT_RULE = (
    "A change counts if chance alone would cause it in at most 1 of 100 comparisons,"
    f" and if it is {MIN_CHANGE * 100:g} % or more."
)
"""How compare.py decides."""

SATURATED = "the load generator may have been the limit: use more --processes or a lower rate"
"""Describes a report whose `generator_saturated` is true."""

_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_FAILURE_FIGURES = ("mean", "p50", "p99", "max")
_UNITS = {TIME: "ns", RATE: "1/s", SHARE: "ratio", COUNT: "count", SIZE: "bytes"}
_FORMULA = ("=", "+", "-", "@")


def format_ns(ns: float) -> str:
    """Format nanoseconds, 0 or more, with three significant digits: "1.23 ms".

    Whole nanoseconds below 1 us, whole seconds from 1000 s on.
    """
    if round(ns) < 1000:
        return f"{round(ns)} ns"
    for unit in ("us", "ms", "s"):
        number = ns / NANOSECONDS[unit]
        # The digits change where rounding would add one.
        if number < 9.995:
            return f"{number:.2f} {unit}"
        if number < 99.95:
            return f"{number:.1f} {unit}"
        if number < 999.5:
            return f"{number:.0f} {unit}"
    return f"{number:.0f} s"


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


def format_change(relative: float | None) -> str:
    """Format a relative change: "+3.1 %"."""
    return NOT_AVAILABLE if relative is None else f"{relative * 100:+.1f} %"


def format_share(share: float) -> str:
    """Format a share from 0 to 1: "31 %"."""
    return f"{share * 100:.0f} %"


def shortened(text: str, max_length: int) -> str:
    """Replace the middle of a long text by an ellipsis: both ends of a path matter."""
    if len(text) <= max_length:
        return text
    tail = (max_length - 1) // 2
    return f"{text[: max_length - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :]}"


def describe_load(report: Report) -> str:
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
    if settings.duration is not None:
        parts.append(f"for {format_ns(settings.duration)}")
    if settings.warmup:
        parts.append(f"after {format_ns(settings.warmup)} of warm-up")
    return ", ".join(parts)


def describe_condition(result: ConditionResult) -> str:
    """Describe a condition and its result: "fail if p99>5ms: p99 is 3.20 ms"."""
    name = result.condition.figure
    found = f"{name} is {format_figure(name, result.value)}"
    if result.value is None:
        found = f"too few samples for {name}, which counts as failed"
    return f"fail if {result.condition.text}: {found}"


def describe_changes(changes: Mapping[str, Change]) -> str:
    """Describe all changes in one line: "p99 and mean are worse, nothing else ..."."""
    by_verdict: dict[ChangeVerdict, list[str]] = {}
    for name, change in changes.items():
        by_verdict.setdefault(change.verdict, []).append(name.replace("_", " "))
    parts: list[str] = []
    verdicts: tuple[ChangeVerdict, ...] = ("worse", "better")
    for verdict in verdicts:
        if names := by_verdict.get(verdict):
            *first, last = names
            listed = f"{', '.join(first)} and {last} are" if first else f"{last} is"
            parts.append(f"{listed} {verdict}")
    if "within noise" in by_verdict or not parts:
        parts.append(f"nothing {'else ' if parts else ''}has changed beyond noise")
    if names := by_verdict.get("too few samples"):
        parts.append(f"too few samples to compare {', '.join(names)}")
    return ", ".join(parts)


def compared_times(report: Report, changes: Mapping[str, Change]) -> str:
    """Return which times Report.compare() compared: "response" or "service"."""
    is_response = report.is_open and changes["mean"].new == report.results.response.mean
    return "response" if is_response else "service"


def notices(report: Report) -> list[tuple[str, str]]:
    """Return what limits the meaning of the figures, each as a word and a sentence."""
    found = []
    if report.partial:
        text = "the load was interrupted; these are the results until then."
        found.append(("Partial", text))
    if report.generator_saturated:
        share = format_share(report.results.cpu_share)
        text = f"Its busiest process used a processor {share} of the time."
        found.append(("Warning", f"{SATURATED}. {text}"))
    if not report.answered:
        found.append(("No responses", "there are no times to report."))
    return found


def timed(report: Report) -> dict[str, Histogram]:
    """Return the histograms by name, the latency first."""
    times = report.times()
    return {name: times[name] for name in TIME_DESCRIPTIONS if name in times}


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the rows."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_verdicts: bool = False
    """Whether the last column holds verdicts on changes; all other columns hold figures."""


def times_table(report: Report) -> Table | None:
    """Return the figures of all times, the latency first; None without responses."""
    if not report.answered:
        return None
    times = timed(report)
    figures = [histogram.figures() for histogram in times.values()]
    rows = [(name, *(format_figure(name, one[name]) for one in figures)) for name in figures[0]]
    rows.append(("samples", *(f"{histogram.count:,}" for histogram in times.values())))
    return Table(("", *(kind.replace("_", " ") for kind in times)), rows)


def failures_table(report: Report) -> Table | None:
    """Return count and times of failures by kind, the most frequent first; None without any."""
    rows = []
    for kind, times in sorted(report.results.failures.items(), key=lambda item: -item[1].count):
        figures = times.figures()
        cells = (format_figure(name, figures[name]) for name in _FAILURE_FIGURES)
        rows.append((kind, f"{times.count:,}", *cells))
    return Table(("failed", "count", *_FAILURE_FIGURES), rows) if rows else None


def changes_table(changes: Mapping[str, Change]) -> Table:
    """Return each figure in the baseline and now, with the change and its verdict."""
    rows = [
        (
            name,
            format_figure(name, change.old),
            format_figure(name, change.new),
            format_change(change.relative),
            change.verdict,
        )
        for name, change in changes.items()
    ]
    return Table(("", "baseline", "now", "change", "verdict"), rows, has_verdicts=True)


def details(report: Report) -> dict[str, str]:
    """Return settings and counts by name, without settings that are unset or unlimited."""
    settings, results = report.settings, report.results
    found = {"at once, at most": f"{settings.concurrency:,}", "processes": f"{settings.processes}"}
    if settings.rate is not None:
        found["rate offered"] = format_rate(settings.rate)
    if settings.requests is not None:
        found["requests, at most"] = f"{settings.requests:,}"
    times = {"load for": settings.duration, "warm-up": settings.warmup, "timeout": settings.timeout}
    found |= {name: format_ns(ns) for name, ns in times.items() if ns}
    found["request size"] = format_size(settings.size)
    found["responses checked"] = "yes" if settings.expects else "no"
    found |= {
        "measured for": format_ns(results.elapsed),
        "requests started": f"{results.started:,}",
        "answered": f"{report.answered:,}",
        "failed": f"{results.failed():,}",
    }
    if results.unfinished:
        found["unfinished"] = f"{results.unfinished:,}"
    if report.is_open:
        found |= {"started late": f"{results.late:,}", "never started": f"{results.skipped:,}"}
    return found | {
        "bytes sent": format_size(results.bytes_out),
        "bytes received": format_size(results.bytes_in),
        "generator's processor time": format_share(report.results.cpu_share),
    }


# CSV


def to_csv(report: Report) -> str:
    """Return the figures as CSV, for spreadsheets and awk.

    Three columns, `figure,unit,value`, and one line per figure, which can be selected by name:
    `awk -F, '$1 == "p99" { print $3 }'`. Figures have the names of KINDS, and more of the same
    kind. The first lines are the same in every report; the times of failures follow if there
    were any. A value that is not available is empty. Units: ns (whole nanoseconds), 1/s, ratio
    (0 to 1), count, bytes, bool, and text. Lines end with a line feed alone.
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
    results, path = report.results, printable(report.path)
    # No spreadsheet must take the path for a formula.
    yield "path", "text", f"./{path}" if path.startswith(_FORMULA) else path
    yield "started_at", "text", printable(report.started_at)
    yield "partial", "bool", str(report.partial).lower()
    yield "elapsed", "ns", results.elapsed
    yield "offered_rate", "1/s", report.settings.rate
    yield "cpu_share", "ratio", round(results.cpu_share, 3)
    yield "generator_saturated", "bool", str(report.generator_saturated).lower()
    yield "answered", "count", report.answered
    yield "unfinished", "count", results.unfinished
    values = report.values()
    for name, kind in sorted(KINDS.items(), key=lambda entry: entry[1] == TIME):
        if name in values:  # "total.p99" is only another name of p99
            yield name, _UNITS[kind], values[name]
    failures = {
        f"failures.{kind.replace(' ', '_')}": results.failures.get(kind, Histogram())
        for kind in FAILURES
    }
    yield from ((name, "count", times.count) for name, times in failures.items())
    for name, times in failures.items():
        if times.count:
            yield from ((figure, "ns", ns) for figure, ns in times.figures(f"{name}.").items())


# Markdown


def to_markdown(
    report: Report,
    conditions: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
) -> str:
    """Return the report for a pull request, in GitHub's flavour.

    `changes` are those since a baseline.
    """
    return "\n\n".join(_paragraphs(report, conditions, changes)) + "\n"


def _paragraphs(
    report: Report, conditions: Sequence[ConditionResult], changes: Mapping[str, Change] | None
) -> Iterator[str]:
    yield f"### Load on {_code(report.path)}"
    failures = ""
    if failed := report.results.failed():
        share = format_figure("error_rate", report.values()["error_rate"])
        failures = f", **{failed:,} failed** ({share})"
    elapsed = format_ns(report.results.elapsed)
    yield f"**{format_rate(report.rate)}**: {report.answered:,} in {elapsed}{failures}"
    yield _escaped(f"{describe_load(report)}; {report.started_at}")
    yield from (f"> **{word}:** {_escaped(text)}" for word, text in notices(report))
    if conditions:
        yield "\n".join(
            f"- {'❌' if one.fails else '✅'} {_escaped(describe_condition(one))}"
            for one in conditions
        )
    if changes:
        times = compared_times(report, changes)
        yield f"**Since the baseline:** {_escaped(describe_changes(changes))} ({times} times)."
        yield from _table(changes_table(changes))
    if report.answered:
        yield from _table(times_table(report))
        kinds = list(timed(report))[: 1 + report.is_open]
        yield "\n".join(f"- {_escaped(TIME_DESCRIPTIONS[kind])}" for kind in kinds)
    yield from _table(failures_table(report))
    lines = "\n".join(f"- {name}: {_code(value)}" for name, value in details(report).items())
    yield f"<details><summary>Settings and counts</summary>\n\n{lines}\n\n</details>"


def _table(table: Table | None) -> Iterator[str]:
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
