"""Wait for events with poll(2), which every POSIX system has."""

from __future__ import annotations

import select
from math import ceil

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport.base import HANGUP, READ, WRITE
from simpleipc_cli.transport.base_server import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_TIMEOUT = 86400.0  # seconds; the kernel counts milliseconds up to 24 days

# The event flags of poll and epoll are the same (poll(2), epoll_ctl(2)).
_TO_KERNEL = {0: 0, READ: select.POLLIN, WRITE: select.POLLOUT, READ | WRITE: 5}
_HANGUP = select.POLLHUP | select.POLLERR | select.POLLNVAL
FROM_KERNEL = [
    (READ if flags & select.POLLIN else 0)
    | (WRITE if flags & select.POLLOUT else 0)
    | (HANGUP if flags & _HANGUP else 0)
    for flags in range(64)
]


def is_hung_up(descriptor: int) -> bool:
    """Return whether the other end has closed the connection. Raises SipcError."""
    poll = select.poll()
    poll.register(descriptor, 0)
    try:
        return bool(poll.poll(0))
    except OSError as error:
        raise SipcError(f"cannot poll the connection: {error.strerror}") from error


class PollPoller(Poller):
    """poll(2): needs no extra descriptor; registers fast, is slow with thousands of descriptors."""

    _kernel: Any  # the same methods of select.poll or select.epoll

    def __init__(self) -> None:
        self._kernel = select.poll()
        self._events: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[int], object]] = {}

    def register(
        self, descriptor: int, events: int, callback: Callable[[int], object] | None = None
    ) -> None:
        if callback is not None:
            self._callbacks[descriptor] = callback
        before = self._events.get(descriptor)
        if before == events:
            return
        if before is None:
            self._kernel.register(descriptor, _TO_KERNEL[events])
        else:
            self._kernel.modify(descriptor, _TO_KERNEL[events])
        self._events[descriptor] = events

    def unregister(self, descriptor: int) -> None:
        if self._events.pop(descriptor, None) is not None:
            self._callbacks.pop(descriptor, None)
            self._kernel.unregister(descriptor)

    def discard(self, descriptor: int) -> None:
        self.unregister(descriptor)  # poll(2) keeps no state in the kernel

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        return [(number, FROM_KERNEL[flags & 63]) for number, flags in self._poll(timeout)]

    def dispatch(self, timeout: float | None) -> None:
        call_back(self._poll(timeout), self._callbacks)

    def _poll(self, timeout: float | None) -> list[tuple[int, int]]:
        millis = None if timeout is None else ceil(min(timeout, MAX_TIMEOUT) * 1000)
        found: list[tuple[int, int]] = self._kernel.poll(millis)
        return found

    def close(self) -> None:
        self._callbacks.clear()


def call_back(found: list[tuple[int, int]], callbacks: dict[int, Callable[[int], object]]) -> None:
    """Call the callbacks that were registered for `found`, unless another call removed them."""
    for number, flags, callback in [(*ready, callbacks.get(ready[0])) for ready in found]:
        # An earlier callback may have closed the descriptor, and its number may be in use again.
        if callback is not None and callbacks.get(number) is callback:
            callback(FROM_KERNEL[flags & 63])
