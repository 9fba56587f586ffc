"""What a transport offers to servers: see base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod

from simpleipc_cli.transport.base import Stream


class Listener(ABC):
    """An endpoint that accepts connections."""

    keeps_queue = False
    """Whether it goes on without us: who waits in its queue at the end is for the next server."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll."""

    @abstractmethod
    def accept(self) -> Stream:
        """The next connection. Raises BlockingIOError if none waits, or OutOfDescriptors."""

    @abstractmethod
    def is_ours(self) -> bool:
        """Whether the path still leads to this listener."""

    @abstractmethod
    def withdraw(self) -> None:
        """Take the path away, if it is still ours, and refuse whoever connects from now on.

        Those who had connected before can still be accepted. Without effect where the queue
        is kept: accept nobody after this, then.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop listening. Call withdraw() and accept everybody first: others are reset.

        Where the queue is kept nobody is reset.
        """
