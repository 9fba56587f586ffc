"""Wait for events on descriptors, and read and write standard streams without blocking.

Pollers use poll(2) for a few descriptors, epoll(7) for many. Other programs may share the standard
streams, so O_NONBLOCK is not set on them.
"""

from __future__ import annotations

import os
import select
import stat
from math import ceil
from time import sleep

from simpleipc_cli import system
from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport.base import HANGUP, READ, WRITE
from simpleipc_cli.transport.base_server import FileReader, FileWriter, Poller, WakeupEvent
from simpleipc_cli.transport.unix.stream import fd_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The event flags of poll and epoll are the same (poll(2), epoll_ctl(2)).
_TO_KERNEL = {0: 0, READ: select.POLLIN, WRITE: select.POLLOUT, READ | WRITE: 5}
_HANGUP = select.POLLHUP | select.POLLERR | select.POLLNVAL
_MAX_TIMEOUT = 86400.0  # seconds; the kernel counts milliseconds up to 24 days
_FINE_BELOW = 0.01  # seconds; shorter timeouts need fractions of a millisecond (tunable)
_MAX_FOR_SELECT = 1024  # descriptors that select(2) takes, numbered from 0 (FD_SETSIZE)
_POLL_INTERVAL = 0.01  # seconds; used if no event reports space (tunable)
_PIPE_BUF = 4096  # bytes that a writable pipe accepts without blocking (pipe(7))
_FROM_KERNEL = [
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


class UnixPoller(Poller):
    """poll(2): needs no extra descriptor; registers fast, is slow with thousands of descriptors."""

    _kernel: select.poll | select.epoll

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
        return [(number, _FROM_KERNEL[flags & 63]) for number, flags in self._poll(timeout)]

    def dispatch(self, timeout: float | None) -> None:
        _call_back(self._poll(timeout), self._callbacks)

    def _poll(self, timeout: float | None) -> list[tuple[int, int]]:
        millis = None if timeout is None else ceil(min(timeout, _MAX_TIMEOUT) * 1000)
        return self._kernel.poll(millis)

    def close(self) -> None:
        self._callbacks.clear()


class UnixScalablePoller(UnixPoller):
    """epoll(7): needs one more descriptor; is as fast with ten thousand descriptors."""

    def __init__(self) -> None:
        """Raises OSError without a free descriptor."""
        super().__init__()
        self._kernel = self._epoll = select.epoll()
        # select(2) accepts only descriptors below this number.
        self._can_select = self._epoll.fileno() < _MAX_FOR_SELECT

    def discard(self, descriptor: int) -> None:
        self._events.pop(descriptor, None)  # the kernel has removed it (epoll(7))
        self._callbacks.pop(descriptor, None)

    def dispatch(self, timeout: float | None) -> None:
        if timeout is not None and (timeout < _FINE_BELOW or timeout > _MAX_TIMEOUT):
            timeout = self._sleep(timeout)
        found = self._epoll.poll(timeout)
        if len(found) == 1:
            number, flags = found[0]
            callback = self._callbacks.get(number)
            if callback is not None:
                callback(_FROM_KERNEL[flags & 63])
        else:
            _call_back(found, self._callbacks)

    def _poll(self, timeout: float | None) -> list[tuple[int, int]]:
        return self._epoll.poll(self._sleep(timeout))

    def _sleep(self, timeout: float | None) -> float | None:
        """Wait for short timeouts with select(2): epoll rounds them up to milliseconds.

        Return the rest of the timeout, for epoll.
        """
        if timeout is None:
            return None
        if 0 < timeout < _FINE_BELOW and self._can_select:
            select.select([self._epoll.fileno()], [], [], timeout)
            return 0
        return min(timeout, _MAX_TIMEOUT)

    def close(self) -> None:
        self._epoll.close()
        self._callbacks.clear()


def _call_back(found: list[tuple[int, int]], callbacks: dict[int, Callable[[int], object]]) -> None:
    """Call the callbacks that were registered for `found`, unless another call removed them."""
    for number, flags, callback in [(*ready, callbacks.get(ready[0])) for ready in found]:
        # An earlier callback may have closed the descriptor, and its number may be in use again.
        if callback is not None and callbacks.get(number) is callback:
            callback(_FROM_KERNEL[flags & 63])


class UnixWakeupEvent(WakeupEvent):
    """An eventfd(2)."""

    _descriptor = -1

    def __init__(self) -> None:
        """Raises OSError without a free descriptor."""
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_set = False

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        self._is_set = True
        try:
            os.eventfd_write(self._descriptor, 1)
        except (OSError, ValueError):
            # EAGAIN: the event is set. ValueError: it is closed. No error may fail the thread.
            pass

    def is_set(self) -> bool:
        return self._is_set

    def clear(self) -> None:
        self._is_set = False
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            pass  # the event was not set

    def close(self) -> None:
        """A thread may call set() later: the number may be another file's by then."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def __del__(self) -> None:
        """Close it, as of several for a server, the last may have failed."""
        if self._descriptor >= 0:
            self.close()


class UnixFileReader(FileReader):
    """Reads a descriptor that the poller reports as readable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def read_nowait(self, limit: int) -> bytes:
        """Read. This blocks if another program has read the data first."""
        return os.read(self._descriptor, limit)


class UnixFileWriter(FileWriter):
    """Polls the descriptor before each small write."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._target = _nonblocking(descriptor)
        self._poll = system.fd_poll(self._target, writing=True)

    def fileno(self) -> int:
        return self._descriptor

    def write_nowait(self, payload: memoryview) -> int:
        size = len(payload)
        while payload and (self._is_file or self._poll.poll(0)):
            try:
                piece = payload if self._is_file else payload[:_PIPE_BUF]
                payload = payload[os.write(self._target, piece) :]
            except BlockingIOError:  # another program wrote first, or no space for "\r\n"
                sleep(_POLL_INTERVAL)  # poll would report space at once
                break
        return size - len(payload)


def _nonblocking(descriptor: int) -> int:
    """Open a terminal again, non-blocking: it may have space for only one byte."""
    if os.isatty(descriptor):
        flags = os.O_WRONLY | system.O_NONBLOCK_FLAGS | system.OPEN_FLAGS
        try:
            return os.open(fd_path(descriptor), flags)
        except OSError:
            pass  # for example, a terminal of another user
    return descriptor
