"""What a transport offers to those who wait for many things at once: see base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Poller(ABC):
    """Waits for any of a set of descriptors."""

    @abstractmethod
    def watch(self, descriptor: int, wanted: int) -> None:
        """Add a descriptor, or change what is wanted of it; 0 for its HANGUP alone."""

    @abstractmethod
    def forget(self, descriptor: int) -> None:
        """Remove a descriptor, which need not be there. Do so before it is closed."""

    @abstractmethod
    def forget_closed(self, descriptor: int) -> None:
        """The same for one that has just been closed, of which no process has a copy."""

    @abstractmethod
    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds; pairs of descriptor and what can be done.

        May return without any before that: who waits for a moment looks at the clock.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the poller holds."""


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


class WakeupEvent(ABC):
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
    def read_nowait(self, limit: int) -> bytes:
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
    def write_nowait(self, payload: memoryview) -> int:
        """Write what is taken without waiting for a reader; how many bytes that were.

        What was not taken is to be offered again before anything else, as it may be on its
        way. Raises OSError.
        """
