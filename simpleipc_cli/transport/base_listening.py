"""What a transport offers to servers: see base.py."""

from __future__ import annotations

from abc import ABC, abstractmethod

from simpleipc_cli.transport.base import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Listener(ABC):
    """An endpoint that accepts connections."""

    is_externally_owned = False
    """Whether it goes on without us: who waits in its queue at the end is for the next server."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll."""

    @abstractmethod
    def accept(self) -> Stream:
        """The next connection. Raises BlockingIOError if none waits, or OutOfDescriptors."""

    @abstractmethod
    def owns_path(self) -> bool:
        """Whether the path still leads to this listener."""

    @abstractmethod
    def stop_listening(self) -> None:
        """Take the path away, if it is still ours, and refuse whoever connects from now on.

        Those who had connected before can still be accepted. Without effect where the queue
        is kept: accept nobody after this, then.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop listening. Call withdraw() and accept everybody first: others are reset.

        Where the queue is kept nobody is reset.
        """


class Word:
    """What a Holder says."""

    __slots__ = ("closed", "held", "stream")

    def __init__(self, held: int, closed: int, stream: Stream | None) -> None:
        """Numbers of connections, and one that comes back."""
        self.held = held
        """How many have reached it that were on the way."""
        self.closed = closed
        """How many it has closed, or could not hold."""
        self.stream = stream
        """One that has spoken, or whose client has gone."""


class Holder(ABC):
    """A process that holds silent connections for us, so that our own table stays small.

    What a client writes waits in the connection, wherever that is: nothing can be lost on the
    way there or back. If the process is killed, what it held is closed. It never outlives us.
    """

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll: READ when hear() has something to say."""

    @abstractmethod
    def hear(self, *, room: bool) -> Word:
        """What it says next. Raises BlockingIOError if it says nothing, PeerGone if it has ended.

        Without `room` for one more connection OutOfDescriptors, if one would come: it would be
        lost otherwise.
        """

    @abstractmethod
    def give(self, streams: Sequence[Stream], *, close: int = 0) -> bool:
        """Give it connections, and have it close so many of those it has held longest.

        The streams are to be closed behind this. One that has spoken comes back and is not
        closed. False if it takes nothing now, as it does until it has said its first word.
        """

    @abstractmethod
    def dismiss(self) -> None:
        """Let it end: it hands back who has spoken, closes the others, and is gone."""

    @abstractmethod
    def end(self) -> None:
        """End it at once, which closes what it holds; nothing of it is left."""
