"""The progress and the report of `sipc bench` on a terminal, in at most 80 columns."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from simpleipc_cli.bench import format as fmt
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import ConditionResult
from simpleipc_cli.bench.format import format_ns
from simpleipc_cli.bench.generator import LATE_AFTER, SECOND, LoadPlan, Progress
from simpleipc_cli.bench.histogram import Histogram, text_histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.timeline import TimeBucket
from simpleipc_cli.cli.output import print_line
from simpleipc_cli.cli.stdio import STDERR, STDOUT
from simpleipc_cli.text import printable

_WIDTH = 80
_COLUMN = 12  # wide enough for "1,234,567,890"
_LABEL = 10
_WIDE_LABEL = 16
_ROWS = 12  # of the histogram; the whole report then has about 45 lines (tunable)
_BAR = 34
_RECENT = 5 * SECOND  # of the current rate and percentiles (tunable)

_VERDICT_STYLES = {"better": "green", "worse": "bold red"}
_SYMBOLS = {"bar": "■", "passed": "✓", "failed": "✗"}
_ASCII_SYMBOLS = {"bar": "#", "passed": "ok", "failed": "FAILED"}


def _wants_colour(descriptor: int) -> bool:
    """Return whether a descriptor is a terminal on which colours are wanted."""
    environment = os.environ
    return (
        os.isatty(descriptor)
        and not environment.get("NO_COLOR")
        and environment.get("TERM", "dumb") != "dumb"
    )


# Progress


@contextmanager
def live_progress(plan: LoadPlan, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Provide a function that shows progress on stderr, or does nothing without a terminal."""
    if quiet or not _wants_colour(STDERR):
        yield lambda _progress: None
        return
    view = View(plan)
    # Without rich's refresh thread: no thread may exist while processes are started.
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            view.add(progress)
            live.update(view.draw(), refresh=True)

        yield show


class View:
    """The picture of the progress so far: a bar, the counts, the recent rate and latency."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._progress = Progress()
        self._recent: deque[tuple[int, TimeBucket]] = deque([(0, TimeBucket())])

    def add(self, progress: Progress) -> None:
        self._progress = progress
        self._recent.append((progress.elapsed, progress.recent))
        # The oldest one kept only marks the beginning of the recent time.
        while len(self._recent) > 1 and self._recent[1][0] <= progress.elapsed - _RECENT:
            self._recent.popleft()

    def draw(self) -> Group:
        plan, progress = self._plan, self._progress
        shares = [(progress.answered + progress.failed) / plan.requests] if plan.requests else []
        shares += [progress.elapsed / plan.duration] if plan.duration else []
        done = min(1.0, max(shares, default=0.0))  # the limit reached first counts
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(
            total=1.0,
            completed=done,
            width=40,
            pulse=not shares,
            complete_style="cyan",
            finished_style="green",
        )
        grid.add_row(Text("progress", "bold"), bar, Text(self._time(done)))
        counts = Text.assemble(("requests  ", "bold"), f"{progress.answered:,} answered, ")
        counts.append(f"{progress.failed:,} failed", "red" if progress.failed else "")
        return Group(
            Text(printable(plan.path), "bold", overflow="ellipsis", no_wrap=True),
            grid,
            counts,
            Text.assemble(("now       ", "bold"), self._now()),
        )

    def _time(self, done: float) -> str:
        if not self._progress.elapsed:
            return "warming up" if self._plan.warmup else "starting"
        text = f"{self._progress.elapsed / SECOND:.1f} s"
        if self._plan.duration is not None:
            text += f" of {self._plan.duration / SECOND:.1f} s"
        return text if self._plan.requests is None else f"{text}, {done:.0%}"

    def _now(self) -> str:
        """Return rate and percentiles of the last seconds."""
        whole = TimeBucket()
        (begin, _), *recent = self._recent
        for _, bucket in recent:
            whole.merge(bucket)
        span = self._progress.elapsed - begin
        if not whole.answered or not span:
            return fmt.NOT_AVAILABLE
        p50, p99 = (format_ns(whole.percentile(q) or 0) for q in (50, 99))
        return f"{fmt.format_rate(whole.answered * SECOND / span)}, p50 {p50}, p99 {p99}"


# Report


def print_report(
    report: Report, conditions: Sequence[ConditionResult], changes: Mapping[str, Change] | None
) -> None:
    """Print the report to standard output. Raises SipcError."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    symbols = _SYMBOLS if encoding.startswith("utf") else _ASCII_SYMBOLS
    out = io.StringIO()
    has_colour = _wants_colour(STDOUT)
    console = Console(
        file=out, force_terminal=has_colour, no_color=not has_colour, width=_WIDTH, highlight=False
    )
    console.print(Text(printable(report.path), "bold"), soft_wrap=True)  # for copying
    console.print(Text("\n").join(_lines(report, conditions, changes, symbols)), end="")
    print_line(out.getvalue())


def _lines(
    report: Report,
    conditions: Sequence[ConditionResult],
    changes: Mapping[str, Change] | None,
    symbols: Mapping[str, str],
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
        if None in report.latency.figures().values():
            yield Text(fmt.TOO_FEW_SAMPLES, "dim")
        if report.is_open:
            yield from (Text(fmt.TIME_DESCRIPTIONS[n], "dim") for n in ("response", "service"))
        yield Text()
        name = "response" if report.is_open else "service"
        yield Text(f"latency ({name} time)", "bold")
        yield from _histogram(report.latency, symbols["bar"])
    if (failures := fmt.failures_table(report)) is not None:
        yield Text()
        yield from _table("failed", failures, _WIDE_LABEL)
    if changes is not None:
        yield Text()
        yield from _table("compared", fmt.changes_table(changes), _LABEL)
    if conditions:
        yield Text()
    for one in conditions:
        kind, style = ("failed", "bold red") if one.fails else ("passed", "green")
        yield Text.assemble((symbols[kind], style), f" {printable(fmt.describe_condition(one))}")


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


def _histogram(latency: Histogram, symbol: str) -> Iterator[Text]:
    rows = text_histogram(latency, _ROWS)
    max_count = max(count for *_, count in rows)
    for low, high, count in rows:
        bar = symbol * max(1 if count else 0, round(count * _BAR / max_count))
        share = f"{count * 100 / latency.count:.1f} %"
        line = Text(f"{format_ns(low):>8} to {format_ns(high):>7}  ")
        line.append(f"{bar:<{_BAR}}", "cyan")
        yield line.append(f"{count:>13,}{share:>9}")
