"""One request in flight: what is written and read, and when. Never waits for anything.

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

_PART = 4 * MAX_PAYLOAD  # bytes of payload written in one turn, at will


class Failed(Exception):
    """An exchange has failed; the text is its kind, one of load.FAILURES."""


class Request:
    """What all exchanges send: a payload, or zeros, of which few are in memory."""

    def __init__(self, payload: bytes, size: int | None) -> None:
        """`size` bytes of zero, or the `payload` if that is None."""
        self.size = len(payload) if size is None else size
        """Bytes of payload."""
        self._generated = size is not None
        self._payload = memoryview(bytes(min(self.size, _PART)) if self._generated else payload)
        self._first: Buffer | None = None  # in one piece, and made once: most requests have no more
        self._first = b"".join(self.part(0)[0])

    def part(self, begin: int) -> tuple[list[Buffer], int]:
        """The packets behind the first `begin` bytes of payload, not all of them, and their end.

        The flush, which comes with the last part, counts as one byte of payload more.
        """
        end = min(begin + _PART, self.size)
        whole = end + (end == self.size)
        if begin == 0 and self._first is not None:
            return [self._first], whole
        start = 0 if self._generated else begin
        packets = encode(self._payload[start : start + end - begin])
        return [*packets, FLUSH_PACKET] if whole > end else packets, whole


class Exchange:
    """One request, and the answer to it."""

    __slots__ = (
        *("_answer", "_begun", "_expect", "_left", "_request"),
        *("connected", "due", "end", "first_byte", "reader", "start", "stream"),
    )

    def __init__(self, request: Request, expect: bytes | None, due: int, start: int) -> None:
        """Nothing is sent yet. Any answer will do if `expect` is None."""
        self.due = due
        self.start = start
        self.connected = 0
        self.first_byte = 0
        self.end = 0
        """When the answer was complete."""
        self.stream: Stream | None = None
        self.reader = MessageReader()
        self._request = request
        self._begun = 0  # bytes of payload that are in _left, or were
        self._left: list[Buffer] = []
        self._expect = expect
        self._answer = b""

    def connect(self, path: str) -> bool:
        """Connect; False if there is no room in the server's queue now. Raises Failed.

        Raises EndpointError when not the endpoint fails, but we, for descriptors.
        """
        try:
            self.stream = connect_nowait(path)
        except ServerBusy:
            return False
        except EndpointError as error:
            if type(error) is EndpointError:
                raise
            raise Failed("refused") from None
        self.connected = monotonic_ns()
        return True

    def write(self) -> bool:
        """Write what can be written in one turn; whether more is to be.

        One turn, because a server may take a long request as fast as it is written, and
        the others must not wait until it has ended.
        """
        assert self.stream is not None  # noqa: S101
        try:
            if not self._left:
                self._left, self._begun = self._request.part(self._begun)
            consume(self._left, self.stream.write_nowait(self._left))
        except BlockingIOError:
            return True
        except PeerClosed:  # it may have answered all the same
            return False
        return bool(self._left) or self._begun <= self._request.size

    def read(self, buffer: memoryview) -> bool:
        """Take what has come; whether the answer is complete. Raises Failed."""
        assert self.stream is not None  # noqa: S101
        try:
            count = self.stream.read_nowait(buffer)
        except BlockingIOError:
            return False
        now = monotonic_ns()  # what we do with it takes our time, not the server's
        self.first_byte = self.first_byte or now
        try:
            if not count:
                self.reader.end()
            for payload in self.reader.feed(buffer[:count]):
                if self._expect is not None and len(self._answer) < len(self._expect) + 2:
                    self._answer += payload
        except IncompleteMessage:
            raise Failed("truncated") from None
        except ProtocolError:
            raise Failed("protocol") from None
        if not self.reader.complete:
            return False
        self.end = now
        if self._expect is not None and not self._is_expected():
            raise Failed("not as expected")
        return True

    def _is_expected(self) -> bool:
        """Whether the answer is what was expected, one newline at the end of either aside."""
        wanted = self._expect or b""
        return self._answer.removesuffix(b"\n") == wanted.removesuffix(b"\n")
