"""How far a transfer is, for whoever waits for it: a bar on a terminal, lines elsewhere.

A thread of its own looks at a meter and draws; what is transferred never waits for it.
"""

from __future__ import annotations

import os
from threading import Event, Thread

from simpleipc_cli.cli.stderr import STDERR, print_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from simpleipc_cli.observe.stats import TransferStats

_SHORT = 1.0  # seconds: what takes no longer is not worth a bar (the contract)
_REDRAW = 0.2  # seconds between pictures, at will
_LINE_EVERY = 1.0  # seconds, at will
_STUCK_AFTER = 1.0  # seconds that a terminal which takes nothing may hold up our end, at will


def has_live_display() -> bool:
    """Whether stderr is a terminal on which things can be drawn and taken away again."""
    return os.isatty(STDERR) and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}


class Progress:
    """A display of its own accord, from start() to stop()."""

    def __init__(
        self, meter: TransferStats, total: int | None, *, live: bool, at_once: bool
    ) -> None:
        """`total` bytes are to be sent, None if unknown. `live` is a bar, else lines."""
        self._meter = meter
        self._total = total
        self._live = live
        self._patience = 0.0 if at_once else _SHORT
        self._over = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Show it, once it has taken long enough. May be called again."""
        if self._thread.ident is None:
            try:
                self._thread.start()
            except RuntimeError:
                pass  # the system has no thread for it: no reason to fail

    def stop(self) -> None:
        """End the display; nothing of a bar is left. May be called again."""
        try:
            self._stop()
        except BaseException:  # a signal, the last that is listened to: the bar must go
            self._stop()
            raise

    def give_way(self) -> None:
        """Something is about to be written where a bar may be: that is its end. Lines go on."""
        if self._live:
            self.stop()

    def _stop(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_STUCK_AFTER)

    def _run(self) -> None:
        if self._over.wait(self._patience):
            return
        try:
            if self._live:
                self._draw()
            else:
                self._tell()
        except Exception:  # noqa: S110 - whatever ails the display, the transfer goes on
            pass

    def _tell(self) -> None:
        """A line every second, and one at the end."""
        began = then = self._meter.now()
        before = (0, 0)
        while not self._over.wait(_LINE_EVERY):
            now, so_far = self._meter.now(), self._so_far()
            self._say(so_far, before, now - then)
            then, before = now, so_far
        self._say(self._so_far(), (0, 0), self._meter.now() - began)

    def _so_far(self) -> tuple[int, int]:
        """Bytes sent, and bytes received."""
        sent, received = self._meter.amounts()
        return sent.payload, received.payload

    def _say(self, so_far: tuple[int, int], before: tuple[int, int], seconds: float) -> None:
        rates = [
            f"{_size(int((now - then) / max(seconds, 1e-6)))}/s"
            for now, then in zip(so_far, before, strict=True)
        ]
        print_error(
            f"sipc send: sent {_size(so_far[0], self._total)} at {rates[0]},"
            f" received {_size(so_far[1])} at {rates[1]}"
        )

    def _draw(self) -> None:
        """A bar, as long as we are in the terminal's foreground: in the background it is gone."""
        bar = _bar()
        totals = (self._total, None)
        tasks = [
            bar.add_task(name, total=total, size="")
            for name, total in zip(("sent", "received"), totals, strict=True)
        ]
        shown = False
        while True:
            for task, done, total in zip(tasks, self._so_far(), totals, strict=True):
                bar.update(task, completed=done, size=_size(done, total))
            if _in_foreground():
                if not shown:
                    bar.start()
                    shown = True
                bar.refresh()
            if self._over.wait(_REDRAW):
                break
        if shown and _in_foreground():
            bar.stop()


def _size(done: int, total: int | None = None) -> str:
    """`1.5 MB`, or `1.5 MB of 3.0 MB`."""
    from rich.filesize import decimal  # noqa: PLC0415 - only now

    return decimal(done) if total is None else f"{decimal(done)} of {decimal(total)}"


def _in_foreground() -> bool:
    """Whether the terminal is ours now; one that is not for jobs always is."""
    try:
        return os.tcgetpgrp(STDERR) == os.getpgrp()
    except OSError:
        return True


def _bar() -> Bar:
    """Loads rich: that takes its time, so only who needs it does."""
    from rich import progress  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),  # then all of it fits into 80 columns
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
    from rich.console import Console  # noqa: PLC0415

    class SteadyConsole(Console):
        """Leaves the cursor alone: stopped or killed we could not bring it back."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
            return False

    terminal = open(STDERR, "w", errors="replace", closefd=False)  # noqa: SIM115
    return SteadyConsole(
        file=terminal, force_terminal=True, no_color=bool(os.environ.get("NO_COLOR")) or None
    )
