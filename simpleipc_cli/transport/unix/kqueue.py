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
from simpleipc_cli.transport.base import HANGUP, READ, WRITE
from simpleipc_cli.transport.base_server import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Elsewhere mypy knows no kqueue, and reads no further.
assert sys.platform != "linux" or not TYPE_CHECKING  # noqa: S101

_MAX_EVENTS = 256  # for each system call (tunable)
_MAX_TIMEOUT = 86400.0  # seconds
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


class KqueuePoller(Poller):
    """kqueue(2): needs one more descriptor; is as fast with ten thousand descriptors."""

    def __init__(self) -> None:
        """Raises OSError without a free descriptor."""
        self._kqueue = select.kqueue()
        self._events: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._selected: set[int] = set()  # descriptors that select(2) waits for
        self._hung_up: set[int] = set()  # descriptors whose EV_EOF has been reported

    def register(
        self, descriptor: int, events: int, callback: Callable[[int], object] | None = None
    ) -> None:
        if callback is not None:
            self._callbacks[descriptor] = callback
        before = self._events.get(descriptor)
        if before == events:
            return
        if before is None and not _is_watchable(descriptor):
            self._selected.add(descriptor)
        self._events[descriptor] = events
        if descriptor not in self._selected:
            try:
                self._change(descriptor, before, events)
            except OSError:
                self.unregister(descriptor)
                raise

    def _change(self, descriptor: int, before: int | None, events: int) -> None:
        """Change the filters of a descriptor; if an event is refused, leave it to select(2)."""
        is_accepted = True
        if (before or 0) & READ and not events & READ:
            self._remove(descriptor, select.KQ_FILTER_READ)
        elif events & READ and not (before or 0) & READ:
            is_accepted = self._add(descriptor, select.KQ_FILTER_READ, select.KQ_EV_ADD)
        if before is None or (before ^ events) & WRITE:
            if before is not None:  # EV_CLEAR of an existing filter cannot be changed
                self._remove(descriptor, select.KQ_FILTER_WRITE)
            flags = select.KQ_EV_ADD | (0 if events & WRITE else select.KQ_EV_CLEAR)
            is_added = self._add(descriptor, select.KQ_FILTER_WRITE, flags)
            is_accepted = is_accepted and (is_added or not events & WRITE)
        if not is_accepted:
            self._remove(descriptor, select.KQ_FILTER_READ)
            self._remove(descriptor, select.KQ_FILTER_WRITE)
            self._selected.add(descriptor)

    def _add(self, descriptor: int, kind: int, flags: int) -> bool:
        """Add a filter; return whether the descriptor's file has it. Raises OSError."""
        try:
            self._kqueue.control([select.kevent(descriptor, kind, flags)], 0)
        except OSError as error:
            if error.errno == errno.EPIPE:  # FreeBSD: a pipe whose reader has closed
                self._hung_up.add(descriptor)
            elif error.errno in _REFUSALS:
                return False
            else:
                raise
        return True

    def _remove(self, descriptor: int, kind: int) -> None:
        try:
            self._kqueue.control([select.kevent(descriptor, kind, select.KQ_EV_DELETE)], 0)
        except OSError:
            pass  # it has no such filter, or was closed before

    def unregister(self, descriptor: int) -> None:
        events = self._events.get(descriptor)
        is_selected = descriptor in self._selected
        self.discard(descriptor)
        if events is not None and not is_selected:
            if events & READ:
                self._remove(descriptor, select.KQ_FILTER_READ)
            self._remove(descriptor, select.KQ_FILTER_WRITE)

    def discard(self, descriptor: int) -> None:
        self._events.pop(descriptor, None)  # the kernel removes the filters of a closed file
        self._callbacks.pop(descriptor, None)
        self._selected.discard(descriptor)
        self._hung_up.discard(descriptor)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        found = dict.fromkeys(self._hung_up, HANGUP)
        timeout = 0.0 if found else None if timeout is None else min(timeout, _MAX_TIMEOUT)
        if self._selected:
            found |= self._select(timeout)
            timeout = 0.0
        for event in self._kqueue.control(None, _MAX_EVENTS, timeout):
            flags = self._flags_of(event)
            if flags:
                found[event.ident] = found.get(event.ident, 0) | flags
        return list(found.items())

    def _select(self, timeout: float | None) -> dict[int, int]:
        readers = [number for number in self._selected if self._events[number] & READ]
        writers = [number for number in self._selected if self._events[number] & WRITE]
        readable, writable, _ = select.select(
            [self._kqueue.fileno(), *readers], writers, [], timeout
        )
        found = dict.fromkeys(writable, WRITE)
        for number in readable:
            if number in self._selected:
                found[number] = found.get(number, 0) | READ
        return found

    def _flags_of(self, event: select.kevent) -> int:
        """Return the event's flags, without those that were not asked for."""
        wanted = self._events.get(event.ident, -1)
        if wanted < 0:
            return 0  # another thread has unregistered it
        is_at_end = event.flags & select.KQ_EV_EOF
        if event.filter == select.KQ_FILTER_READ:
            # FreeBSD has no write filter for a pipe's read end. Only a socket has two directions.
            has_ended = is_at_end and stat.S_ISFIFO(fstat(event.ident).st_mode)
            return wanted & READ | (HANGUP if has_ended else 0)
        if is_at_end:
            self._hung_up.add(event.ident)  # until it is unregistered: EV_CLEAR reports it once
        return wanted & WRITE | (HANGUP if is_at_end else 0)

    def dispatch(self, timeout: float | None) -> None:
        callbacks = self._callbacks
        ready = [(number, events, callbacks.get(number)) for number, events in self.wait(timeout)]
        for number, events, callback in ready:
            # An earlier callback may have closed the descriptor: its number may be in use again.
            if callback is not None and callbacks.get(number) is callback:
                callback(events)

    def close(self) -> None:
        self._kqueue.close()
        self._callbacks.clear()


def _is_watchable(descriptor: int) -> bool:
    """Return whether kqueue reports all events of a descriptor. Raises OSError."""
    status = fstat(descriptor)
    is_named_pipe = stat.S_ISFIFO(status.st_mode) and status.st_nlink > 0
    return not (stat.S_ISREG(status.st_mode) or is_named_pipe)
