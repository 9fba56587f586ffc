"""What a report for people says besides its times: load, counts, and changes, in words.

For files of any form. Text only: whoever uses it escapes it as that form requires.
"""

from __future__ import annotations

from collections.abc import Mapping

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench.compare import FLOOR, Change, ChangeVerdict
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.units import format_ns

FAILURE_FIGURES = ("mean", "p50", "p99", "max")
"""What is said of the times that failing took."""

HOW_JUDGED = (
    "A change counts where chance alone would make it in 1 of 100 comparisons at most,"
    f" and where it is {FLOOR * 100:g} % or more."
)
"""What stands behind the judgements; see compare.py."""

_TIMES = ("duration", "warmup", "timeout")
_NAMES = {
    "rate": "rate offered",
    "concurrency": "at once, at most",
    "requests": "requests, at most",
    "duration": "load for",
    "warmup": "warm-up",
    "timeout": "timeout",
    "size": "request size",
    "expects": "answers checked",
}
_CHANGED: tuple[ChangeVerdict, ...] = ("worse", "better")
_LONGEST_SETTING = 200  # characters; a setting may be a text to be expected, of any length


def notices(report: Report) -> list[tuple[str, str]]:
    """What one must know before one believes a number: in a word, and in a sentence."""
    found = []
    if report.partial:
        said = "the load was broken off; this is what had been measured by then."
        found.append(("Partial", said))
    if report.is_limit:
        busy = f"Its busiest process was on a processor {share(report.cpu_share)} of the time."
        found.append(("Warning", f"{wording.LIMITED}. {busy}"))
    if not report.answered:
        found.append(("No answers", "there are no times to report."))
    return found


def timed(report: Report) -> dict[str, Histogram]:
    """What was timed, by name: first that which is called the latency."""
    times = report.times()
    order = ("response", "service", "connect", "first_byte")
    return {name: times[name] for name in order if name in times}


def failures(report: Report) -> dict[str, Histogram]:
    """The times that failing took, by kind, the most frequent first."""
    failed = report.tally.failures.items()
    return dict(sorted(failed, key=lambda entry: -entry[1].count))


def shortened(text: str, longest: int) -> str:
    """A text with its middle left out, if need be: of a path both ends tell something."""
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 2
    return f"{text[: longest - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :]}"


def settings(report: Report) -> dict[str, str]:
    """How the load was made, by name; what was not asked for, or not limited, is left out."""
    return {
        _NAMES.get(name, name.replace("_", " ")): _setting(name, value)
        for name, value in report.settings.items()
        if value is not None and (value or name not in _TIMES)
    }


def counts(report: Report) -> dict[str, str]:
    """What was counted, by name."""
    tally = report.tally
    found = {
        "requests started": f"{tally.started:,}",
        "answered": f"{report.answered:,}",
        "failed": f"{tally.failed():,}",
    }
    if tally.unfinished:
        found["unfinished"] = f"{tally.unfinished:,}"
    if report.is_open:
        found |= {"started late": f"{tally.late:,}", "never started": f"{tally.skipped:,}"}
    return found | {
        "bytes sent": wording.size(tally.bytes_out),
        "bytes received": wording.size(tally.bytes_in),
        "generator's processor time": share(report.cpu_share),
    }


def changed(changes: Mapping[str, Change]) -> str:
    """All changes in one line: "p99 and mean are worse, rate is better, nothing else ..."."""
    by_verdict: dict[ChangeVerdict, list[str]] = {}
    for name, change in changes.items():
        by_verdict.setdefault(change.verdict, []).append(name.replace("_", " "))
    parts: list[str] = []
    for verdict in _CHANGED:
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
    """Which times were compared: "response" or "service"; see Report.compare()."""
    mean = changes["mean"].new if "mean" in changes else None
    return "response" if report.is_open and mean == report.tally.response.mean else "service"


def share(part: float) -> str:
    """A share from 0 to 1: "31 %"."""
    return f"{part * 100:.0f} %"


def _setting(name: str, value: object) -> str:
    if name in _TIMES and isinstance(value, int):
        return format_ns(value)
    if name == "rate" and isinstance(value, (int, float)):
        return wording.rate(value)
    if name == "size" and isinstance(value, int):
        return wording.size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return shortened(str(value), _LONGEST_SETTING)
