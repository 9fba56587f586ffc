"""A kqueue on Linux, which behaves as the sources of XNU and FreeBSD say.

The names below are those of the module `select` on these systems. Each filter looks at the real
descriptor, with poll(2) and ioctl(2), when events are asked for.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import stat
import struct
import sys
import termios
import time
from dataclasses import dataclass
from weakref import WeakValueDictionary

KQ_FILTER_READ, KQ_FILTER_WRITE, KQ_FILTER_PROC, KQ_FILTER_TIMER = -1, -2, -5, -7
KQ_EV_ADD, KQ_EV_DELETE, KQ_EV_ONESHOT, KQ_EV_CLEAR = 0x1, 0x2, 0x10, 0x20
KQ_EV_ERROR, KQ_EV_EOF = 0x4000, 0x8000
KQ_NOTE_EXIT = 0x80000000

# A test may take these names away later: the script needs them.
_epoll, _poll = getattr(select, "epoll", None), select.poll
_pidfd_open, _eventfd = getattr(os, "pidfd_open", None), getattr(os, "eventfd", None)

_fstat = os.fstat

IS_AVAILABLE = None not in (_epoll, _pidfd_open, _eventfd)
"""Whether this system can play the script."""

_RDHUP = 0x2000  # POLLRDHUP
_TICK = 0.001  # seconds between looks at all descriptors
_REFUSED = {os.makedev(1, 3), os.makedev(5, 0)}  # /dev/null and /dev/tty, on macOS

is_freebsd = False
"""Whether pipes behave as on FreeBSD, else as on macOS."""

_kqueues = WeakValueDictionary()  # by descriptor


@dataclass
class kevent:
    ident: int
    filter: int = KQ_FILTER_READ
    flags: int = KQ_EV_ADD
    fflags: int = 0
    data: int = 0
    udata: int = 0


class kqueue:
    """Real descriptors: an epoll, which is readable if a filter may have an event."""

    def __init__(self):
        self._epoll = _epoll()
        self._notes = {}
        _kqueues[self.fileno()] = self

    def fileno(self):
        return self._epoll.fileno()

    def close(self):
        if not self._epoll.closed:
            _kqueues.pop(self.fileno(), None)
            self._epoll.close()
        self._notes.clear()

    def control(self, changelist, max_events, timeout=None):
        found = []
        for change in changelist or ():
            number = self._change(change)
            if number and len(found) < max_events:
                found.append(kevent(change.ident, change.filter, KQ_EV_ERROR, data=number))
            elif number:
                raise OSError(number, os.strerror(number))
        end = None if timeout is None else time.monotonic() + timeout
        while not (found or not max_events):
            found = self._events(max_events)
            left = _TICK if end is None else end - time.monotonic()
            if found or left <= 0:
                break
            time.sleep(min(_TICK, left))
        return found

    def _change(self, change):
        """Make a change; return its error number or 0."""
        self._forget_closed()
        key = change.ident, change.filter
        if change.flags & KQ_EV_DELETE:
            note = self._notes.pop(key, None)
            if note is None:
                return errno.ENOENT
            self._watch(change.ident)
            return 0
        if key in self._notes:  # its flags do not change (kqueue_register in FreeBSD)
            return 0
        try:
            self._notes[key] = _NOTES[change.filter](change)
            self._watch(change.ident)
        except OSError as error:
            self._notes.pop(key, None)
            return error.errno
        return 0

    def _watch(self, ident):
        """Make the epoll readable when a filter of this descriptor may have an event."""
        notes = [self._notes[key] for key in self._notes if key[0] == ident]
        wanted = 0
        for note in notes:
            wanted |= note.wanted
        number = notes[0].polled if notes else ident
        try:
            self._epoll.unregister(number)
        except OSError:
            pass  # it is not registered
        if notes:
            try:
                self._epoll.register(number, wanted)
            except PermissionError:
                pass  # a regular file

    def _events(self, max_events):
        """Take at most so many events."""
        found = []
        self._forget_closed()
        for key, note in list(self._notes.items()):
            event = note.event()
            if event is not None:
                found.append(event)
                if note.flags & KQ_EV_ONESHOT:
                    del self._notes[key]
                if len(found) == max_events:
                    break
        return found

    def _forget_closed(self):
        """Forget the filters of closed files, as the kernel does."""
        for key in [key for key, note in list(self._notes.items()) if note.is_closed()]:
            self._notes.pop(key, None)

    def has_events(self):
        self._forget_closed()
        return any(note.look()[0] for note in list(self._notes.values()))


class FileNote:
    """A filter of a descriptor."""

    def __init__(self, change):
        self.ident = self.polled = change.ident
        self.filter, self.flags = change.filter, change.flags
        self._status = os.fstat(self.ident)
        self._mode = self._status.st_mode
        self._access = fcntl.fcntl(self.ident, fcntl.F_GETFL) & os.O_ACCMODE
        self._space = float("-inf")
        self._had_eof = False
        if stat.S_ISCHR(self._mode) and self._status.st_rdev in _REFUSED:
            raise OSError(errno.EINVAL, "the device has no filters")
        if self.ident in _kqueues and self.filter != KQ_FILTER_READ:
            raise OSError(errno.EINVAL, "a kqueue has no such filter")
        is_pipe_end = self.filter == KQ_FILTER_WRITE and self._access == os.O_WRONLY
        if is_freebsd and is_pipe_end and self._polled() & select.POLLERR:
            raise OSError(errno.EPIPE, "pipe_kqfilter")
        wants_space = self.filter == KQ_FILTER_WRITE and not self.flags & KQ_EV_CLEAR
        self.wanted = select.POLLOUT if wants_space else 0
        if self.filter == KQ_FILTER_READ:
            self.wanted = select.POLLIN

    def is_closed(self):
        try:
            return not os.path.samestat(os.fstat(self.ident), self._status)
        except OSError:
            return True

    def event(self):
        """Return an event to report; with EV_CLEAR, only after a change."""
        is_active, data, eof = self.look()
        flags = self.flags | (KQ_EV_EOF if eof else 0)
        space, self._space = self._space, data
        had_eof, self._had_eof = self._had_eof, eof
        if self.flags & KQ_EV_CLEAR and data <= space and eof == had_eof:
            return None
        return kevent(self.ident, self.filter, flags, data=data) if is_active else None

    def look(self):
        """Return whether the filter is active, its data, and whether it has EV_EOF."""
        if self.ident in _kqueues:
            has_events = _kqueues[self.ident].has_events()
            return has_events, int(has_events), False
        if stat.S_ISREG(self._mode):
            return self._look_at_file()
        polled = self._polled()
        data = self._data()
        if stat.S_ISFIFO(self._mode):
            return self._look_at_pipe(polled, data)
        if self.filter == KQ_FILTER_READ:
            eof = bool(polled & (select.POLLHUP | _RDHUP))
            return eof or bool(polled & select.POLLIN), data, eof
        eof = bool(polled & (select.POLLHUP | select.POLLERR))
        return eof or bool(polled & select.POLLOUT), data, eof

    def _look_at_file(self):
        """filt_vnode_common: it never has EV_EOF."""
        if self.filter == KQ_FILTER_WRITE:
            return True, 1, False
        left = os.fstat(self.ident).st_size - os.lseek(self.ident, 0, os.SEEK_CUR)
        return left != 0, left, False

    def _look_at_pipe(self, polled, data):
        if not is_freebsd and _is_named(self.ident):  # as for a file
            return data > 0, data, False
        reads = self._access == os.O_RDONLY
        eof = bool(polled & (select.POLLHUP if reads else select.POLLERR))
        if reads != (self.filter == KQ_FILTER_READ):  # the filter of the other end
            return eof and not is_freebsd, 0, eof and not is_freebsd
        ready = select.POLLIN if reads else select.POLLOUT
        return eof or bool(polled & ready), data, eof

    def _polled(self):
        poll = _poll()
        poll.register(self.ident, select.POLLIN | select.POLLOUT | _RDHUP)
        return sum(flags for _, flags in poll.poll(0))

    def _data(self):
        """Return the bytes to read, or the space to write."""
        if self.filter == KQ_FILTER_READ:
            return self._count(termios.FIONREAD)
        if stat.S_ISFIFO(self._mode):
            return fcntl.fcntl(self.ident, fcntl.F_GETPIPE_SZ) - self._count(termios.FIONREAD)
        return -self._count(termios.TIOCOUTQ)

    def _count(self, request):
        try:
            found = fcntl.ioctl(self.ident, request, struct.pack("i", 0))
        except OSError:
            return 0  # such as a listening socket
        return struct.unpack("i", found)[0]


class ProcessNote:
    """filt_procattach: a process that has exited is not found (ESRCH), even if it is a zombie."""

    def __init__(self, change):
        self.ident, self.filter = change.ident, change.filter
        self.flags = change.flags | KQ_EV_ONESHOT
        self.wanted = select.POLLIN
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PID, self.ident, flags) is not None:
            raise ProcessLookupError(errno.ESRCH, "proc_find")
        self.polled = _pidfd_open(self.ident)

    def __del__(self):
        if hasattr(self, "polled"):
            os.close(self.polled)

    def is_closed(self):
        return False

    def look(self):
        poll = _poll()
        poll.register(self.polled, select.POLLIN)
        return bool(poll.poll(0)), 0, False

    def event(self):
        return kevent(self.ident, self.filter, self.flags) if self.look()[0] else None


class TimerNote:
    """A timer, which expires at once."""

    def __init__(self, change):
        self.ident, self.filter, self.flags = change.ident, change.filter, change.flags
        self.wanted = select.POLLIN
        self.polled = _eventfd(1)

    def __del__(self):
        os.close(self.polled)

    def is_closed(self):
        return False

    def look(self):
        return True, 1, False

    def event(self):
        return kevent(self.ident, self.filter, self.flags, data=1)


_NOTES = {
    KQ_FILTER_READ: FileNote,
    KQ_FILTER_WRITE: FileNote,
    KQ_FILTER_PROC: ProcessNote,
    KQ_FILTER_TIMER: TimerNote,
}


def _is_named(descriptor):
    return not os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:")


def fstat(descriptor):
    """Return a file's status; a pipe has no links, as on macOS and the BSDs."""
    status = _fstat(descriptor)
    if not stat.S_ISFIFO(status.st_mode) or _is_named(descriptor):
        return status
    fields = list(status)
    fields[stat.ST_NLINK] = 0
    return os.stat_result(fields)


def _names():
    names = globals()
    return {
        name: names[name]
        for name in names
        if name.startswith("KQ_") or name in {"kqueue", "kevent"}
    }


def install(monkeypatch, *, freebsd=False):
    """Give `select` the names above, and the module kqueue.py their view of pipes; return it."""
    from simpleipc_cli.transport.unix import kqueue as module  # noqa: PLC0415 - not on Windows

    for name, value in _names().items():
        monkeypatch.setattr(select, name, value, raising=False)
    monkeypatch.setattr(module, "fstat", fstat)
    monkeypatch.setitem(globals(), "is_freebsd", freebsd)
    return module


def apply(system):
    """Make this process, at its start, one on a system with kqueue: `darwin` or `freebsd14`."""
    global is_freebsd  # noqa: PLW0603
    is_freebsd = system != "darwin"
    sys.platform = system
    os.fstat = fstat
    del select.epoll, os.eventfd, os.pidfd_open
    for name, value in _names().items():
        setattr(select, name, value)
    from simpleipc_cli.transport.unix import peer  # noqa: PLC0415 - after the change above

    peer._READERS = dict.fromkeys(peer._READERS, _peer)  # Linux has other socket options


def _peer(connected):
    from simpleipc_cli.transport.base import Peer  # noqa: PLC0415

    numbers = connected.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return Peer(*memoryview(numbers).cast("i"))
