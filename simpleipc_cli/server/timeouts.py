"""The timeouts of one exchange: which of them run, and which expires first."""

from __future__ import annotations

from dataclasses import dataclass, field

from simpleipc_cli.deadline import NEVER, InactivityTimer
from simpleipc_cli.server.config import LINGER, ServerConfig

READ_IDLE = 1
"""The client must send more of its request."""
PACKET = 2
"""The client must complete a packet."""
WRITE_IDLE = 4
"""The client must read the response."""
HANDLER = 8
"""The handler must end."""
OUTPUT_LINGER = 16
"""The output of a handler that has exited must end, or a worker without output must exit."""
INPUT_DRAIN = 32
"""A worker that has answered must read the rest of the request."""

_KINDS = (READ_IDLE, PACKET, WRITE_IDLE, HANDLER, OUTPUT_LINGER, INPUT_DRAIN)


@dataclass(slots=True)
class Timeouts:
    """One inactivity timer for each kind, made when it first runs."""

    config: ServerConfig
    max_read_idle: float = NEVER
    """Seconds that limit the read timeout."""
    timers: dict[int, InactivityTimer] = field(default_factory=dict)

    def update(self, now: float, *, running: int, progress: int) -> float:
        """Reset the kinds in `progress`, then let those in `running` run and the others pause.

        Return the monotonic time when the first expires, or NEVER.
        """
        due = NEVER
        for kind in _KINDS:
            timer = self.timers.get(kind)
            if timer is None:
                if not running & kind:
                    continue
                timer = self.timers[kind] = InactivityTimer(self._limit(kind))
            elif progress & kind:
                timer.limit = self._limit(kind)
                timer.restart(now)
            timer.run(bool(running & kind), now)
            due = min(due, timer.end())
        return due

    def _limit(self, kind: int) -> float | None:
        config = self.config
        if kind == READ_IDLE:
            limit = min(config.read_timeout or NEVER, self.max_read_idle)
            return None if limit == NEVER else limit
        limits = {
            PACKET: config.read_timeout,
            WRITE_IDLE: config.write_timeout,
            HANDLER: config.handler_timeout,
        }
        return limits.get(kind, LINGER)

    def expired(self, now: float) -> tuple[int, float]:
        """Return a kind that has expired, and its limit; 0 if none has."""
        for kind in _KINDS:
            timer = self.timers.get(kind)
            if timer is not None and timer.limit is not None and timer.left(now) == 0.0:
                return kind, timer.limit
        return 0, 0.0
