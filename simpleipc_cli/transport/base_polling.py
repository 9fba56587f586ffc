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


class Line(ABC):
    """A connection of `multiprocessing`, through which a process hears from its parent."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll: READ or HANGUP from when something can be received."""

    @abstractmethod
    def has_room(self) -> bool:
        """Whether something small can be sent without waiting, as far as that can be known."""

    @abstractmethod
    def close(self) -> None:
        """Free what this holds; the connection stays open."""


class Bell(ABC):
    """Wakes up whoever polls for it."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll: READ from ring() until quiet()."""

    @abstractmethod
    def ring(self) -> None:
        """Wake up the one who polls. From any thread, and from a signal handler."""

    @abstractmethod
    def quiet(self) -> None:
        """End the ringing. Look at what it was about after this, not before."""

    @abstractmethod
    def close(self) -> None:
        """Free what the bell holds; nobody may ring it any more."""


class Latch(ABC):
    """Something that happens once, such as "stop", and can be polled for by many."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll: HANGUP from when the latch is set, for ever."""

    @abstractmethod
    def set(self) -> None:
        """Let it happen. May be called again, and from a signal handler."""

    @abstractmethod
    def is_set(self) -> bool:
        """Whether it has happened."""

    @abstractmethod
    def close(self) -> None:
        """Free what the latch holds; nobody may poll it any more."""


class FileReader(ABC):
    """An open file of ours, such as standard input, that is read without waiting.

    It may be read ahead of what was asked for. Lives as long as the process does.
    """

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll: READ when read_now() has something to give."""

    @abstractmethod
    def read_now(self, limit: int) -> bytes:
        """What is there, `limit` bytes at most; empty at the end.

        Raises BlockingIOError if nothing is there, OSError.
        """


class FileWriter(ABC):
    """An open file of ours, such as standard output, that is written to without waiting.

    Lives as long as the process does.
    """

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll: WRITE when write_now() may do more than before."""

    @abstractmethod
    def write_now(self, payload: memoryview) -> int:
        """Write what is taken without waiting for a reader; how many bytes that were.

        What was not taken is to be offered again before anything else, as it may be on its
        way. Raises OSError.
        """
