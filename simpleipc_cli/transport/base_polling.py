"""Interfaces for waiting on many descriptors at once. See base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Poller(ABC):
    """Wait for events on many descriptors. For one thread at a time."""

    @abstractmethod
    def register(
        self, descriptor: int, events: int, callback: Callable[[int], object] | None = None
    ) -> None:
        """Add a descriptor, or change its events; events 0 report its HANGUP alone.

        dispatch() passes `callback` the events that are ready. A change keeps the callback if it
        names none.
        """

    @abstractmethod
    def unregister(self, descriptor: int) -> None:
        """Remove a descriptor, which need not be registered. Call it before closing that."""

    @abstractmethod
    def discard(self, descriptor: int) -> None:
        """Remove a descriptor that has just been closed and of which no process has a copy."""

    @abstractmethod
    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Return ready descriptors with their events, after at most `timeout` seconds.

        The list may be empty before that time.
        """

    @abstractmethod
    def dispatch(self, timeout: float | None) -> None:
        """Wait as wait() does, then call the callback of each ready descriptor.

        A callback may unregister and close descriptors that are ready, too: their callbacks are
        not called, and neither is that of a descriptor that is registered in the meantime.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the poller's resources."""


class ConnectionWatcher(ABC):
    """Watches a connection of `multiprocessing` to another process."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: READ or HANGUP when something can be received."""

    @abstractmethod
    def is_writable(self) -> bool:
        """Return whether a small object can probably be sent without blocking."""

    @abstractmethod
    def close(self) -> None:
        """Free the watcher's resources; the connection stays open."""


class WakeupEvent(ABC):
    """Wakes up the thread that polls for it."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: READ from set() to clear()."""

    @abstractmethod
    def set(self) -> None:
        """Wake up the polling thread. Can be called from any thread and from a signal handler."""

    @abstractmethod
    def clear(self) -> None:
        """Reset the event. Look for its reason after this, not before."""

    @abstractmethod
    def close(self) -> None:
        """Free the event's resources; it must not be set after this."""


class Latch(ABC):
    """An event that happens once, such as a stop, and that many threads can poll for."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: HANGUP once the latch is set."""

    @abstractmethod
    def set(self) -> None:
        """Set the latch. May be called again, and from a signal handler."""

    @abstractmethod
    def is_set(self) -> bool:
        """Return whether the latch has been set."""

    @abstractmethod
    def close(self) -> None:
        """Free the latch's resources; it must not be polled after this."""


class FileReader(ABC):
    """Reads an open file, such as standard input, without blocking.

    It may read ahead. It lives as long as the process.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: READ when read_now() has data."""

    @abstractmethod
    def read_nowait(self, limit: int) -> bytes:
        """Return at most `limit` bytes that are there; empty at the end.

        Raises BlockingIOError if there are none, OSError.
        """


class FileWriter(ABC):
    """Writes to an open file, such as standard output, without blocking.

    It lives as long as the process.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: WRITE when write_now() may take more."""

    @abstractmethod
    def write_nowait(self, payload: memoryview) -> int:
        """Write what is taken without blocking; return how many bytes.

        The rest must be offered again before anything else, as it may be under way. Raises
        OSError.
        """
