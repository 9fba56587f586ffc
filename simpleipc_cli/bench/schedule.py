"""When requests are due. Knows numbers alone; times are nanoseconds of the monotonic clock."""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil


def interval_of(rate: float) -> int:
    """Nanoseconds between requests of which `rate` are due in a second.

    Rounded up: down, one request too many would be due in a run's last nanoseconds, when it
    cannot be started any more.
    """
    return ceil(1e9 / rate)


class Schedule:
    """When the requests of one process are due, in an open loop and in a closed one."""

    def __init__(self, begin: int, interval: int | None, concurrency: int) -> None:
        """From `begin` on: every `interval`, or None, as soon as one of the clients is free."""
        self._begin = begin
        self._interval = interval
        self._number = 0
        # A heap: a client that was refused is free later than those that come after it.
        self._free = [begin] * concurrency

    def next(self) -> int | None:
        """When the next request is due; None if all clients are busy."""
        if self._interval is not None:
            return self._begin + self._number * self._interval
        return self._free[0] if self._free else None

    def take(self, now: int) -> int:
        """When the next request was due that is started now; in a closed loop that is now."""
        if self._interval is None:
            heappop(self._free)
            return now
        self._number += 1
        return self._begin + (self._number - 1) * self._interval

    def give_back(self, at: int) -> None:
        """A client is free again."""
        if self._interval is None:
            heappush(self._free, at)

    def left_over(self, begin: int, end: int) -> int:
        """How many were due from `begin` to before `end` and were not taken."""
        if self._interval is None:
            return 0
        first, last = (-(-(at - self._begin) // self._interval) for at in (begin, end))
        return max(0, last - max(first, self._number))
