"""Signals that a server hears."""

from __future__ import annotations

import signal

from simpleipc_cli.server.pool import Server

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Signals:
    """Signals that ask for the end; those that were ignored when we started stay so."""

    def __init__(self, *, stop_on_hangup: bool = True) -> None:
        """Take note from now on; a server comes later, and hears what came before it.

        `stop_on_hangup=False` ignores SIGHUP.
        """
        self.first = 0
        self._count = 0
        self._server: Server | None = None
        if not stop_on_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._numbers = [
            number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
        ]
        for number in self._numbers:
            signal.signal(number, self._on_signal)

    def any(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    def pass_to(self, server: Server) -> None:
        """From now on a signal stops this server."""
        self._server = server
        for _ in range(self._count - server.signals):
            server.stop()

    def ignore(self) -> None:
        """The server has ended, and so will we."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, _frame: object) -> None:
        self.first = self.first or number
        self._count += 1
        if self._server is not None:
            self._server.stop()
