"""The limit on open descriptors.

The server raises its own limit; handlers get the original one. It does so only when it needs more
descriptors, as each child must then reset the limit by another execve().
"""

from __future__ import annotations

from threading import Condition

from simpleipc_cli.system import get_fd_limits, set_fd_limit

_MAX = 1 << 20  # the default of fs.nr_open in Linux

_MAX_START = 1.0  # seconds to wait for starts; a start from a hung disk never ends (tunable)


class DescriptorLimit:
    """The process's own soft limit on open files. Create only one object per process."""

    def __init__(self, *, may_raise: bool = True) -> None:
        self.original, hard = get_fd_limits()
        self.current = self.original
        self.maximum = min(hard, _MAX) if may_raise else self.original
        # The limit is not changed while a child is being started.
        self._changed = Condition()
        self._setting = False
        self._spawning = 0

    def raise_to_maximum(self) -> bool:
        """Raise the limit to the maximum; return False if that is not possible now."""
        return self.current < self.maximum and self._set(self.maximum)

    def lower(self) -> None:
        """Return to the original limit if possible now; open descriptors stay open."""
        self._set(self.original)

    @property
    def is_raised(self) -> bool:
        """Whether children must reset the limit."""
        return self.current != self.original

    def _set(self, limit: int) -> bool:
        with self._changed:
            self._setting = True  # no more children are started, so the wait ends
            try:
                is_free = self._changed.wait_for(lambda: not self._spawning, _MAX_START)
                done = is_free and set_fd_limit(limit)
            finally:
                self._setting = False
                self._changed.notify_all()
            if done:
                self.current = limit
        return done

    def __enter__(self) -> int | None:
        """Prevent changes while a child is started; return the limit that the child must set.

        Return None if the child need not set the limit. Several threads may start children at once.
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
