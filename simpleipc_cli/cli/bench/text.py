"""The report of `sipc bench` for people: at most 80 columns of text, coloured on a terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import ConditionResult
from simpleipc_cli.bench.generator import LATE_AFTER
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.stats import SummaryStats, text_histogram
from simpleipc_cli.bench.units import format_ns
from simpleipc_cli.cli.stdio import STDOUT, print_line
from simpleipc_cli.text import printable

_WIDTH = 80
_COLUMN = 12  # wide enough for "1,234,567,890"
_LABEL = 10
_ROWS = 12  # of the histogram; with the rest a report is some 45 lines, at will
_BAR = 34

_VERDICTS = {"better": "green", "worse": "bold red"}


def print_report(
    report: Report, judged: Sequence[ConditionResult], changes: Mapping[str, Change] | None
) -> None:
    """Print it to standard output. Raises SipcError."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    marks = _Marks(plain=not encoding.startswith("utf"))
    out = io.StringIO()
    fancy = wants_colour(STDOUT)
    console = Console(
        file=out, force_terminal=fancy, no_color=not fancy, width=_WIDTH, highlight=False
    )
    console.print(Text(printable(report.path), "bold"), soft_wrap=True)  # for copying
    console.print(Text("\n").join(_lines(report, judged, changes, marks)), end="")
    print_line(out.getvalue())


def wants_colour(descriptor: int) -> bool:
    """Whether somebody sees it who wants more than plain text."""
    environment = os.environ
    return (
        os.isatty(descriptor)
        and not environment.get("NO_COLOR")
        and environment.get("TERM", "dumb") != "dumb"
    )


class _Marks:
    """Signs beyond ASCII, and what stands for them where the terminal has none."""

    def __init__(self, *, plain: bool) -> None:
        self.bar = "#" if plain else "■"
        self.good = "ok" if plain else "✓"
        self.bad = "FAILED" if plain else "✗"


def _lines(
    report: Report,
    judged: Sequence[ConditionResult],
    changes: Mapping[str, Change] | None,
    marks: _Marks,
) -> Iterator[Text]:
    yield from _head(report)
    yield Text()
    yield from _counts(report)
    if report.answered:
        yield Text()
        yield from _times(report)
        yield Text()
        yield from _histogram(report.latency, marks, is_open=report.is_open)
    if report.tally.failures:
        yield Text()
        yield from _failures(report)
    if changes is not None:
        yield Text()
        yield from _changes(changes)
    if judged:
        yield Text()
        yield from _judged(judged, marks)


def _head(report: Report) -> Iterator[Text]:
    yield Text(wording.load(report))
    if report.partial:
        yield Text("partial: broken off before its end", "bold yellow")
    if report.is_limit:
        yield Text(wording.LIMITED, "bold yellow")


def _counts(report: Report) -> Iterator[Text]:
    tally = report.tally
    rate = wording.rate(report.rate)
    if (offered := report.offered_rate) is not None:
        rate += f" achieved, {wording.rate(offered)} offered"
    yield _entry("rate", f"{rate}, over {format_ns(tally.elapsed)}")
    requests = Text(f"{tally.started:,} sent, {report.answered:,} answered, ")
    requests.append(f"{tally.failed():,} failed", "bold red" if tally.failed() else "")
    if tally.unfinished:
        requests.append(f", {tally.unfinished:,} unfinished")
    yield _entry("requests", requests)
    if report.is_open:
        late = f"{tally.late:,} started more than {format_ns(LATE_AFTER)} after they were due"
        yield _entry("late", f"{late}, {tally.skipped:,} never")
    out, back = wording.size(tally.bytes_out), wording.size(tally.bytes_in)
    yield _entry("payload", f"{out} sent and {back} received, by those answered")


def _entry(label: str, value: str | Text) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "bold"), value)


def _times(report: Report) -> Iterator[Text]:
    """A column for each kind of time, a row for each figure."""
    times = report.times()
    order = [name for name in wording.TIMES if name in times]
    yield _row("", [name.replace("_", " ") for name in order], "bold")
    yield _row("samples", [f"{times[name].count:,}" for name in order])
    figures = {name: SummaryStats.of(times[name]).by_name() for name in order}
    for figure in figures[order[0]]:
        values = (figures[name][figure] for name in order)
        yield _row(figure, [wording.figure(figure, value) for value in values])
    if None in figures[order[0]].values():
        yield Text(wording.TOO_FEW, "dim")
    if report.is_open:
        for name in ("response", "service"):
            yield Text(wording.TIMES[name], "dim")


def _row(label: str, cells: Sequence[str], style: str = "") -> Text:
    text = "".join(f"{cell:>{_COLUMN}}" for cell in cells)
    return Text.assemble((f"{label:<{_LABEL}}", "bold"), (text, style))


def _histogram(latency: Histogram, marks: _Marks, *, is_open: bool) -> Iterator[Text]:
    rows = text_histogram(latency, _ROWS)
    most = max(row.count for row in rows)
    yield Text("latency " + ("(response time)" if is_open else "(service time)"), "bold")
    for row in rows:
        bar = marks.bar * max(1 if row.count else 0, round(row.count * _BAR / most))
        share = f"{row.count * 100 / latency.count:.1f} %"
        line = Text(f"{format_ns(row.low):>8} to {format_ns(row.high):>7}  ")
        line.append(f"{bar:<{_BAR}}", "cyan")
        yield line.append(f"{row.count:>13,}{share:>9}")


def _failures(report: Report) -> Iterator[Text]:
    yield _wide_row("failed", ["count", "p50", "max"], "bold")
    for kind, times in report.tally.failures.items():
        figures = SummaryStats.of(times).by_name()
        cells = [f"{times.count:,}"]
        cells += [wording.figure(name, figures[name]) for name in ("p50", "max")]
        yield _wide_row(kind, cells, "red")


def _wide_row(label: str, cells: Sequence[str], style: str) -> Text:
    text = "".join(f"{cell:>{_COLUMN}}" for cell in cells)
    return Text.assemble((f"{label:<16}", style), text)


def _changes(changes: Mapping[str, Change]) -> Iterator[Text]:
    yield _row("compared", ["baseline", "now", "change"], "bold")
    for name, change in changes.items():
        cells = [wording.figure(name, change.old), wording.figure(name, change.new)]
        line = _row(name, [*cells, wording.change(change.relative)])
        yield line.append(f"  {change.verdict}", _VERDICTS.get(change.verdict, "dim"))


def _judged(judged: Sequence[ConditionResult], marks: _Marks) -> Iterator[Text]:
    for one in judged:
        mark = Text(marks.bad, "bold red") if one.fails else Text(marks.good, "green")
        yield Text.assemble(mark, f" {printable(wording.judgement(one))}")
