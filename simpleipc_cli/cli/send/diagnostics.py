"""What `sipc send` shows besides the response: a trace, statistics, progress."""

from __future__ import annotations

import os
from threading import Event, Thread

from simpleipc_cli.cli.exitcodes import NAMES, Terminated, exit_code
from simpleipc_cli.cli.output import Output
from simpleipc_cli.cli.send import SendOptions
from simpleipc_cli.cli.stdio import STDERR, Input, format_error, print_error
from simpleipc_cli.errors import SipcError
from simpleipc_cli.observe.stream import TransferStats
from simpleipc_cli.text import json_safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from simpleipc_cli.observe.trace import Tracer
    from simpleipc_cli.transport import Stream

_MAX_REQUEST_ID = 64  # bytes shown; it comes from the environment
_PROGRESS_AFTER = 1.0  # seconds: shorter transfers need no bar (the contract)
_REDRAW_INTERVAL = 0.2  # seconds (tunable)
_LINE_INTERVAL = 1.0  # seconds (tunable)
_STOP_TIMEOUT = 1.0  # seconds that a stuck terminal may delay the exit (tunable)


class Diagnostics:
    """Shows what the options ask for, in a `with` around one or more exchanges."""

    def __init__(self, options: SendOptions, path: str, started_at: float) -> None:
        """Open nothing yet: the statistics include errors of open(). See TransferStats."""
        self._options = options
        self._path = path
        self._failure: SipcError | None = None
        self._stats = TransferStats(started_at)
        self._tracer: Tracer | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> Diagnostics:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Remove the bar, close the trace, and print the statistics."""
        if self._progress is not None:
            self._progress.stop()
        if self._tracer is not None:
            self._tracer.close()
        if self._options.stats:
            import json  # noqa: PLC0415 - only for --stats

            print_error(json.dumps(self._statistics(error or self._failure)))

    def open(self, source: Input | None, *, has_records: bool = False) -> None:
        """Open the trace and prepare the progress display, before anything is read or sent.

        `source` is None if the request is on the command line. With `has_records` the total is
        unknown, because separators are not sent. Raises SipcError if the trace cannot be opened.
        """
        options = self._options
        on_stderr, wanted = options.trace, options.progress
        if on_stderr or options.trace_file is not None:
            from simpleipc_cli.cli.line_writer import open_trace  # noqa: PLC0415 - only for these

            self._tracer = open_trace(self._warn, on_stderr=on_stderr, path=options.trace_file)
        is_live = has_live_display() and not on_stderr
        is_typed = source is not None and source.is_terminal
        if wanted or (wanted is None and is_live and not (is_typed or os.environ.get("NO_COLOR"))):
            self._progress = Progress(
                self._stats,
                None if source is None or has_records else source.size,
                is_live=is_live,
                delay=_PROGRESS_AFTER if wanted is None else 0.0,
            )

    def observe(self, stream: Stream, number: int = 1) -> Stream:
        """Return the stream to use instead; `number` identifies it within this process."""
        if self._progress is not None:
            self._progress.start()
        if self._options.stats or self._progress is not None:
            stream = self._stats.observe(stream)
        if self._tracer is not None:
            stream = self._tracer.observe(
                stream, f"{os.getpid()}-{number}", _connect_event(), self._path
            )
        return stream

    def hide_progress_before(self, output: Output) -> None:
        """Remove the display when the first part of the response goes to the terminal."""
        if self._progress is not None and output.is_terminal:
            output.before_first_write = self._progress.stop

    def hide_progress(self) -> None:
        """Remove a bar: something will be written to standard error. Lines continue."""
        if self._progress is not None:
            self._progress.stop_bar()

    def record_failure(self, error: SipcError) -> None:
        """Record an error that is not raised, for the statistics."""
        self._failure = error

    def _warn(self, error: SipcError) -> None:
        if self._progress is not None:
            self._progress.stop()
        print_error(format_error("send", error))

    def _statistics(self, error: BaseException | None) -> dict[str, object]:
        stats = self._stats
        status = exit_code(error)
        return {
            "path": json_safe(self._path),
            "outcome": _outcome(error, status),
            "status": status,
            "error": None if error is None else json_safe(_error_text(error)),
            "connect_seconds": _rounded(stats.connected),
            "first_byte_seconds": _rounded(stats.first_byte),
            "total_seconds": _rounded(stats.elapsed()),
            "bytes_sent": stats.sent.payload,
            "bytes_received": stats.received.payload,
            "packets_sent": stats.sent.packets,
            "packets_received": stats.received.packets,
        }


def _connect_event() -> str:
    """Name the request that a handler of `sipc serve` answers, to match a proxy's two traces."""
    request = os.environ.get("SIPC_REQUEST_ID")
    if not request:
        return "connected to"
    from simpleipc_cli.text import quoted  # noqa: PLC0415

    return f"connected for request {quoted(os.fsencode(request)[:_MAX_REQUEST_ID])} to"


def _outcome(error: BaseException | None, status: int) -> str:
    if isinstance(error, Terminated):
        return "interrupted"
    return "answered" if error is None else NAMES[status].lower()


def _error_text(error: BaseException) -> str:
    if isinstance(error, Terminated):
        return f"signal {error.number}"
    return str(error) or type(error).__name__


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def has_live_display() -> bool:
    """Return whether stderr is a terminal on which a bar can be drawn and removed."""
    return os.isatty(STDERR) and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}


class Progress:
    """Shows the progress of a transfer from start() to stop(): a bar, or lines.

    A thread draws it, so the transfer never waits for the display.
    """

    def __init__(
        self, stats: TransferStats, total: int | None, *, is_live: bool, delay: float
    ) -> None:
        """Show it `delay` seconds after start(). `total` bytes will be sent, None if unknown.

        `is_live` shows a bar, otherwise lines.
        """
        self._stats = stats
        self._total = total
        self._is_live = is_live
        self._delay = delay
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread. May be called again."""
        if self._thread.ident is None:
            try:
                self._thread.start()
            except RuntimeError:
                pass  # no thread available: the transfer continues without a display

    def stop(self) -> None:
        """End the display and remove a bar. May be called again."""
        try:
            self._stop()
        except BaseException:  # a signal: the bar must be removed nevertheless
            self._stop()
            raise

    def stop_bar(self) -> None:
        """End the display if it is a bar."""
        if self._is_live:
            self.stop()

    def _stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT)

    def _run(self) -> None:
        if self._stopping.wait(self._delay):
            return
        try:
            if self._is_live:
                self._draw_bar()
            else:
                self._print_lines()
        except Exception:  # noqa: S110 - the transfer continues without a display
            pass

    def _print_lines(self) -> None:
        """Print a line every second, and one at the end with the average rates."""
        start = last = self._stats.elapsed()
        before = (0, 0)
        while not self._stopping.wait(_LINE_INTERVAL):
            now, done = self._stats.elapsed(), self._bytes()
            self._print_line(done, before, now - last)
            last, before = now, done
        self._print_line(self._bytes(), (0, 0), self._stats.elapsed() - start)

    def _bytes(self) -> tuple[int, int]:
        """Return the payload bytes sent and received."""
        return self._stats.sent.payload, self._stats.received.payload

    def _print_line(self, done: tuple[int, int], before: tuple[int, int], seconds: float) -> None:
        rates = [
            f"{_size(int((now - then) / max(seconds, 1e-6)))}/s"
            for now, then in zip(done, before, strict=True)
        ]
        print_error(
            f"sipc send: sent {_size(done[0], self._total)} at {rates[0]},"
            f" received {_size(done[1])} at {rates[1]}"
        )

    def _draw_bar(self) -> None:
        """Draw a bar while this process is in the terminal's foreground."""
        bar = _new_bar()
        totals = (self._total, None)
        tasks = [
            bar.add_task(name, total=total, size="")
            for name, total in zip(("sent", "received"), totals, strict=True)
        ]
        is_shown = False
        while True:
            for task, done, total in zip(tasks, self._bytes(), totals, strict=True):
                bar.update(task, completed=done, size=_size(done, total))
            if _in_foreground():
                if not is_shown:
                    bar.start()
                    is_shown = True
                bar.refresh()
            if self._stopping.wait(_REDRAW_INTERVAL):
                break
        if is_shown and _in_foreground():
            bar.stop()


def _size(done: int, total: int | None = None) -> str:
    """Return `1.5 MB`, or `1.5 MB of 3.0 MB`."""
    from rich.filesize import decimal  # noqa: PLC0415 - only for progress

    return decimal(done) if total is None else f"{decimal(done)} of {decimal(total)}"


def _in_foreground() -> bool:
    """Return whether this process may write to the terminal; True without job control."""
    try:
        return os.tcgetpgrp(STDERR) == os.getpgrp()
    except OSError:
        return True


def _new_bar() -> Bar:
    from rich import progress  # noqa: PLC0415 - takes long to load

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),  # all of it fits into 80 columns
        progress.TextColumn("{task.fields[size]}", style="progress.download"),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True),
        console=_console(),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - takes long to load

    class CursorConsole(Console):
        """Does not hide the cursor: a stopped or killed process could not show it again."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
            return False

    terminal = open(STDERR, "w", errors="replace", closefd=False)  # noqa: SIM115
    return CursorConsole(file=terminal, force_terminal=True)
