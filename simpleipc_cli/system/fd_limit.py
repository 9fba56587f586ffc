"""The limit on open descriptors, and the descriptors that the process was started with.

The server raises its own limit; handlers get the original one. It is raised only when needed:
until then a child can be started without resetting it, which costs another execve().
"""

from __future__ import annotations

import os
from threading import Condition

from simpleipc_cli.system import UNLIMITED, get_fd_limits, set_fd_limit

_MAX = 1 << 20  # the default of fs.nr_open in Linux


class DescriptorLimit:
    """The process's own soft limit on open files. Make one object in a process."""

    def __init__(self) -> None:
        self.original, self._hard = get_fd_limits()
        self.current = self.original
        self.maximum = _MAX if self._hard == UNLIMITED else min(self._hard, _MAX)
        # The limit is not changed while a child is being started.
        self._changed = Condition()
        self._setting = False
        self._spawning = 0

    def raise_to_maximum(self) -> bool:
        """Raise the limit to the maximum; return False if that is not possible."""
        return self.current < self.maximum and self._set(self.maximum)

    def lower(self) -> None:
        """Return to the original limit; descriptors beyond it stay open."""
        self._set(self.original)

    @property
    def is_raised(self) -> bool:
        """Whether children must reset it."""
        return self.current != self.original

    def _set(self, limit: int) -> bool:
        with self._changed:
            self._setting = True  # no more children are started, so the wait ends
            try:
                self._changed.wait_for(lambda: not self._spawning)
                done = set_fd_limit(limit, self._hard)
            finally:
                self._setting = False
                self._changed.notify_all()
            if done:
                self.current = limit
        return done

    def __enter__(self) -> int | None:
        """Keep the limit while a child is started; return the limit that the child must set.

        Return None if it need not set one. Any number of threads can start children at once.
        """
        with self._changed:
            while self._setting:
                self._changed.wait()
            self._spawning += 1
            return None if self.current == self.original else self.original

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._spawning -= 1
            if self._setting:
                self._changed.notify_all()


def inheritable_fds() -> list[int]:
    """Return the descriptors above 2 that this process was given and its children would get.

    The process that opened them may wait until every copy is closed, as with `flock 9`, or a
    test that reads its program's output to the end.
    """
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(os.sysconf("SC_OPEN_MAX")))
    return [number for number in numbers if number > 2 and _is_inheritable(number)]


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False  # closed by now: listdir()'s own
