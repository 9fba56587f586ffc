"""Whom an exchange waits for, and for how long still."""

from __future__ import annotations

from simpleipc_cli.deadline import NEVER, InactivityTimer
from simpleipc_cli.server.limits import LINGER, Limits


class Clocks:
    """One watch for each of those who can keep an exchange waiting."""

    __slots__ = ("_timeout", "handling", "linger", "packet", "rest", "silence", "stall")

    def __init__(self, limits: Limits) -> None:
        """None of them runs yet."""
        self._timeout = limits.timeout
        self.silence = InactivityTimer(limits.read_timeout)
        """The client, within its request."""
        self.packet = InactivityTimer(limits.read_timeout)
        """The client, within one packet."""
        self.stall = InactivityTimer(limits.write_timeout)
        """The client, while it should read."""
        self.handling = InactivityTimer(limits.timeout)
        """The handler, from its start to its end."""
        self.linger = InactivityTimer(LINGER)
        """Whoever holds the output of a handler that has exited, and a worker without one."""
        self.rest = InactivityTimer(LINGER)
        """A handler that has answered and is to read the rest of the request."""

    def watch(
        self, now: float, *, receiving: bool, inside: bool, writing: bool, linger: bool, rest: bool
    ) -> float:
        """Start and pause them: whom is waited for? The moment when the first patience ends."""
        due = NEVER
        for clock, waiting in (
            (self.silence, receiving),
            (self.packet, receiving and inside),
            (self.stall, writing),
            (self.linger, linger),
            (self.rest, rest),
            (self.handling, self.handling.running),
        ):
            if waiting is not clock.running:
                clock.run(waiting, now)
            if waiting and (end := clock.end()) < due:
                due = end
        return due

    def begin_handling(self, now: float) -> None:
        """A handler has been started, perhaps in another's place."""
        self.handling = InactivityTimer(self._timeout)
        self.handling.run(True, now)

    def end_handling(self) -> None:
        """The handler has ended, or has answered: what is left is not its time."""
        self.handling = InactivityTimer(None)
