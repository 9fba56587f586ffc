"""The progress display and the text report of `sipc bench`, at most 80 columns wide."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from simpleipc_cli.bench.format import NOT_AVAILABLE, Section, format_ns, format_rate
from simpleipc_cli.bench.generator import SECOND, LoadPlan, Progress
from simpleipc_cli.bench.histogram import Histogram, text_histogram
from simpleipc_cli.bench.report import Report
from simpleipc_cli.cli.output import LiveDisplay, rich_console
from simpleipc_cli.cli.stdio import STDERR, STDOUT, print_line
from simpleipc_cli.text import printable

_WIDTH = 80
_UNLIMITED = 10_000  # columns, if a program reads the report: lines must not be wrapped
_COLUMN = 11  # width of a column of figures
_ROWS = 12  # rows of the histogram (tunable)
_BAR = 34
_RECENT = 5 * SECOND  # nanoseconds over which the current rate is averaged (tunable)
_STYLES = {"better": "green", "passed": "green", "worse": "bold red", "failed": "bold red"}


def _wants_colour(descriptor: int) -> bool:
    """Return whether to use colours: the descriptor is a terminal, and NO_COLOR is not set."""
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
    # Without rich's refresh thread: progress is reported often enough.
    live = Live(
        console=rich_console(),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    display = LiveDisplay(live)

    def show(progress: Progress) -> None:
        view.add(progress)
        live.update(view.draw())
        display.refresh()

    try:
        yield show
    finally:
        display.stop()


class View:
    """The progress display: the elapsed time, the counts, the recent rate."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._recent: deque[Progress] = deque([Progress()])

    def add(self, progress: Progress) -> None:
        self._recent.append(progress)
        # The oldest kept entry marks the start of the recent time.
        while len(self._recent) > 1 and self._recent[1].elapsed <= progress.elapsed - _RECENT:
            self._recent.popleft()

    def draw(self) -> Group:
        progress = self._recent[-1]
        counts = Text.assemble(("requests  ", "bold"), f"{progress.answered:,} answered, ")
        counts.append(f"{progress.failed:,} failed", "red" if progress.failed else "")
        return Group(
            Text(printable(self._plan.path), "bold", overflow="ellipsis", no_wrap=True),
            Text.assemble(("progress  ", "bold"), self._time(progress)),
            counts,
            Text.assemble(("now       ", "bold"), self._rate()),
        )

    def _time(self, progress: Progress) -> str:
        plan = self._plan
        if not progress.elapsed:
            return "warming up" if plan.warmup else "starting"
        text = f"{progress.elapsed / SECOND:.1f} s"
        if plan.duration is not None:
            text += f" of {plan.duration / SECOND:.1f} s"
        if plan.requests is not None:
            text += f", {(progress.answered + progress.failed) / plan.requests:.0%}"
        return text

    def _rate(self) -> str:
        """Return the rate of the last few seconds."""
        first, last = self._recent[0], self._recent[-1]
        if last.elapsed == first.elapsed:
            return NOT_AVAILABLE
        per_second = (last.answered - first.answered) * SECOND / (last.elapsed - first.elapsed)
        return format_rate(per_second)


# Report


def print_report(report: Report, parts: Sequence[Section]) -> None:
    """Print the report to standard output. Raises SipcError."""
    out = io.StringIO()
    has_colour = _wants_colour(STDOUT)
    console = Console(
        file=out,
        force_terminal=has_colour,
        no_color=not has_colour,
        width=_WIDTH if os.isatty(STDOUT) else _UNLIMITED,
        highlight=False,
    )
    console.print(Text(printable(report.path), "bold"), soft_wrap=True)  # so that users can copy it
    for number, section in enumerate(parts):
        if number:
            console.print(Text(f"\n{section.title}", "bold"))
        for text in section.warnings:
            console.print(Text(text, "bold yellow"))
        console.print(_table(section))
        for text in section.notes:
            console.print(Text(text, "dim"))
    if report.answered:
        name = "response" if report.is_open else "service"
        console.print(Text(f"\nLatency ({name} time)", "bold"))
        console.print(_histogram(report.latency))
    print_line("\n".join(line.rstrip() for line in out.getvalue().splitlines()))


def _table(table: Section) -> Table:
    drawn = Table(box=None, pad_edge=False, show_header=any(table.heads), header_style="bold")
    last = len(table.heads) - 1
    for number, head in enumerate(table.heads):
        is_text = number == 0 or (table.has_words and number == last)
        drawn.add_column(
            head, justify="left" if is_text else "right", min_width=0 if is_text else _COLUMN
        )
    for first, *cells in table.rows:
        words = (Text(printable(cell), _STYLES.get(cell.split(":")[0], "")) for cell in cells)
        drawn.add_row(Text(printable(first), "bold"), *words)
    return drawn


def _histogram(latency: Histogram) -> Table:
    rows = text_histogram(latency, _ROWS)
    max_count = max(count for *_, count in rows)
    drawn = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("right", "left", "right", "right"):
        drawn.add_column(justify=justify)
    for low, high, count in rows:
        bar = "#" * max(1 if count else 0, round(count * _BAR / max_count))
        share = f"{count * 100 / latency.count:.1f} %"
        ends = f"{format_ns(low)} to {format_ns(high)}"
        drawn.add_row(ends, Text(bar, "cyan"), f"{count:,}", share)
    return drawn
