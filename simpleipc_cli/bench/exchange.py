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
from simpleipc_cli.pktline import FLUSH_PACKET, MAX_PAYLOAD, Buffer, encode
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
        *("_encoded", "_expect", "_response"),
        *("connected", "due", "end", "first_byte", "request", "start"),
    )

    def __init__(self, request: Request, expect: bytes | None, due: int, start: int) -> None:
        super().__init__()
        self.due = due
        self.start = start
        self.connected = 0
        self.first_byte = 0
        self.end = 0
        """Time when the response was complete."""
        self.request = request
        self._encoded = request.first_end  # payload bytes that are pending or written
        self.pending.append(request.first_chunk)
        self._expect = expect
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
        expect = self._expect
        try:
            payloads = self.read_nowait(buffer)
            now = monotonic_ns()  # now, as decoding is not the server's time
            self.first_byte = self.first_byte or now
            for payload in payloads:
                if expect is not None and len(self._response) < len(expect) + 2:
                    self._response += payload
        except BlockingIOError:
            return False
        except IncompleteMessage:
            raise ExchangeFailed("truncated") from None
        except ProtocolError:
            raise ExchangeFailed("protocol") from None
        if not self.reader.complete:
            return False
        self.end = now
        if expect is not None and self._response.removesuffix(b"\n") != expect.removesuffix(b"\n"):
            raise ExchangeFailed("not as expected")
        return True
