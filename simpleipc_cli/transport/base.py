"""The interface of a transport for clients: streams.

Other packages use only these names. A transport moves bytes and does not parse packets. It converts
operating system errors into this package's exceptions, except two that event loops handle:
BlockingIOError ("not ready") and OutOfDescriptors ("no descriptor for another connection").

A *descriptor* is a number that the platform's Poller can poll: on Unix a file descriptor.
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
    """The process at the other end, at the time when it connected or started to listen."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid


class Stream(ABC):
    """One connection: a stream of bytes in each direction."""

    __slots__ = ()

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll."""

    @abstractmethod
    def peer(self) -> Peer:
        """Return the process at the other end."""

    @abstractmethod
    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        """Wait for bytes and put them into `buffer`; return the count, 0 at the end or a reset.

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
        """Wait for space and write; return the number of bytes.

        Raises PeerClosed.
        """

    @abstractmethod
    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Write without waiting. Raises BlockingIOError, PeerClosed.

        After BlockingIOError, pass the same bytes again.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """Shut down both directions, which wakes every thread that waits for this stream."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. The peer can still read the bytes that were written."""


READ = 1
WRITE = 2
HANGUP = 4
"""Events of a Poller; HANGUP is reported, also unasked, until the descriptor is unregistered.

HANGUP of a socket: the peer has closed; of a pipe's write end: all readers have closed; of a pipe's
read end: all writers have closed, but data may be left. READ means that a read would not block: if
the peer has closed only its sending direction, only READ is reported. At the end of a named pipe
or of a terminal's session READ, HANGUP or both are reported.
"""
