"""What a transport offers to servers: listeners, pollers and events. See base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod

from simpleipc_cli.transport.base import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Listen(Protocol):
        """Starts to listen on a path."""

        def __call__(
            self,
            path: str,
            *,
            mode: int,
            backlog: int,
            group: int | None = ...,
            cancelled: Callable[[], bool] = ...,
        ) -> Listener:
            """Return the listener. Raises EndpointError."""

    class StartLock(Protocol):
        """The right to start a server for one path."""

        path: str

        def take(self) -> bool:
            """Take the lock without waiting; False while another process has it."""

        def release(self) -> None:
            """Release the lock, if it was taken."""


class Listener(ABC):
    """An endpoint that accepts connections."""

    is_externally_owned = False
    """Whether the service manager keeps the listener, so that its queue is for the next server."""
    can_lose_path = True
    """Whether owns_path() may become False."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll."""

    @abstractmethod
    def accept(self) -> Stream:
        """Return the next connection. Raises BlockingIOError if none waits, OutOfDescriptors."""

    def owns_path(self) -> bool:
        """Return whether the path still leads to this listener, True if that is not known."""
        return True

    @abstractmethod
    def stop_listening(self) -> str | None:
        """Remove the path, if it still leads here, and refuse new clients.

        Return a warning if the path stays, as a stale socket. Clients that have connected can still
        be accepted. If it is externally owned, this does nothing, and no client may be accepted
        after it.
        """

    @abstractmethod
    def close(self) -> None:
        """Close it. Call stop_listening() and accept all clients first: others are reset.

        If it is externally owned, none is reset.
        """


class Poller(ABC):
    """Wait for events on many descriptors. For one thread at a time."""

    @abstractmethod
    def register(
        self, descriptor: int, events: int, callback: Callable[[int], object] | None = None
    ) -> None:
        """Add a descriptor, or change its events; events 0 report its HANGUP alone.

        dispatch() passes `callback` the events that are ready. A change without
        a callback keeps the present one.
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

        A callback may unregister and close other ready descriptors: their callbacks are then not
        called. A descriptor that a callback registers is not dispatched by this call.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the poller's resources."""


class WakeupEvent(ABC):
    """Wakes up the threads that poll for it. One that is never cleared says that a phase began."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: READ from set() to clear(), for all that poll it."""

    @abstractmethod
    def set(self) -> None:
        """Set the event; may be called again, from any thread and from a signal handler."""

    @abstractmethod
    def is_set(self) -> bool:
        """Return whether the event is set."""

    @abstractmethod
    def clear(self) -> None:
        """Reset the event. Check for its reason after this, not before."""

    @abstractmethod
    def close(self) -> None:
        """Free the event's resources; it must not be set or polled after this."""


class FileReader(ABC):
    """Reads an open file, such as standard input, without blocking.

    It may read ahead. It lives as long as the process.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: READ when read_nowait() has data."""

    @abstractmethod
    def read_nowait(self, limit: int) -> bytes:
        """Return at most `limit` available bytes; empty at the end.

        Raises BlockingIOError if there are none, OSError.
        """


class FileWriter(ABC):
    """Writes to an open file, such as standard output, without blocking.

    It lives as long as the process.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll: WRITE when write_nowait() may take more."""

    @abstractmethod
    def write_nowait(self, payload: memoryview) -> int:
        """Write as much as possible without blocking; return how many bytes.

        The rest must be offered again before anything else: it may have been started. Raises
        OSError.
        """
