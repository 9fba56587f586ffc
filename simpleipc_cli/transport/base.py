"""What a transport offers to clients: streams. A small send loads no more than this.

Other packages use these names alone. A transport moves bytes and knows nothing of packets. It
turns operating system errors into the package's own. Two plain exceptions pass, as loops are built
on them: BlockingIOError ("not now") and OutOfDescriptors ("no descriptor for another connection").

A *descriptor* is what the platform's Poller waits for: on Unix a file descriptor.
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
    """The process at the other end, as of when it connected or began to listen."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid


class Stream(ABC):
    """One connection: bytes both ways."""

    __slots__ = ()

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll."""

    @abstractmethod
    def peer(self) -> Peer:
        """Return the process at the other end."""

    @abstractmethod
    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        """Wait for bytes and put them into `buffer`; return how many, 0 at the end or a reset.

        Raises TimedOut.
        """

    @abstractmethod
    def read_nowait(self, buffer: Buffer) -> int:
        """Read without waiting. Raises BlockingIOError."""

    @abstractmethod
    def peek_nowait(self) -> bool:
        """Return whether a byte can be read; False at the end. Raises BlockingIOError."""

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write some of `buffers`, waiting for space; return how many bytes. Raises PeerClosed."""

    @abstractmethod
    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write without waiting. Raises BlockingIOError, PeerClosed.

        After BlockingIOError the same bytes must be offered again.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """End both directions, which wakes up every thread that waits for this stream."""

    @abstractmethod
    def close(self) -> None:
        """Hang up. The peer can still read what was written."""


READ = 1
WRITE = 2
HANGUP = 4
"""Events of a Poller; HANGUP is always reported.

HANGUP: the other end has closed; or of a pipe to write to, its reader has. A half-close, after
which the other end still reads, is READ alone.
"""
