"""What a transport offers, the same on every platform.

Rooms above this one use these names alone. A transport moves bytes; it knows nothing of
packets. Operating system errors stop here and become the package's own; three plain
exceptions pass through because loops are built on them: BlockingIOError ("not now"),
InterruptedError never, OutOfDescriptors ("no room for another connection").

A *descriptor* is what the platform's Poller waits on: on Unix a file descriptor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simpleipc_cli.buffers import Buffer
    from simpleipc_cli.deadline import Deadline


class OutOfDescriptors(Exception):
    """The system has no descriptor, or no memory, for another connection."""


class Peer:
    """Who is at the other end, as the system vouches for it."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        """Numbers as of the moment the connection, or the listening, began."""
        self.pid = pid
        self.uid = uid
        self.gid = gid


class Stream(ABC):
    """One connection: bytes both ways."""

    __slots__ = ()

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll."""

    @abstractmethod
    def peer(self) -> Peer:
        """Who is at the other end."""

    @abstractmethod
    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        """Wait for bytes, put them into `buffer`, return how many; 0 at the end or a reset.

        Raises TimedOut.
        """

    @abstractmethod
    def read_now(self, buffer: Buffer) -> int:
        """The same without waiting. Raises BlockingIOError if nothing is there."""

    @abstractmethod
    def peek_now(self) -> bool:
        """Whether a byte is there to be read; False at the end. Raises BlockingIOError."""

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write some of `buffers`, waiting for room; return how many bytes. Raises PeerGone."""

    @abstractmethod
    def write_now(self, buffers: Sequence[Buffer]) -> int:
        """The same without waiting. Raises BlockingIOError if there is no room, or PeerGone."""

    @abstractmethod
    def shut_down(self) -> None:
        """End both directions: whoever waits on this stream, at either end, wakes up."""

    @abstractmethod
    def close(self) -> None:
        """Hang up. What was written can still be read at the other end."""


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


READ = 1
WRITE = 2
HANGUP = 4
"""What a Poller is asked for (READ, WRITE) and answers; HANGUP needs no asking.

HANGUP: the other end has closed, or of a pipe being written to, its reader has.
A half-close, where the other end will write no more but still reads, is READ alone.
"""


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
