"""The progress of `sipc bench`: a bar, the rate, the latency, a sparkline.

On standard error, and only if that is a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from simpleipc_cli.bench.format import NOT_AVAILABLE, format_ns, format_rate
from simpleipc_cli.bench.generator import SECOND, LoadPlan
from simpleipc_cli.bench.processes import INITIAL_PROGRESS, Progress
from simpleipc_cli.bench.timeline import TimeBucket
from simpleipc_cli.cli.bench.text import wants_colour
from simpleipc_cli.cli.stdio import STDERR
from simpleipc_cli.text import printable

_WIDTH = 80
_WINDOW = 5 * SECOND  # of the current rate and percentiles (tunable)
_POINT = SECOND // 2  # of a bar of the sparkline: two reports of the generators
_SPARKS = "▁▂▃▄▅▆▇█"
_MAX_POINTS = _WIDTH - 12


@contextmanager
def live_progress(plan: LoadPlan, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Provide a function that shows progress, or does nothing without a terminal."""
    if quiet or not wants_colour(STDERR):
        yield lambda _progress: None
        return
    console = Console(stderr=True)
    view = View(plan)
    # Without rich's refresh thread: no thread may exist while processes are started.
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            view.add(progress)
            live.update(view.draw(), refresh=True)

        yield show


class View:
    """The picture of the progress so far."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._progress = INITIAL_PROGRESS
        self._recent: deque[tuple[int, TimeBucket]] = deque([(0, TimeBucket())])
        self._points: deque[int] = deque([0], maxlen=_MAX_POINTS)
        self._point_ends = _POINT

    def add(self, progress: Progress) -> None:
        """Add a report."""
        self._progress = progress
        now = progress.elapsed
        self._recent.append((now, progress.recent))
        # The oldest one kept only marks the beginning of the window.
        while len(self._recent) > 1 and self._recent[1][0] <= now - _WINDOW:
            self._recent.popleft()
        while now > self._point_ends:
            self._points.append(0)
            self._point_ends += _POINT
        self._points[-1] += progress.recent.answered

    def draw(self) -> Group:
        """Return the picture."""
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text("progress", "bold"), self._bar(), self._time())
        lines: list[RenderableType] = [
            Text(printable(self._plan.path), "bold", overflow="ellipsis", no_wrap=True),
            grid,
        ]
        counts = Text.assemble(("requests  ", "bold"), f"{self._progress.answered:,} answered, ")
        counts.append(f"{self._progress.failed:,} failed", "red" if self._progress.failed else "")
        lines += [counts, Text.assemble(("now       ", "bold"), self._now())]
        lines.append(Text.assemble(("rate      ", "bold"), (self._sparkline(), "cyan")))
        return Group(*lines)

    def _done(self) -> float:
        """Return the completed share of the load; the limit reached first counts."""
        plan, progress = self._plan, self._progress
        ended = progress.answered + progress.failed
        shares = [ended / plan.requests] if plan.requests else []
        shares += [progress.elapsed / plan.duration] if plan.duration else []
        return min(1.0, max(shares, default=0.0))

    def _bar(self) -> ProgressBar:
        is_endless = self._plan.requests is None and self._plan.duration is None
        return ProgressBar(
            total=1.0,
            completed=self._done(),
            width=40,
            pulse=is_endless,
            complete_style="cyan",
            finished_style="green",
        )

    def _time(self) -> Text:
        if not self._progress.elapsed:
            return Text("warming up" if self._plan.warmup else "starting")
        text = f"{self._progress.elapsed / SECOND:.1f} s"
        if self._plan.duration is not None:
            text += f" of {self._plan.duration / SECOND:.1f} s"
        if self._plan.requests is not None:
            text += f", {self._done():.0%}"
        return Text(text)

    def _now(self) -> str:
        """Return rate and percentiles of the last seconds."""
        window = TimeBucket()
        (begin, _), *recent = self._recent
        for _, bucket in recent:
            window.merge(bucket)
        span = self._progress.elapsed - begin
        if not window.answered or not span:
            return NOT_AVAILABLE
        p50, p99 = (format_ns(window.percentile(q) or 0) for q in (50, 99))
        return f"{format_rate(window.answered * SECOND / span)}, p50 {p50}, p99 {p99}"

    def _sparkline(self) -> str:
        # The last point is incomplete and would look like a decrease.
        points = list(self._points)[:-1]
        highest = max(points, default=0)
        if not highest:
            return ""
        return "".join(_SPARKS[point * (len(_SPARKS) - 1) // highest] for point in points)
