"""A stream with methods that observe its bytes, and counters of these bytes.

Only bytes that the system accepted or returned are reported: after a short write, only the written
ones.
"""

from __future__ import annotations

from abc import abstractmethod
from time import monotonic

from simpleipc_cli.errors import ProtocolError, SipcError
from simpleipc_cli.pktline import MessageReader
from simpleipc_cli.transport import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Peer


class ObservedStream(Stream):
    """Wraps a stream: forwards all calls, and reports bytes and events to its `on_...` methods.

    These must not raise, and not block for long. Each direction may have its own thread.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @abstractmethod
    def on_sent(self, data: memoryview) -> None:
        """Observe bytes that were written. They are valid only during the call."""

    @abstractmethod
    def on_received(self, data: memoryview) -> None:
        """Observe bytes that were read. They are valid only during the call."""

    def on_eof(self) -> None:
        """Observe the end of the received bytes."""

    def on_write_error(self, reason: str) -> None:
        """Observe a failed write."""

    def on_close(self) -> None:
        """Observe that this end closes. May be called again; reports of bytes may follow."""

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
            self.on_received(memoryview(buffer)[:count])
        else:
            self.on_eof()
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
            self.on_write_error(str(error))
            raise
        for buffer in buffers:
            if not left:
                break
            data = memoryview(buffer)[:left]
            left -= len(data)
            self.on_sent(data)
        return count

    def shutdown(self) -> None:
        self.on_close()  # first: shutdown() causes an end of stream
        self._stream.shutdown()

    def close(self) -> None:
        self.on_close()
        self._stream.close()


class TransferStats:
    """Counts the bytes of all connections together, also while they are open.

    Times are seconds since the start. Only one thread at a time may count each direction.
    """

    def __init__(self, started_at: float | None = None) -> None:
        """`started_at` is a time of the monotonic clock; None for now."""
        self._started_at = monotonic() if started_at is None else started_at
        self.sent = Traffic()
        self.received = Traffic()
        self.connected: float | None = None
        """Time of the first connection."""
        self.first_byte: float | None = None
        """Time of the first byte received."""

    def elapsed(self) -> float:
        return monotonic() - self._started_at

    def observe(self, stream: Stream) -> Stream:
        """Return a stream that counts the bytes of `stream`. Use it in place of `stream`."""
        if self.connected is None:
            self.connected = self.elapsed()
        return _CountedStream(stream, self)


class Traffic:
    """Counters of one direction, for all connections."""

    def __init__(self) -> None:
        self.payload = 0
        """Bytes."""
        self.packets = 0
        """Complete packets, not counting flushes."""

    def count(self, reader: MessageReader, data: memoryview) -> None:
        """Count the bytes of one connection, up to its flush or the first malformed packet."""
        payload, packets = reader.payload_bytes, reader.packets
        try:
            for _ in reader.feed(data):
                pass
        except ProtocolError:
            pass  # stop counting: the reader raises it again for later data
        self.payload += reader.payload_bytes - payload
        self.packets += reader.packets - packets


class _CountedStream(ObservedStream):
    """Counts the bytes of one connection."""

    def __init__(self, stream: Stream, stats: TransferStats) -> None:
        super().__init__(stream)
        self._stats = stats
        self._sent = MessageReader()
        self._received = MessageReader()

    def on_sent(self, data: memoryview) -> None:
        self._stats.sent.count(self._sent, data)

    def on_received(self, data: memoryview) -> None:
        if self._stats.first_byte is None:
            self._stats.first_byte = self._stats.elapsed()
        self._stats.received.count(self._received, data)
