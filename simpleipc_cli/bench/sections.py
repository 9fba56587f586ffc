"""The tables and lists of a report, in words, the same for terminal, Markdown and HTML.

Plain text only: each renderer escapes and aligns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench.compare import MIN_CHANGE, Change, ChangeVerdict
from simpleipc_cli.bench.format import format_ns
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.stats import SummaryStats

VERDICT_RULE = (
    "A change counts if chance alone would cause it in at most 1 of 100 comparisons,"
    f" and if it is {MIN_CHANGE * 100:g} % or more."
)
"""How compare.py decides."""

_FAILURE_FIGURES = ("mean", "p50", "p99", "max")
_DURATIONS = ("duration", "warmup", "timeout")
_SETTING_NAMES = {
    "rate": "rate offered",
    "concurrency": "at once, at most",
    "requests": "requests, at most",
    "duration": "load for",
    "warmup": "warm-up",
    "timeout": "timeout",
    "size": "request size",
    "expects": "answers checked",
}
_MAX_SETTING_LENGTH = 200  # characters


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the rows."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_verdicts: bool = False
    """Whether the last column holds verdicts on changes; all other columns hold figures."""


def times_table(report: Report) -> Table | None:
    """Return the figures of all times, the latency first; None without answers."""
    if not report.answered:
        return None
    times = timed(report)
    figures = [SummaryStats.of(histogram).by_name() for histogram in times.values()]
    rows = [
        (name, *(wording.format_figure(name, one[name]) for one in figures)) for name in figures[0]
    ]
    rows.append(("samples", *(f"{histogram.count:,}" for histogram in times.values())))
    return Table(("", *(kind.replace("_", " ") for kind in times)), rows)


def failures_table(report: Report) -> Table | None:
    """Return count and times of failures by kind, the most frequent first; None without any."""
    rows = []
    for kind, times in sorted(report.results.failures.items(), key=lambda item: -item[1].count):
        figures = SummaryStats.of(times).by_name()
        cells = (wording.format_figure(name, figures[name]) for name in _FAILURE_FIGURES)
        rows.append((kind, f"{times.count:,}", *cells))
    return Table(("failed", "count", *_FAILURE_FIGURES), rows) if rows else None


def changes_table(changes: Mapping[str, Change]) -> Table:
    """Return each figure in the baseline and now, with the change and its verdict."""
    rows = [
        (
            name,
            wording.format_figure(name, change.old),
            wording.format_figure(name, change.new),
            wording.format_change(change.relative),
            change.verdict,
        )
        for name, change in changes.items()
    ]
    return Table(("", "baseline", "now", "change", "verdict"), rows, has_verdicts=True)


def notices(report: Report) -> list[tuple[str, str]]:
    """Return what limits the meaning of the figures, each as a word and a sentence."""
    found = []
    if report.partial:
        text = "the load was interrupted; these are the results until then."
        found.append(("Partial", text))
    if report.generator_saturated:
        share = format_share(report.cpu_share)
        text = f"Its busiest process used a processor {share} of the time."
        found.append(("Warning", f"{wording.SATURATED}. {text}"))
    if not report.answered:
        found.append(("No answers", "there are no times to report."))
    return found


def timed(report: Report) -> dict[str, Histogram]:
    """Return the histograms by name, the latency first."""
    times = report.times()
    return {name: times[name] for name in wording.TIME_DESCRIPTIONS if name in times}


def shortened(text: str, max_length: int) -> str:
    """Replace the middle of a long text by an ellipsis: both ends of a path matter."""
    if len(text) <= max_length:
        return text
    tail = (max_length - 1) // 2
    return f"{text[: max_length - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :]}"


def settings(report: Report) -> dict[str, str]:
    """Return the settings of the load by name, without those that are unset or unlimited."""
    return {
        _SETTING_NAMES.get(name, name.replace("_", " ")): _setting(name, value)
        for name, value in report.settings.items()
        if value is not None and (value or name not in _DURATIONS)
    }


def counts(report: Report) -> dict[str, str]:
    """Return the counts by name."""
    results = report.results
    found = {
        "requests started": f"{results.started:,}",
        "answered": f"{report.answered:,}",
        "failed": f"{results.failed():,}",
    }
    if results.unfinished:
        found["unfinished"] = f"{results.unfinished:,}"
    if report.is_open:
        found |= {"started late": f"{results.late:,}", "never started": f"{results.skipped:,}"}
    return found | {
        "bytes sent": wording.format_size(results.bytes_out),
        "bytes received": wording.format_size(results.bytes_in),
        "generator's processor time": format_share(report.cpu_share),
    }


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
        parts.append(f"too few samples to judge {', '.join(names)}")
    return ", ".join(parts)


def compared_times(report: Report, changes: Mapping[str, Change]) -> str:
    """Return which times Report.compare() compared: "response" or "service"."""
    mean = changes["mean"].new if "mean" in changes else None
    return "response" if report.is_open and mean == report.results.response.mean else "service"


def format_share(share: float) -> str:
    """Format a share from 0 to 1: "31 %"."""
    return f"{share * 100:.0f} %"


def _setting(name: str, value: object) -> str:
    if name in _DURATIONS and isinstance(value, int):
        return format_ns(value)
    if name == "rate" and isinstance(value, (int, float)):
        return wording.format_rate(value)
    if name == "size" and isinstance(value, int):
        return wording.format_size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return shortened(str(value), _MAX_SETTING_LENGTH)
