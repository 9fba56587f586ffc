"""Time limits, and delays between retries.

All times are seconds as floats, on the monotonic clock. `None` means "no limit".
"""

from __future__ import annotations

from time import monotonic, sleep

NEVER = float("inf")
"""A time that is never reached."""


class Deadline:
    """The time at which an operation must end, or no limit."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        """`seconds` from now; None for no limit."""
        self._at = None if seconds is None else monotonic() + seconds

    def remaining(self) -> float | None:
        """Return the seconds left, at least 0.0; None if there is no limit."""
        return None if self._at is None else max(0.0, self._at - monotonic())

    def expired(self) -> bool:
        return self._at is not None and monotonic() >= self._at

    def sleep(self, seconds: float) -> None:
        """Sleep until the deadline at the latest."""
        left = self.remaining()
        sleep(seconds if left is None else min(seconds, left))

    def capped(self, seconds: float | None) -> Deadline:
        """Return the earlier of this deadline and `seconds` from now."""
        other = Deadline(seconds)
        if other._at is None or (self._at is not None and self._at <= other._at):
            return self
        return other


class Backoff:
    """Delays between retries: each twice as long as the one before, up to a maximum."""

    __slots__ = ("_delay", "_initial", "_maximum")

    def __init__(self, initial: float, maximum: float) -> None:
        self._initial = self._delay = initial
        self._maximum = maximum

    def next(self) -> float:
        """Return the delay before the next retry."""
        delay = self._delay
        self._delay = min(delay * 2, self._maximum)
        return delay

    def reset(self) -> None:
        """Start again with the initial delay."""
        self._delay = self._initial


class InactivityTimer:
    """Limits the time without progress while this process waits for the peer.

    A client that sends nothing must not occupy a thread without limit. A client that waits for a
    slow handler must not time out: the timer pauses while the handler works.
    """

    __slots__ = ("_since", "_spent", "limit")

    def __init__(self, limit: float | None) -> None:
        """`limit` in seconds; None for no limit."""
        self.limit = limit
        self._spent = 0.0
        self._since: float | None = None

    def expires_at(self) -> float:
        """Return the time at which the timer expires if it is not paused, or NEVER."""
        if self.limit is None or self._since is None:
            return NEVER
        return self._since + self.limit - self._spent

    def set_running(self, running: bool, now: float) -> None:
        """Start or pause the timer."""
        if running:
            if self._since is None:
                self._since = now
        elif self._since is not None:
            self._spent += now - self._since
            self._since = None

    def reset(self, now: float) -> None:
        """Start again from zero, after progress."""
        self._spent = 0.0
        if self._since is not None:
            self._since = now
