"""A stream that lets a watcher see what went over it.

The bytes that are told are those that the system took or gave: of a short write only what
was written, in pieces as they came. Whoever uses the stream notices nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Peer


class StreamObserver(ABC):
    """Is told what happens on one connection. May not raise, and may not wait long.

    Each direction may have a thread of its own. Pieces are only good until the call returns.
    """

    @abstractmethod
    def sent(self, piece: memoryview) -> None:
        """These bytes were written."""

    @abstractmethod
    def received(self, piece: memoryview) -> None:
        """These bytes were read."""

    def end_received(self) -> None:  # noqa: B027 - not all want to know
        """The other end will write no more."""

    def refused(self, why: str) -> None:  # noqa: B027
        """Writing failed."""

    @abstractmethod
    def hung_up(self) -> None:
        """We hang up. May be told again; bytes on their way just then may be told behind it."""


class ObservedStream(Stream):
    """A stream and its watcher."""

    __slots__ = ("_stream", "_watcher")

    def __init__(self, stream: Stream, watcher: StreamObserver) -> None:
        """Takes over `stream`."""
        self._stream = stream
        self._watcher = watcher

    def fileno(self) -> int:
        """See Stream."""
        return self._stream.fileno()

    def peer(self) -> Peer:
        """See Stream."""
        return self._stream.peer()

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        """See Stream."""
        return self._was_read(buffer, self._stream.read(buffer, deadline))

    def read_nowait(self, buffer: Buffer) -> int:
        """See Stream."""
        return self._was_read(buffer, self._stream.read_nowait(buffer))

    def _was_read(self, buffer: Buffer, count: int) -> int:
        if count:
            self._watcher.received(memoryview(buffer)[:count])
        else:
            self._watcher.end_received()
        return count

    def peek_nowait(self) -> bool:
        """See Stream."""
        return self._stream.peek_nowait()

    def write(self, buffers: Sequence[Buffer]) -> int:
        """See Stream."""
        try:
            return self._was_written(buffers, self._stream.write(buffers))
        except SipcError as error:
            self._watcher.refused(str(error))
            raise

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        """See Stream."""
        try:
            return self._was_written(buffers, self._stream.write_nowait(buffers))
        except SipcError as error:
            self._watcher.refused(str(error))
            raise

    def _was_written(self, buffers: Sequence[Buffer], count: int) -> int:
        left = count
        for buffer in buffers:
            if not left:
                break
            piece = memoryview(buffer)[:left]
            left -= len(piece)
            self._watcher.sent(piece)
        return count

    def shut_down(self) -> None:
        """See Stream. Told first: what reading and writing find afterwards is our own doing."""
        self._watcher.hung_up()
        self._stream.shut_down()

    def close(self) -> None:
        """See Stream."""
        self._watcher.hung_up()
        self._stream.close()
