"""Choose what waits for events on descriptors, and wake the threads that wait.

A few descriptors: kqueue(2) on macOS and the BSDs, else poll(2). Many: epoll(7) on Linux, kqueue(2)
on macOS and the BSDs, else poll(2).
"""

from __future__ import annotations

import errno
import os
import select
import sys

from simpleipc_cli.transport.base_server import Poller, WakeupEvent
from simpleipc_cli.transport.unix.poll import PollPoller, is_hung_up

if sys.platform == "linux":
    new_poller = PollPoller
else:
    from simpleipc_cli.transport.unix import kqueue

    _HAS_KQUEUE = hasattr(select, "kqueue")

    def new_poller() -> Poller:
        """Return a poller for a few descriptors."""
        if _HAS_KQUEUE:
            try:
                return kqueue.KqueuePoller()
            except OSError:
                pass  # no free descriptor
        return PollPoller()

    if _HAS_KQUEUE:
        is_hung_up = kqueue.is_hung_up

__all__ = ["UnixWakeupEvent", "is_hung_up", "new_poller", "new_scalable_poller"]

_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # other errors: the system forbids the call
_CHUNK = 4096  # bytes to read at once from the pipe of a wakeup event (tunable)
_ONE = (1).to_bytes(8, sys.byteorder)  # added to an eventfd's counter (eventfd(2))


def new_scalable_poller() -> Poller:
    """Return a poller for many descriptors. Raises OSError without a free descriptor."""
    if sys.platform == "linux":
        from simpleipc_cli.transport.unix.epoll import EpollPoller  # noqa: PLC0415 - for servers

        try:
            return EpollPoller()
        except AttributeError:
            pass  # a Python that was built without epoll
        except OSError as error:
            if error.errno in _SCARCE:
                raise
    elif _HAS_KQUEUE:
        return kqueue.KqueuePoller()
    return PollPoller()


class UnixWakeupEvent(WakeupEvent):
    """An eventfd(2) on Linux, else a pipe."""

    _reader = _writer = -1

    def __init__(self) -> None:
        """Raises OSError without free descriptors."""
        self._reader, self._writer = _new_event()
        self._is_set = False

    def fileno(self) -> int:
        return self._reader

    def set(self) -> None:
        self._is_set = True
        try:
            os.write(self._writer, _ONE)
        except OSError:
            pass  # EAGAIN: the event is set. EBADF: it is closed. No error may fail the thread.

    def is_set(self) -> bool:
        return self._is_set

    def clear(self) -> None:
        self._is_set = False
        try:
            while len(os.read(self._reader, _CHUNK)) == _CHUNK:
                pass
        except BlockingIOError:
            pass  # the event was not set, or the pipe is empty now

    def close(self) -> None:
        """A thread may call set() later: the number may be another file's by then."""
        descriptors, self._reader, self._writer = {self._reader, self._writer}, -1, -1
        for descriptor in descriptors:
            os.close(descriptor)

    def __del__(self) -> None:
        """Close it, as of several for a server, the last may have failed."""
        if self._reader >= 0:
            self.close()


def _new_event() -> tuple[int, int]:
    """Return the descriptors to read and to write; they may be the same. Raises OSError."""
    eventfd = getattr(os, "eventfd", None)
    if eventfd is not None:
        try:
            descriptor = eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC)  # the flags of eventfd(2)
        except OSError as error:
            if error.errno in _SCARCE:
                raise
        else:
            return descriptor, descriptor
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer
