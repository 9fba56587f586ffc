"""Descriptors: how many the server may have open, and those that it was started with.

Handlers keep the limit it was given.

The limit is only raised when it is needed: until then children can be started without
setting it back, which costs a process image more.
"""

from __future__ import annotations

import os
from threading import Condition

from simpleipc_cli.system import UNLIMITED, get_fd_limits, set_fd_limit

_MOST = 1 << 20  # the default of fs.nr_open in Linux: no process can have more


class DescriptorLimit:
    """The process's own soft limit on open files. One object a process."""

    def __init__(self) -> None:
        """Looks, and changes nothing."""
        self.original, self._hard = get_fd_limits()
        self.current = self.original
        self.most = _MOST if self._hard == UNLIMITED else min(self._hard, _MOST)
        """What the limit can be raised to."""
        # It is set while no child is being started, and children are started while nobody
        # sets it.
        self._changed = Condition()
        self._setting = False
        self._spawning = 0

    def raise_to_most(self) -> bool:
        """Allow as many as the hard limit does; False if that is no more than before."""
        return self.current < self.most and self._set(self.most)

    def lower(self) -> None:
        """Go back to what it was at first; what is open beyond that stays open."""
        self._set(self.original)

    @property
    def is_raised(self) -> bool:
        """Whether children must set it back."""
        return self.current != self.original

    def _set(self, limit: int) -> bool:
        with self._changed:
            self._setting = True  # nobody starts a child before us: we might wait for ever
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
        """While a child is started: the soft limit it must set for itself, if any.

        Any number of children can be started at once.
        """
        with self._changed:
            while self._setting:
                self._changed.wait()
            self._spawning += 1
            return self.original if self.is_raised else None

    def __exit__(self, *_: object) -> None:
        """The child has been started."""
        with self._changed:
            self._spawning -= 1
            if self._setting:
                self._changed.notify_all()


def inheritable_fds() -> list[int]:
    """Descriptors above 2 that a child of ours would have without being given them.

    We were started with them. Somebody may wait until all who have them have ended, as
    with `flock 9` or a test that reads its program's output to the end.
    """
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(os.sysconf("SC_OPEN_MAX")))
    return [number for number in numbers if number > 2 and _is_passed_on(number)]


def _is_passed_on(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False  # the one with which we looked
