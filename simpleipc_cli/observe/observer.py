"""A stream that reports to an observer what passes it.

An observer sees the bytes that the system accepted or returned: of a short write, only those
that were written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Peer


class StreamObserver(ABC):
    """Gets the events of one connection. Must not raise, and must not block long.

    Each direction may have a thread of its own. `data` is valid only during the call.
    """

    @abstractmethod
    def on_sent(self, data: memoryview) -> None:
        """Observe bytes that were written."""

    @abstractmethod
    def on_received(self, data: memoryview) -> None:
        """Observe bytes that were read."""

    def on_eof(self) -> None:  # noqa: B027 - optional
        """The peer will write no more."""

    def on_write_error(self, reason: str) -> None:  # noqa: B027 - optional
        """Writing failed."""

    def on_close(self) -> None:  # noqa: B027 - optional
        """This end closes. May be called again; bytes in flight may be reported after it."""


class ObservedStream(Stream):
    """A stream with its observer."""

    __slots__ = ("_observer", "_stream")

    def __init__(self, stream: Stream, observer: StreamObserver) -> None:
        self._stream = stream
        self._observer = observer

    def fileno(self) -> int:
        return self._stream.fileno()

    def peer(self) -> Peer:
        return self._stream.peer()

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        return self._report_read(buffer, self._stream.read(buffer, deadline))

    def read_nowait(self, buffer: Buffer) -> int:
        return self._report_read(buffer, self._stream.read_nowait(buffer))

    def _report_read(self, buffer: Buffer, count: int) -> int:
        if count:
            self._observer.on_received(memoryview(buffer)[:count])
        else:
            self._observer.on_eof()
        return count

    def peek_nowait(self) -> bool:
        return self._stream.peek_nowait()

    def write(self, buffers: Sequence[Buffer]) -> int:
        return self._write(self._stream.write, buffers)

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        return self._write(self._stream.write_nowait, buffers)

    def _write(self, write: Callable[[Sequence[Buffer]], int], buffers: Sequence[Buffer]) -> int:
        try:
            count = left = write(buffers)
        except SipcError as error:
            self._observer.on_write_error(str(error))
            raise
        for buffer in buffers:
            if not left:
                break
            data = memoryview(buffer)[:left]
            left -= len(data)
            self._observer.on_sent(data)
        return count

    def shutdown(self) -> None:
        self._observer.on_close()  # first: an end of stream after it is our own
        self._stream.shutdown()

    def close(self) -> None:
        self._observer.on_close()
        self._stream.close()
