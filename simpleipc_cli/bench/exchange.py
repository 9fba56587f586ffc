"""One request in flight: connect, write and read without ever blocking, with timestamps.

Knows no other request and no schedule. Times are nanoseconds of the monotonic clock.
"""

from __future__ import annotations

from time import monotonic_ns

from simpleipc_cli.errors import (
    EndpointError,
    IncompleteMessage,
    PeerClosed,
    ProtocolError,
    ServerBusy,
)
from simpleipc_cli.message import MessageReader, consume
from simpleipc_cli.pktline import FLUSH_PACKET, MAX_PAYLOAD, Buffer, encode
from simpleipc_cli.transport import Stream, connect_nowait

_CHUNK_SIZE = 4 * MAX_PAYLOAD  # bytes of payload written per turn (tunable)


class ExchangeFailed(Exception):
    """An exchange failed; the text is its kind, one of generator.FAILURES."""


class Request:
    """The request that all exchanges send: a payload, or zeros that are not all in memory."""

    def __init__(self, payload: bytes, size: int | None) -> None:
        self.size = len(payload) if size is None else size
        """Bytes of payload."""
        self._generated = size is not None
        self._payload = memoryview(
            bytes(min(self.size, _CHUNK_SIZE)) if self._generated else payload
        )
        # In one piece and encoded only once: most requests have no more than this.
        self._first: Buffer | None = None
        self._first = b"".join(self.packets(0)[0])

    def packets(self, begin: int) -> tuple[list[Buffer], int]:
        """Return the next packets after `begin` bytes of payload, and where they end.

        The flush, which comes with the last packets, counts as one more byte of payload.
        """
        data_end = min(begin + _CHUNK_SIZE, self.size)
        end = data_end + (data_end == self.size)
        if begin == 0 and self._first is not None:
            return [self._first], end
        start = 0 if self._generated else begin
        packets = encode(self._payload[start : start + data_end - begin])
        return [*packets, FLUSH_PACKET] if end > data_end else packets, end


class Exchange:
    """One request and its answer."""

    __slots__ = (
        *("_answer", "_encoded", "_expect", "_request", "_unsent"),
        *("connected", "due", "end", "first_byte", "reader", "start", "stream"),
    )

    def __init__(self, request: Request, expect: bytes | None, due: int, start: int) -> None:
        self.due = due
        self.start = start
        self.connected = 0
        self.first_byte = 0
        self.end = 0
        """When the answer was complete."""
        self.stream: Stream | None = None
        self.reader = MessageReader()
        self._request = request
        self._encoded = 0  # bytes of payload that are in _unsent or were sent
        self._unsent: list[Buffer] = []
        self._expect = expect
        self._answer = b""

    def connect(self, path: str) -> bool:
        """Connect; return False if the server's queue is full.

        Raises ExchangeFailed, or EndpointError if the client is short of descriptors.
        """
        try:
            self.stream = connect_nowait(path)
        except ServerBusy:
            return False
        except EndpointError as error:
            if type(error) is EndpointError:
                raise
            raise ExchangeFailed("refused") from None
        self.connected = monotonic_ns()
        return True

    def write(self) -> bool:
        """Write one chunk at most; return whether more is left.

        Only one, because a server may read a long request as fast as it is written, and the
        other exchanges must not wait for its end.
        """
        assert self.stream is not None  # noqa: S101
        try:
            if not self._unsent:
                self._unsent, self._encoded = self._request.packets(self._encoded)
            consume(self._unsent, self.stream.write_nowait(self._unsent))
        except BlockingIOError:
            return True
        except PeerClosed:  # there may be an answer all the same
            return False
        return bool(self._unsent) or self._encoded <= self._request.size

    def read(self, buffer: memoryview) -> bool:
        """Read once; return whether the answer is complete. Raises ExchangeFailed."""
        assert self.stream is not None  # noqa: S101
        try:
            count = self.stream.read_nowait(buffer)
        except BlockingIOError:
            return False
        now = monotonic_ns()  # before parsing, which is not the server's time
        self.first_byte = self.first_byte or now
        try:
            if not count:
                self.reader.feed_eof()
            for payload in self.reader.feed(buffer[:count]):
                if self._expect is not None and len(self._answer) < len(self._expect) + 2:
                    self._answer += payload
        except IncompleteMessage:
            raise ExchangeFailed("truncated") from None
        except ProtocolError:
            raise ExchangeFailed("protocol") from None
        if not self.reader.complete:
            return False
        self.end = now
        if self._expect is not None and not self._is_expected(self._expect):
            raise ExchangeFailed("not as expected")
        return True

    def _is_expected(self, expected: bytes) -> bool:
        """Compare the answer with the expected one, apart from one newline at either end."""
        return self._answer.removesuffix(b"\n") == expected.removesuffix(b"\n")
