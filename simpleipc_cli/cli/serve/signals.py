"""Signals that a server hears."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from simpleipc_cli import system
from simpleipc_cli.server.server import Server

_STOP_SIGNALS, _RENEW, _REPORT = (
    [signal.Signals[name] for name in names]
    for names in (system.STOP_SIGNALS, system.RELOAD_SIGNALS, system.STATS_SIGNALS)
)


class SignalRouter:
    """Signals to a server.

    Those that shells and nohup(1) have programs ignore stay ignored if they were: SIGINT,
    SIGQUIT, and SIGHUP where it asks for the end. All others are handled whatever was inherited.
    """

    def __init__(self, *, reload_on_hangup: bool) -> None:
        """Take note from now on; a server comes later, and hears what came before it.

        `reload_on_hangup`: SIGHUP is no wish for the end, as that of a lost terminal is, but
        for a log file opened anew and the like. It is heard also if it was ignored, which nohup
        and the start in the background do for the terminal's sake.
        """
        self.first = 0
        self._count = 0
        self._server: Server | None = None
        self._missed: list[Callable[[Server], None]] = []  # wishes before there was a server
        self._numbers: list[signal.Signals] = []
        for number in _STOP_SIGNALS:
            if number in _RENEW and reload_on_hangup:
                self._hear(number, self._on_reload, also_if_ignored=True)
            else:
                also_if_ignored = number == signal.SIGTERM  # else only SIGKILL might be left
                self._hear(number, self._on_stop, also_if_ignored=also_if_ignored)
        for number in _REPORT:
            self._hear(number, self._on_report, also_if_ignored=True)

    def any(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    def pass_to(self, server: Server) -> None:
        """From now on a signal stops this server."""
        self._server = server
        for _ in range(self._count - server.stop_calls):
            server.stop()
        for wish in self._missed:
            wish(server)

    def ignore(self) -> None:
        """The server has ended, and so will we."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _hear(
        self,
        number: signal.Signals,
        what: Callable[[int, Any], None],
        *,
        also_if_ignored: bool = False,
    ) -> None:
        if also_if_ignored or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, what)
            self._numbers.append(number)

    def _on_reload(self, _number: int, _frame: object) -> None:
        self._wish(Server.reload)

    def _on_report(self, _number: int, _frame: object) -> None:
        self._wish(Server.log_stats)

    def _wish(self, wish: Callable[[Server], None]) -> None:
        if self._server is None:
            self._missed.append(wish)
        else:
            wish(self._server)

    def _on_stop(self, number: int, _frame: object) -> None:
        self.first = self.first or number
        self._count += 1
        if self._server is not None:
            self._server.stop()
