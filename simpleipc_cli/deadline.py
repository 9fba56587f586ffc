"""Time limits: one object that is handed down, in place of a timeout per call.

All times are seconds as floats, on the monotonic clock. `None` is "no limit".
"""

from __future__ import annotations

from time import monotonic

NEVER = float("inf")
"""A moment that does not come."""


class Deadline:
    """A moment after which work is given up, or never."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        """`seconds` from now; None for never."""
        self._at = None if seconds is None else monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds left, at least 0.0; None if there is no limit."""
        return None if self._at is None else max(0.0, self._at - monotonic())

    def passed(self) -> bool:
        """Whether the moment has come."""
        return self._at is not None and monotonic() >= self._at

    def sooner(self, seconds: float | None) -> Deadline:
        """Whichever comes first: this one, or `seconds` from now."""
        other = Deadline(seconds)
        if other._at is None or (self._at is not None and self._at <= other._at):
            return self
        return other


class InactivityTimer:
    """A limit on waiting that only counts while somebody is to blame for the wait.

    A silent client must not be able to hold a thread for ever, but a client that is
    kept waiting by a slow handler must not be punished for it: so the watch is started
    and paused as the blame moves, and starts over when there was progress.
    """

    __slots__ = ("_since", "_spent", "limit")

    def __init__(self, limit: float | None) -> None:
        """`limit` in seconds; None waits for ever."""
        self.limit = limit
        self._spent = 0.0
        self._since: float | None = None

    @property
    def running(self) -> bool:
        """Whether it counts."""
        return self._since is not None

    def end(self) -> float:
        """The moment when patience ends if the wait goes on, which may be NEVER."""
        if self.limit is None or self._since is None:
            return NEVER
        return self._since + self.limit - self._spent

    def run(self, waiting: bool, now: float) -> None:
        """Start or pause the watch."""
        if waiting:
            if self._since is None:
                self._since = now
        elif self._since is not None:
            self._spent += now - self._since
            self._since = None

    def restart(self, now: float) -> None:
        """There was progress: count from zero again."""
        self._spent = 0.0
        if self._since is not None:
            self._since = now

    def left(self, now: float) -> float | None:
        """Seconds until patience ends, at least 0.0; None while nobody is to blame."""
        if self.limit is None or self._since is None:
            return None
        return max(0.0, self.limit - self._spent - (now - self._since))
