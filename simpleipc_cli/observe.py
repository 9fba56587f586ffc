"""Count and trace the bytes of a stream, without changing them.

Only bytes that the system accepted or returned are reported: after a short write, only the written
ones. A trace has one line for each packet, in either direction:

    2025-11-22T13:45:01.123456+01:00 4711-1 = connected to "/run/sock": pid=99 uid=0 gid=0
    2025-11-22T13:45:01.123470+01:00 4711-1 > sent 0008 (8 bytes): "ping"
    2025-11-22T13:45:01.123481+01:00 4711-1 > sent 0000: flush
    2025-11-22T13:45:01.124002+01:00 4711-1 < received fff0 (65520 bytes): "aa" and 65514 left out
    2025-11-22T13:45:01.124015+01:00 4711-1 < received truncated: end of stream without a flush ...
    2025-11-22T13:45:01.124031+01:00 4711-1 = closed: sent bytes=12 packets=1, received ...

The time is local: just before the last byte was written, or just after it was read. So if both ends
are traced, the time of sending a packet is always before the time of receiving it. The length is
that on the wire. Lines are shorter than 4096 bytes (PIPE_BUF of Linux), so that lines of several
programs are not mixed in a pipe.
"""

from __future__ import annotations

from _thread import allocate_lock
from abc import abstractmethod
from datetime import datetime
from time import monotonic

from simpleipc_cli.errors import ProtocolError, SipcError
from simpleipc_cli.pktline import FLUSH, HEADER_SIZE, NEED_DATA, Data, Decoder, MessageReader
from simpleipc_cli.text import quoted
from simpleipc_cli.transport import WRITE, Poller, Stream, new_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Peer

    class LineSink(Protocol):
        """A destination of the trace's lines."""

        def write(self, line: str, /) -> None:
            """Write a line, which is passed without a newline.

            Any thread may call this; never raises.
            """

        def close(self) -> None: ...


MAX_PAYLOAD_SHOWN = 128
"""Maximum number of payload bytes to show for a packet (tunable)."""

_MAX_PATH_SHOWN = 512  # bytes; escaping may turn each into four characters


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


class Tracer:
    """Traces connections into one or more files."""

    def __init__(self, *sinks: LineSink) -> None:
        self._sinks = sinks

    def observe(self, stream: Stream, name: str, event: str, path: str) -> Stream:
        """Return a stream that traces the packets of `stream`. Use it in place of `stream`.

        `name` is one word that identifies the connection. The first line contains `event` (such as
        "connected to") and `path`.
        """
        raw = path.encode("utf-8", "surrogateescape")
        shown = quoted(raw[:_MAX_PATH_SHOWN]) + ("..." if len(raw) > _MAX_PATH_SHOWN else "")
        peer = stream.peer()
        traced = _TracedStream(stream, self._write, name)
        traced.trace(f"= {event} {shown}: pid={peer.pid} uid={peer.uid} gid={peer.gid}")
        return traced

    def _write(self, line: str) -> None:
        for sink in self._sinks:
            sink.write(line)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


class _TracedStream(ObservedStream):
    """Traces one connection; writes the lines of a request before those of its response.

    One thread may write while another reads, and sent bytes are traced after the write. So the
    trace of received bytes waits until a running write returns; therefore such writes must not
    block.
    """

    def __init__(self, stream: Stream, write_line: Callable[[str], None], name: str) -> None:
        super().__init__(stream)
        self._write_line = write_line
        self._name = name
        self._sent = _Direction(self._trace_sent, "> sent")
        self._received = _Direction(self.trace, "< received")
        self._last_write = datetime.now().astimezone()
        self._closed = False
        self._order = allocate_lock()
        self._poller: Poller | None = None

    def trace(self, text: str, time: datetime | None = None) -> None:
        """Write a line, with the given time or the current time."""
        time = time or datetime.now().astimezone()
        self._write_line(f"{time.isoformat(timespec='microseconds')} {self._name} {text}")

    def _trace_sent(self, text: str) -> None:
        self.trace(text, self._last_write)

    def _report_read(self, buffer: Buffer, count: int) -> int:
        with self._order:
            return super()._report_read(buffer, count)

    def write(self, buffers: Sequence[Buffer]) -> int:
        while True:
            try:
                return self.write_nowait(buffers)
            except BlockingIOError:
                self._wait_for_space()

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        with self._order:
            self._last_write = datetime.now().astimezone()
            return super().write_nowait(buffers)

    def _wait_for_space(self) -> None:
        if self._poller is None:
            self._poller = new_poller()
            self._poller.register(self.fileno(), WRITE)
        self._poller.wait(None)

    def close(self) -> None:
        super().close()
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def on_sent(self, data: memoryview) -> None:
        self._sent.feed(data)

    def on_received(self, data: memoryview) -> None:
        self._received.feed(data)

    def on_eof(self) -> None:
        if not self._closed:  # else our own close() caused it
            self._received.feed_eof()

    def on_write_error(self, reason: str) -> None:
        if not self._closed:
            self._trace_sent(f"> not sent: {reason}")

    def on_close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._last_write = datetime.now().astimezone()
        for direction in (self._sent, self._received):
            direction.finish()
        self.trace(f"= closed: sent {self._sent.counts}, received {self._received.counts}")


class _Direction:
    """Writes the lines of one direction."""

    def __init__(self, write: Callable[[str], None], prefix: str) -> None:
        self._write = write
        self._prefix = prefix
        self._decoder = Decoder()
        self._length = 0  # of the current packet; 0 between packets
        self._payload_shown = bytearray()  # of the current packet
        self._complete = False  # whether the flush has been traced
        self._end_reported = True  # whether finish() has nothing to report
        self._malformed = False
        self._bytes = 0
        self._packets = 0

    @property
    def counts(self) -> str:
        """Number of bytes, and of packets without flushes."""
        return f"bytes={self._bytes} packets={self._packets}"

    def feed(self, data: memoryview) -> None:
        """Write a line for each packet that these bytes complete."""
        self._bytes += len(data)
        if self._malformed:
            self._write_undecoded(data)
            return
        decoder = self._decoder
        decoder.receive_data(data)
        self._end_reported = False
        try:
            while (event := decoder.next_event()) is not NEED_DATA:
                if event is FLUSH:
                    self._write(f"{self._prefix} 0000{self._place}: flush")
                    self._complete = True
                elif isinstance(event, Data):
                    self._add(event)
        except ProtocolError as error:
            self._malformed = self._end_reported = True
            self._write(f"{self._prefix} malformed{self._place}: {error}")
            self._write_undecoded(data[len(data) - decoder.unread :])

    def _add(self, event: Data) -> None:
        payload = event.payload
        if not self._length:
            self._length = HEADER_SIZE + len(payload) + self._decoder.missing
        space = MAX_PAYLOAD_SHOWN - len(self._payload_shown)
        if space > 0:
            self._payload_shown += payload[:space]
        if event.ends_packet:
            self._packets += 1
            length, self._length = self._length, 0
            shown = self._payload_shown
            text = _excerpt(shown, length - HEADER_SIZE) if shown else "empty"
            shown.clear()
            self._write(f"{self._prefix} {length:04x} ({length} bytes){self._place}: {text}")

    def _write_undecoded(self, data: memoryview) -> None:
        if data:
            text = _excerpt(data[:MAX_PAYLOAD_SHOWN], len(data))
            self._write(f"{self._prefix} not decoded ({len(data)} bytes): {text}")

    def feed_eof(self) -> None:
        """Write a line about the end of the stream."""
        if self._malformed or (self._complete and not self._decoder.inside_packet):
            self._write(f"{self._prefix} end of stream")
        else:
            self._write(f"{self._prefix} truncated: end of stream {self._position}")
        self._end_reported = True

    def finish(self) -> None:
        """Write a line if the message is incomplete; no more bytes will follow."""
        if not self._end_reported and (not self._complete or self._decoder.inside_packet):
            self._write(f"{self._prefix} unfinished: {self._position}")

    @property
    def _place(self) -> str:
        return " after the flush" if self._complete else ""

    @property
    def _position(self) -> str:
        """Describe the position in the message at which the stream ended."""
        missing = self._decoder.missing
        if missing:
            length = self._length or HEADER_SIZE + missing
            where = f"inside a packet of {length} bytes{self._place}, {missing} missing"
        elif self._decoder.inside_packet:
            where = f"inside a packet's length{self._place}"
        else:
            where = "without a flush"
        return f"{where}, after {self._bytes} bytes"


def _excerpt(start: bytes | bytearray | memoryview, size: int) -> str:
    """Quote `start`, the first bytes of a payload of `size` bytes."""
    left_out = size - len(start)
    return quoted(start) + (f" and {left_out} left out" if left_out else "")
