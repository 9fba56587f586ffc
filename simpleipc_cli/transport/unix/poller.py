"""Waiting for descriptors on Unix: poll for a few, epoll for many."""

from __future__ import annotations

import os
import select
from math import ceil

from simpleipc_cli.transport.base import HANGUP, READ, WRITE
from simpleipc_cli.transport.base_polling import Latch, Line, Poller, WakeupEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# poll's and epoll's numbers are the same (poll(2), epoll_ctl(2)).
_ASKED = {0: 0, READ: select.POLLIN, WRITE: select.POLLOUT, READ | WRITE: 5}
_HANGUP = select.POLLHUP | select.POLLERR | select.POLLNVAL
_LONGEST_WAIT = 86400.0  # seconds; the kernel's number for milliseconds ends at 24 days
_FINE_BELOW = 0.01  # seconds; where a millisecond matters, at will
_MOST_FOR_SELECT = 1024  # descriptors that select(2) knows, numbered from 0 (FD_SETSIZE)
_TOLD = [
    (READ if flags & select.POLLIN else 0)
    | (WRITE if flags & select.POLLOUT else 0)
    | (HANGUP if flags & _HANGUP else 0)
    for flags in range(64)
]


class UnixPoller(Poller):
    """poll(2): nothing to open or close, cheap to change, slow for thousands."""

    __slots__ = ("_poll", "_wanted")

    def __init__(self) -> None:
        """A poller that watches nothing yet."""
        self._poll = select.poll()
        self._wanted: dict[int, int] = {}

    def watch(self, descriptor: int, wanted: int) -> None:
        """See Poller."""
        if self._wanted.get(descriptor) != wanted:
            self._wanted[descriptor] = wanted
            self._poll.register(descriptor, _ASKED[wanted])

    def forget(self, descriptor: int) -> None:
        """See Poller."""
        if self._wanted.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def forget_closed(self, descriptor: int) -> None:
        """See Poller. To poll(2), a descriptor is a number."""
        self.forget(descriptor)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """See Poller."""
        millis = None if timeout is None else ceil(min(timeout, _LONGEST_WAIT) * 1000)
        return [(descriptor, _TOLD[flags & 63]) for descriptor, flags in self._poll.poll(millis)]

    def close(self) -> None:
        """See Poller."""


class UnixScalablePoller(Poller):
    """epoll(7): holds a descriptor of its own, as fast with ten thousand as with one."""

    def __init__(self) -> None:
        """A poller that watches nothing yet."""
        self._epoll = select.epoll()
        # A process that was started with a thousand descriptors open has no such number left.
        self._can_be_fine = self._epoll.fileno() < _MOST_FOR_SELECT
        self._wanted: dict[int, int] = {}

    def watch(self, descriptor: int, wanted: int) -> None:
        """See Poller."""
        before = self._wanted.get(descriptor)
        if before == wanted:
            return
        if before is None:
            self._epoll.register(descriptor, _ASKED[wanted])
        else:
            self._epoll.modify(descriptor, _ASKED[wanted])
        self._wanted[descriptor] = wanted

    def forget(self, descriptor: int) -> None:
        """See Poller."""
        if self._wanted.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def forget_closed(self, descriptor: int) -> None:
        """See Poller. What is closed, the kernel has removed (epoll(7))."""
        self._wanted.pop(descriptor, None)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """See Poller."""
        if timeout is not None:
            timeout = min(timeout, _LONGEST_WAIT)
            # epoll itself rounds up to milliseconds.
            if 0 < timeout < _FINE_BELOW and self._can_be_fine:
                select.select([self._epoll.fileno()], [], [], timeout)
                timeout = 0
        found = self._epoll.poll(timeout)
        return [(descriptor, _TOLD[flags & 63]) for descriptor, flags in found]

    def close(self) -> None:
        """See Poller."""
        self._epoll.close()


class UnixWakeupEvent(WakeupEvent):
    """An eventfd(2)."""

    def __init__(self) -> None:
        """A bell that does not ring. Raises OSError without descriptors."""
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """See Bell."""
        return self._descriptor

    def ring(self) -> None:
        """See Bell."""
        os.eventfd_write(self._descriptor, 1)

    def quiet(self) -> None:
        """See Bell."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            pass  # it did not ring

    def close(self) -> None:
        """See Bell."""
        os.close(self._descriptor)


class UnixLatch(Latch):
    """A pipe whose writing end is closed: all who poll the reading end see a hang-up."""

    def __init__(self) -> None:
        """A latch that is not set. Raises OSError without descriptors."""
        self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        """See Latch."""
        return self._reader

    def set(self) -> None:
        """See Latch. The number is taken out first: a signal may come in between."""
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)

    def is_set(self) -> bool:
        """See Latch."""
        return self._writer < 0

    def close(self) -> None:
        """See Latch."""
        self.set()
        os.close(self._reader)


class UnixConnectionWatcher(Line):
    """The connection's socket."""

    def __init__(self, connection: Connection) -> None:
        """`connection` must stay open for so long."""
        self._descriptor = connection.fileno()
        self._poller = UnixPoller()
        self._poller.watch(self._descriptor, WRITE)

    def fileno(self) -> int:
        """See Line."""
        return self._descriptor

    def has_room(self) -> bool:
        """See Line. A socket is taken for writable when most of its buffer is free."""
        return bool(self._poller.wait(0))

    def close(self) -> None:
        """See Line."""
        self._poller.close()
