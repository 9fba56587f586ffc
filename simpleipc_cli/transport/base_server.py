"""The interface of a transport for servers: listeners, pollers and events. See base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from simpleipc_cli.transport.base import Stream


class Listener(ABC):
    """An endpoint that accepts connections."""

    is_externally_owned = False
    """Whether the service manager keeps the socket: the next server accepts its queue."""
    can_lose_path = True
    """Whether owns_path() can return False."""
    is_exhausted = False
    """Whether accept() has returned the last connection."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll."""

    @abstractmethod
    def accept(self) -> Stream:
        """Return the next connection. Raises BlockingIOError if none waits, OutOfDescriptors."""

    def owns_path(self) -> bool:
        """Return whether the path still leads to this listener; True if this is unknown."""
        return True

    @abstractmethod
    def stop_listening(self) -> str | None:
        """Remove the path, if it still leads to this listener, and refuse new clients.

        Return a warning if the path could not be removed. Clients in the queue can still be
        accepted. An externally owned listener stays unchanged; do not accept clients after this
        call.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the listener. Clients in the queue are reset: accept them before.

        If it is externally owned, no client is reset.
        """


class Poller(ABC):
    """Waits for events on many descriptors. Only one thread at a time may use it.

    Other threads may change descriptors while it waits. The change may take effect only at the next
    wait: wake the waiting thread after it. A poller for a few descriptors also takes regular files,
    which are always ready.
    """

    @abstractmethod
    def register(
        self, descriptor: int, events: int, callback: Callable[[int], object] | None = None
    ) -> None:
        """Add a descriptor, or change its events; with events 0 only HANGUP is reported.

        dispatch() calls `callback` with the events that are ready. A change without a callback
        keeps the previous callback.
        """

    @abstractmethod
    def unregister(self, descriptor: int) -> None:
        """Remove a descriptor, if it is registered. Call this before the descriptor is closed."""

    @abstractmethod
    def discard(self, descriptor: int) -> None:
        """Remove a descriptor that has just been closed, without duplicates."""

    @abstractmethod
    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Return ready descriptors with their events, after at most `timeout` seconds.

        The list may be empty before that time.
        """

    @abstractmethod
    def dispatch(self, timeout: float | None) -> None:
        """Wait as wait() does, then call the callback of each ready descriptor.

        A callback may unregister and close other ready descriptors: their callbacks are then not
        called. A descriptor that a callback registers is not dispatched by this call.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the poller's resources."""


class WakeupEvent(ABC):
    """Wakes the threads that poll it. An event that is never cleared marks the start of a phase."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: all pollers report READ from set() until clear()."""

    @abstractmethod
    def set(self) -> None:
        """Set the event, repeatedly if needed. Any thread and any signal handler may call this."""

    @abstractmethod
    def is_set(self) -> bool:
        """Return whether the event is set."""

    @abstractmethod
    def clear(self) -> None:
        """Reset the event. Check the condition that it signals after this call, not before."""

    @abstractmethod
    def close(self) -> None:
        """Free the event's resources. Do not set or poll it after this call."""


class FileReader(ABC):
    """Reads an open file, such as standard input, without blocking.

    It may read more than was asked for. Keep it until the process ends.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: READ if read_nowait() has data."""

    @abstractmethod
    def read_nowait(self, limit: int) -> bytes:
        """Return at most `limit` available bytes; empty at the end.

        Raises BlockingIOError if there are none, OSError.
        """


class FileWriter(ABC):
    """Writes to an open file, such as standard output, without blocking.

    Keep it until the process ends.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: WRITE if write_nowait() may succeed."""

    @abstractmethod
    def write_nowait(self, payload: memoryview) -> int:
        """Write as much as possible without blocking; return the number of bytes.

        Pass the rest again before any other bytes: its write may be pending. Raises OSError.
        """
