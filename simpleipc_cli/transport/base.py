"""What a transport offers, the same on every platform.

Rooms above this one use these names alone. A transport moves bytes; it knows nothing of
packets. Operating system errors stop here and become the package's own; three plain
exceptions pass through because loops are built on them: BlockingIOError ("not now"),
InterruptedError never, OutOfDescriptors ("no room for another connection").

A *descriptor* is what the platform's Poller waits on: on Unix a file descriptor.

What only some need is in base_polling.py and base_listening.py: making a class takes time, and a
client that sends one small request is to start quickly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer


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
    def read_nowait(self, buffer: Buffer) -> int:
        """The same without waiting. Raises BlockingIOError if nothing is there."""

    @abstractmethod
    def peek_nowait(self) -> bool:
        """Whether a byte is there to be read; False at the end. Raises BlockingIOError."""

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write some of `buffers`, waiting for room; return how many bytes. Raises PeerGone."""

    @abstractmethod
    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """The same without waiting. Raises BlockingIOError if there is no room, or PeerGone."""

    @abstractmethod
    def shut_down(self) -> None:
        """End both directions: whoever waits on this stream, at either end, wakes up."""

    @abstractmethod
    def close(self) -> None:
        """Hang up. What was written can still be read at the other end."""


READ = 1
WRITE = 2
HANGUP = 4
"""What a Poller is asked for (READ, WRITE) and answers; HANGUP needs no asking.

HANGUP: the other end has closed, or of a pipe being written to, its reader has.
A half-close, where the other end will write no more but still reads, is READ alone.
"""
