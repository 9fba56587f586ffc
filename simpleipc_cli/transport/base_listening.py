"""Interface of a transport for servers. See base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod

from simpleipc_cli.transport.base import Stream


class Listener(ABC):
    """An endpoint that accepts connections."""

    is_externally_owned = False
    """Whether the listener outlives this process, which leaves its queue to the next server."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll."""

    @abstractmethod
    def accept(self) -> Stream:
        """Return the next connection. Raises BlockingIOError if none waits, OutOfDescriptors."""

    @abstractmethod
    def owns_path(self) -> bool:
        """Return whether the path still leads to this listener."""

    @abstractmethod
    def stop_listening(self) -> None:
        """Remove the path, if it still leads here, and refuse new clients.

        Clients that had connected before can still be accepted. Where the queue is kept, this
        does nothing, and no client may be accepted after it.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop listening. Call withdraw() and accept all clients first: others are reset.

        Where the queue is kept, none is reset.
        """
