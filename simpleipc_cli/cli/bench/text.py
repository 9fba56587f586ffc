"""The report of `sipc bench` as text of at most 80 columns, coloured on a terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from simpleipc_cli.bench import format as fmt
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import ConditionResult
from simpleipc_cli.bench.format import format_ns
from simpleipc_cli.bench.generator import LATE_AFTER
from simpleipc_cli.bench.histogram import Histogram, text_histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.cli.output import print_line
from simpleipc_cli.cli.stdio import STDOUT
from simpleipc_cli.text import printable

_WIDTH = 80
_COLUMN = 12  # wide enough for "1,234,567,890"
_LABEL = 10
_WIDE_LABEL = 16
_ROWS = 12  # of the histogram; the whole report then has about 45 lines (tunable)
_BAR = 34

_VERDICT_STYLES = {"better": "green", "worse": "bold red"}


def print_report(
    report: Report, conditions: Sequence[ConditionResult], changes: Mapping[str, Change] | None
) -> None:
    """Print the report to standard output. Raises SipcError."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    symbols = _Symbols(ascii_only=not encoding.startswith("utf"))
    out = io.StringIO()
    has_colour = wants_colour(STDOUT)
    console = Console(
        file=out, force_terminal=has_colour, no_color=not has_colour, width=_WIDTH, highlight=False
    )
    console.print(Text(printable(report.path), "bold"), soft_wrap=True)  # for copying
    console.print(Text("\n").join(_lines(report, conditions, changes, symbols)), end="")
    print_line(out.getvalue())


def wants_colour(descriptor: int) -> bool:
    """Return whether a descriptor is a terminal on which colours are wanted."""
    environment = os.environ
    return (
        os.isatty(descriptor)
        and not environment.get("NO_COLOR")
        and environment.get("TERM", "dumb") != "dumb"
    )


class _Symbols:
    """Symbols beyond ASCII, and their replacements for other terminals."""

    def __init__(self, *, ascii_only: bool) -> None:
        self.bar = "#" if ascii_only else "■"
        self.passed = "ok" if ascii_only else "✓"
        self.failed = "FAILED" if ascii_only else "✗"


def _lines(
    report: Report,
    conditions: Sequence[ConditionResult],
    changes: Mapping[str, Change] | None,
    symbols: _Symbols,
) -> Iterator[Text]:
    yield Text(fmt.describe_load(report))
    if report.partial:
        yield Text("partial: interrupted before the end of the load", "bold yellow")
    if report.generator_saturated:
        yield Text(fmt.SATURATED, "bold yellow")
    yield Text()
    yield from _counts(report)
    if (times := fmt.times_table(report)) is not None:
        yield Text()
        yield from _table("", times, _LABEL)
        yield from _notes_on_times(report)
        yield Text()
        yield from _histogram(report.latency, symbols, is_open=report.is_open)
    if (failures := fmt.failures_table(report)) is not None:
        yield Text()
        yield from _table("failed", failures, _WIDE_LABEL)
    if changes is not None:
        yield Text()
        yield from _table("compared", fmt.changes_table(changes), _LABEL)
    if conditions:
        yield Text()
        yield from _conditions(conditions, symbols)


def _counts(report: Report) -> Iterator[Text]:
    results = report.results
    rate = fmt.format_rate(report.rate)
    if (offered := report.settings.rate) is not None:
        rate += f" achieved, {fmt.format_rate(offered)} offered"
    yield _entry("rate", f"{rate}, over {format_ns(results.elapsed)}")
    requests = Text(f"{results.started:,} sent, {report.answered:,} answered, ")
    requests.append(f"{results.failed():,} failed", "bold red" if results.failed() else "")
    if results.unfinished:
        requests.append(f", {results.unfinished:,} unfinished")
    yield _entry("requests", requests)
    if report.is_open:
        late = f"{results.late:,} started more than {format_ns(LATE_AFTER)} after they were due"
        yield _entry("late", f"{late}, {results.skipped:,} never")
    sent, received = (fmt.format_size(n) for n in (results.bytes_out, results.bytes_in))
    yield _entry("payload", f"{sent} sent and {received} received, by those answered")


def _entry(label: str, value: str | Text) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "bold"), value)


def _table(title: str, table: fmt.Table, label_width: int) -> Iterator[Text]:
    """Yield a table under a title, which takes the place of the first head."""
    figures = len(table.heads) - table.has_verdicts
    yield _row([title, *table.heads[1:figures]], label_width, "bold")
    for row in table.rows:
        line = _row(row[:figures], label_width)
        if table.has_verdicts:
            line.append(f"  {row[-1]}", _VERDICT_STYLES.get(row[-1], "dim"))
        yield line


def _row(cells: Sequence[str], label_width: int, style: str = "") -> Text:
    label, *figures = cells
    text = "".join(f"{figure:>{_COLUMN}}" for figure in figures)
    return Text.assemble((f"{label:<{label_width}}", "bold"), (text, style))


def _notes_on_times(report: Report) -> Iterator[Text]:
    if None in report.latency.figures().values():
        yield Text(fmt.TOO_FEW_SAMPLES, "dim")
    if report.is_open:
        for name in ("response", "service"):
            yield Text(fmt.TIME_DESCRIPTIONS[name], "dim")


def _histogram(latency: Histogram, symbols: _Symbols, *, is_open: bool) -> Iterator[Text]:
    rows = text_histogram(latency, _ROWS)
    max_count = max(count for *_, count in rows)
    yield Text("latency " + ("(response time)" if is_open else "(service time)"), "bold")
    for low, high, count in rows:
        bar = symbols.bar * max(1 if count else 0, round(count * _BAR / max_count))
        share = f"{count * 100 / latency.count:.1f} %"
        line = Text(f"{format_ns(low):>8} to {format_ns(high):>7}  ")
        line.append(f"{bar:<{_BAR}}", "cyan")
        yield line.append(f"{count:>13,}{share:>9}")


def _conditions(conditions: Sequence[ConditionResult], symbols: _Symbols) -> Iterator[Text]:
    for one in conditions:
        symbol = (symbols.failed, "bold red") if one.fails else (symbols.passed, "green")
        yield Text.assemble(symbol, f" {printable(fmt.describe_condition(one))}")
