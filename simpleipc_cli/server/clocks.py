"""Whom an exchange waits for, and for how long still."""

from __future__ import annotations

from simpleipc_cli.deadline import Patience
from simpleipc_cli.server.limits import LINGER, Limits


class Clocks:
    """One watch for each of those who can keep an exchange waiting."""

    __slots__ = ("_timeout", "handling", "linger", "packet", "rest", "silence", "stall")

    def __init__(self, limits: Limits) -> None:
        """None of them runs yet."""
        self._timeout = limits.timeout
        self.silence = Patience(limits.read_timeout)
        """The client, within its request."""
        self.packet = Patience(limits.read_timeout)
        """The client, within one packet."""
        self.stall = Patience(limits.write_timeout)
        """The client, while it should read."""
        self.handling = Patience(limits.timeout)
        """The handler, from its start to its end."""
        self.linger = Patience(LINGER)
        """Whoever holds the output of a handler that has exited, and a worker without one."""
        self.rest = Patience(LINGER)
        """A handler that has answered and is to read the rest of the request."""

    def left(self, now: float) -> float | None:
        """Seconds until the first patience ends, at least 0.0; None while nobody is to blame."""
        clocks = (self.silence, self.packet, self.stall, self.handling, self.linger, self.rest)
        return min(
            (left for clock in clocks if (left := clock.left(now)) is not None), default=None
        )

    def begin_handling(self, now: float) -> None:
        """A handler has been started, perhaps in another's place."""
        self.handling = Patience(self._timeout)
        self.handling.run(True, now)

    def end_handling(self) -> None:
        """The handler has ended, or has answered: what is left is not its time."""
        self.handling = Patience(None)
