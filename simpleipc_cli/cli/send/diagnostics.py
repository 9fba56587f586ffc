"""The statistics and the progress display of `sipc send`."""

from __future__ import annotations

from threading import Event, Thread

from simpleipc_cli.cli.exitcodes import NAMES, Terminated, exit_code
from simpleipc_cli.cli.output import LiveDisplay, rich_console
from simpleipc_cli.cli.stdio import print_error
from simpleipc_cli.observe import TransferStats
from simpleipc_cli.text import json_safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PROGRESS_AFTER = 1.0
"""Seconds before the progress display appears; documented in the help."""

_REDRAW_INTERVAL = 0.2  # seconds (tunable)
_LINE_INTERVAL = 1.0  # seconds (tunable)
_STOP_TIMEOUT = 1.0  # seconds by which a blocked terminal may delay the exit (tunable)


def format_stats(stats: TransferStats, path: str, error: BaseException | None) -> str:
    """Return the JSON object for --stats; `error` is the exception that ended the transfer."""
    import json  # noqa: PLC0415 - a progress display does without

    status = exit_code(error)
    if isinstance(error, Terminated):
        outcome, reason = "interrupted", f"signal {error.number}"
    elif error is not None:
        outcome, reason = NAMES[status].lower(), str(error) or type(error).__name__
    else:
        outcome, reason = "answered", None
    return json.dumps(
        {
            "path": json_safe(path),
            "outcome": outcome,
            "status": status,
            "error": None if reason is None else json_safe(reason),
            "connect_seconds": _rounded(stats.connected),
            "first_byte_seconds": _rounded(stats.first_byte),
            "total_seconds": _rounded(stats.elapsed()),
            "bytes_sent": stats.sent.payload,
            "bytes_received": stats.received.payload,
            "packets_sent": stats.sent.packets,
            "packets_received": stats.received.packets,
        }
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


class Progress:
    """Shows the progress of a transfer from start() to stop(): a bar, or lines.

    A separate thread draws, so that the transfer never waits for the display.
    """

    def __init__(
        self, stats: TransferStats, total: int | None, *, is_live: bool, delay: float
    ) -> None:
        """Show progress from `delay` seconds after start() on, for `total` bytes (None: unknown).

        With `is_live` it is a bar, otherwise lines.
        """
        self._stats = stats
        self._total = total
        self.is_live = is_live
        self._delay = delay
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread. May be called again."""
        if self._thread.ident is None:
            try:
                self._thread.start()
            except RuntimeError:
                pass  # no thread can start: the transfer continues without a display

    def stop(self) -> None:
        """Stop the display, and remove the bar. May be called again."""
        try:
            self._stop()
        except BaseException:  # after a signal the bar must be removed, too
            self._stop()
            raise

    def _stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT)

    def _run(self) -> None:
        if self._stopping.wait(self._delay):
            return
        try:
            if self.is_live:
                self._draw_bar()
            else:
                self._print_lines()
        except Exception:  # noqa: S110 - the transfer continues without a display
            pass

    def _print_lines(self) -> None:
        """Print a line every second, and one at the end, with the average rates."""
        start = self._stats.elapsed()
        while not self._stopping.wait(_LINE_INTERVAL):
            self._print_line(start)
        self._print_line(start)

    def _print_line(self, start: float) -> None:
        seconds = max(self._stats.elapsed() - start, 1e-6)
        sent, received = self._bytes()
        print_error(
            f"sipc send: sent {_size(sent, self._total)} at {_size(int(sent / seconds))}/s,"
            f" received {_size(received)} at {_size(int(received / seconds))}/s"
        )

    def _bytes(self) -> tuple[int, int]:
        """Return the payload bytes sent and received."""
        return self._stats.sent.payload, self._stats.received.payload

    def _draw_bar(self) -> None:
        """Draw a bar."""
        bar = _new_bar()
        totals = (self._total, None)
        tasks = [
            bar.add_task(name, total=total, size="")
            for name, total in zip(("sent", "received"), totals, strict=True)
        ]
        display = LiveDisplay(bar)
        while True:
            for task, done, total in zip(tasks, self._bytes(), totals, strict=True):
                bar.update(task, completed=done, size=_size(done, total))
            display.refresh()
            if self._stopping.wait(_REDRAW_INTERVAL):
                break
        display.stop()


def _size(done: int, total: int | None = None) -> str:
    """Return `1.5 MB`, or `1.5 MB of 3.0 MB`."""
    from rich.filesize import decimal  # noqa: PLC0415 - only for progress

    return decimal(done) if total is None else f"{decimal(done)} of {decimal(total)}"


def _new_bar() -> Bar:
    from rich import progress  # noqa: PLC0415 - takes long to load

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),  # all columns together fit into 80 characters
        progress.TextColumn("{task.fields[size]}", style="progress.download"),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True),
        console=rich_console(),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
