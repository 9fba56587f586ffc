"""Wait for events with kqueue(2), on macOS and the BSDs.

On macOS, poll(2) reports no hang-up if no other event is asked for, and it reports one if the peer
has closed only its sending direction. In a kqueue the two differ: EV_EOF of the read filter means
that the peer sends no more, EV_EOF of the write filter that it has closed (filt_soread_common and
filt_sowrite_common in XNU). So each descriptor has a write filter. If WRITE is not asked for, that
filter reports each change once (EV_CLEAR), and all but EV_EOF is ignored.

select(2) waits for the files that kqueue refuses (on macOS /dev/tty and /dev/null) or of which it
does not report the end (regular files; on macOS also named pipes).
"""

from __future__ import annotations

import errno
import select
import stat
import sys
from contextlib import closing
from os import fstat

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport.unix.poll import MAX_TIMEOUT, PollPoller

TYPE_CHECKING = False
# Elsewhere mypy knows no kqueue, and reads no further.
assert sys.platform != "linux" or not TYPE_CHECKING  # noqa: S101

_MAX_EVENTS = 256  # for each system call (tunable)
_REFUSALS = {errno.EINVAL, errno.ENODEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENXIO, errno.EPERM}


def is_hung_up(descriptor: int) -> bool:
    """Return whether the other end has closed the connection. Raises SipcError."""
    try:
        with closing(select.kqueue()) as kqueue:
            change = select.kevent(descriptor, select.KQ_FILTER_WRITE, select.KQ_EV_ADD)
            kqueue.control([change], 0)
            return any(event.flags & select.KQ_EV_EOF for event in kqueue.control(None, 1, 0))
    except OSError as error:
        raise SipcError(f"cannot poll the connection: {error.strerror}") from error


class KqueuePoller(PollPoller):
    """kqueue(2): needs one more descriptor; is as fast with ten thousand descriptors."""

    def __init__(self) -> None:
        """Raises OSError without a free descriptor."""
        super().__init__()
        self._kernel = self._kqueue = _Kqueue()

    def discard(self, descriptor: int) -> None:
        self._events.pop(descriptor, None)
        self._callbacks.pop(descriptor, None)
        self._kqueue.forget(descriptor)

    def _poll(self, timeout: float | None) -> list[tuple[int, int]]:
        return self._kqueue.poll(None if timeout is None else min(timeout, MAX_TIMEOUT))

    def close(self) -> None:
        self._kqueue.close()
        self._callbacks.clear()


class _Kqueue:
    """A kqueue with the methods and the flags of select.poll(), but timeouts in seconds."""

    def __init__(self) -> None:
        self._kqueue = select.kqueue()
        self.close = self._kqueue.close
        self._wanted: dict[int, int] = {}  # flags by descriptor
        self._selected: set[int] = set()  # descriptors that select(2) waits for
        self._hung_up: set[int] = set()  # descriptors whose EV_EOF has been reported

    def register(self, descriptor: int, flags: int) -> None:
        if not _is_watchable(descriptor):
            self._selected.add(descriptor)
        try:
            self.modify(descriptor, flags)
        except OSError:
            self.unregister(descriptor)
            raise

    def modify(self, descriptor: int, flags: int) -> None:
        self._wanted[descriptor] = flags
        if descriptor in self._selected:
            return
        self._remove_filters(descriptor)  # EV_CLEAR of an existing filter cannot be changed
        clear = 0 if flags & select.POLLOUT else select.KQ_EV_CLEAR
        if not self._add(descriptor, select.KQ_FILTER_WRITE, clear) and flags & select.POLLOUT:
            self._selected.add(descriptor)
        if flags & select.POLLIN and not self._add(descriptor, select.KQ_FILTER_READ, 0):
            self._selected.add(descriptor)
        if descriptor in self._selected:
            self._remove_filters(descriptor)

    def _add(self, descriptor: int, kind: int, flags: int) -> bool:
        """Add a filter; return whether the descriptor's file has it. Raises OSError."""
        change = select.kevent(descriptor, kind, select.KQ_EV_ADD | flags)
        try:
            self._kqueue.control([change], 0)
        except OSError as error:
            if error.errno == errno.EPIPE:  # FreeBSD: a pipe whose reader has closed
                self._hung_up.add(descriptor)
            elif error.errno in _REFUSALS:
                return False
            else:
                raise
        return True

    def _remove_filters(self, descriptor: int) -> None:
        for kind in select.KQ_FILTER_READ, select.KQ_FILTER_WRITE:
            try:
                self._kqueue.control([select.kevent(descriptor, kind, select.KQ_EV_DELETE)], 0)
            except OSError:
                pass  # it has no such filter, or was closed before

    def unregister(self, descriptor: int) -> None:
        self.forget(descriptor)
        self._remove_filters(descriptor)

    def forget(self, descriptor: int) -> None:
        """Forget a closed descriptor: the kernel has removed its filters."""
        self._wanted.pop(descriptor, None)
        self._selected.discard(descriptor)
        self._hung_up.discard(descriptor)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        found = dict.fromkeys(self._hung_up, select.POLLHUP)
        timeout = 0.0 if found else timeout
        if self._selected:
            found |= self._select(timeout)
            timeout = 0.0
        for event in self._kqueue.control(None, _MAX_EVENTS, timeout):
            if flags := self._flags_of(event):
                found[event.ident] = found.get(event.ident, 0) | flags
        return list(found.items())

    def _select(self, timeout: float | None) -> dict[int, int]:
        wanted = [(number, self._wanted[number]) for number in self._selected]
        readers = [number for number, flags in wanted if flags & select.POLLIN]
        writers = [number for number, flags in wanted if flags & select.POLLOUT]
        readers.append(self._kqueue.fileno())
        readable, writable, _ = select.select(readers, writers, [], timeout)
        found = dict.fromkeys(writable, select.POLLOUT)
        for number in self._selected.intersection(readable):
            found[number] = found.get(number, 0) | select.POLLIN
        return found

    def _flags_of(self, event: select.kevent) -> int:
        """Return the event's flags, without those that were not asked for."""
        wanted = self._wanted.get(event.ident)
        if wanted is None:
            return 0  # another thread has unregistered it
        is_hung_up = event.flags & select.KQ_EV_EOF
        if event.filter == select.KQ_FILTER_READ:
            wanted &= select.POLLIN
            # FreeBSD has no write filter for a pipe's read end. Only a socket has two directions.
            is_hung_up = is_hung_up and stat.S_ISFIFO(fstat(event.ident).st_mode)
        else:
            wanted &= select.POLLOUT
            if is_hung_up:
                self._hung_up.add(event.ident)  # until it is unregistered: EV_CLEAR reports it once
        return wanted | (select.POLLHUP if is_hung_up else 0)


def _is_watchable(descriptor: int) -> bool:
    """Return whether kqueue reports all events of a descriptor. Raises OSError."""
    status = fstat(descriptor)
    is_named_pipe = stat.S_ISFIFO(status.st_mode) and status.st_nlink > 0
    return not (stat.S_ISREG(status.st_mode) or is_named_pipe)
