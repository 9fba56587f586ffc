"""One request of the load. Its timestamps are nanoseconds of the monotonic clock.

It is independent of other requests and of the schedule.
"""

from __future__ import annotations

from time import monotonic_ns

from simpleipc_cli.batch.connector import Exchange
from simpleipc_cli.errors import (
    EndpointError,
    IncompleteMessage,
    OutOfResources,
    ProtocolError,
    ServerBusy,
)
from simpleipc_cli.pktline import (
    FLUSH_PACKET,
    MAX_PAYLOAD,
    Buffer,
    MessageReader,
    encode,
    find_whole,
)
from simpleipc_cli.transport import connect_nowait

_CHUNK_SIZE = 4 * MAX_PAYLOAD  # bytes of payload per write (tunable)


class ExchangeFailed(Exception):
    """An exchange failed; the text is its kind, one of generator.FAILURES."""


class Request:
    """The request of one or more exchanges: a payload, or `size` zeros, encoded in chunks."""

    def __init__(self, payload: bytes, size: int | None) -> None:
        self.size = len(payload) if size is None else size
        """Bytes of payload."""
        self._is_generated = size is not None
        self._payload = memoryview(
            bytes(min(self.size, _CHUNK_SIZE)) if self._is_generated else payload
        )
        packets, self.first_end = self.packets(0)
        # Encoded only once, as one buffer: most requests are not longer.
        self.first_chunk = b"".join(packets)

    def packets(self, begin: int) -> tuple[list[Buffer], int]:
        """Return the packets of the chunk at payload offset `begin`, and the offset of its end.

        The flush is in the last chunk. It counts as one more byte of payload.
        """
        size = min(_CHUNK_SIZE, self.size - begin)
        start = 0 if self._is_generated else begin
        packets = encode(self._payload[start : start + size])
        if begin + size < self.size:
            return packets, begin + size
        return [*packets, FLUSH_PACKET], self.size + 1


class TimedExchange(Exchange):
    """One request and its response."""

    __slots__ = (
        *("_encoded", "_expect", "_reader", "_response"),
        *("connected", "due", "end", "first_byte", "payload_bytes", "request", "start"),
    )

    connected: int
    """Time when it was connected."""
    first_byte: int
    """Time of the first read."""
    end: int
    """Time of the last read; when the response is complete, its end."""
    payload_bytes: int
    """Bytes of payload in the response, once it is complete."""

    def __init__(self, request: Request, expect: bytes | None, due: int, start: int) -> None:
        super().__init__([request.first_chunk])
        self.due = due
        self.start = start
        self.request = request
        self._encoded = request.first_end  # payload bytes that are pending or written
        self._expect = expect
        self._reader: MessageReader | None = None  # for a response of more than one read
        self._response = b""

    def connect(self, path: str) -> int | None:
        """Connect; return the descriptor, or None if the server's queue is full.

        Raises ExchangeFailed, OutOfResources.
        """
        try:
            self.stream = stream = connect_nowait(path)
        except ServerBusy:
            return None
        except OutOfResources:
            raise
        except EndpointError:
            raise ExchangeFailed("refused") from None
        self.connected = monotonic_ns()
        return stream.fileno()

    def write_chunk(self) -> bool:
        """Write at most one chunk; return whether bytes are left to write.

        Not more, because a server may read a long request as fast as it is written, and the other
        exchanges must not wait until its end.
        """
        if self.write_nowait():
            return True
        if self._encoded > self.request.size:
            return False
        self.pending, self._encoded = self.request.packets(self._encoded)
        return True

    def drop_request(self) -> None:
        super().drop_request()
        self._encoded = self.request.size + 1

    def read_once(self, buffer: memoryview) -> bool:
        """Read once; return whether the response is complete. Raises ExchangeFailed."""
        assert self.stream is not None  # noqa: S101
        try:
            count = self.stream.read_nowait(buffer)
        except BlockingIOError:
            return False
        self.end = monotonic_ns()  # now, as decoding is not the server's time
        data = buffer[:count]
        if self._reader is not None:
            return self._decode(self._reader, data)
        self.first_byte = self.end
        payload = find_whole(data)
        if payload is None:
            self._reader = MessageReader()
            return self._decode(self._reader, data)
        self.payload_bytes = len(payload)
        if self._expect is not None:
            self._compare(bytes(payload), self._expect)
        return True

    def _decode(self, reader: MessageReader, data: memoryview) -> bool:
        """Decode a part of the response; return whether it is complete. Raises ExchangeFailed."""
        expect = self._expect
        try:
            if not data:
                reader.feed_eof()
            for payload in reader.feed(data):
                if expect is not None and len(self._response) < len(expect) + 2:
                    self._response += payload
        except IncompleteMessage:
            raise ExchangeFailed("truncated") from None
        except ProtocolError:
            raise ExchangeFailed("protocol") from None
        self.payload_bytes = reader.payload_bytes
        if expect is not None and reader.complete:
            self._compare(self._response, expect)
        return reader.complete

    def _compare(self, response: bytes, expect: bytes) -> None:
        """Ignore a newline at the end. Raises ExchangeFailed."""
        if response.removesuffix(b"\n") != expect.removesuffix(b"\n"):
            raise ExchangeFailed("not as expected")
