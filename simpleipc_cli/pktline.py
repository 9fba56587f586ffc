"""Decode and encode pkt-lines, and messages made of them, without any input or output.

A pkt-line is four hexadecimal digits, the length of the whole packet, and then the
payload. Lengths below 4 are special packets without a payload. Source: git's
Documentation/gitprotocol-common.txt ("pkt-line Format") and pkt-line.h; the largest
packet is LARGE_PACKET_MAX in pkt-line.h.

A message is a sequence of packets that ends with a flush. Reader and writer keep no part of a
message except the buffers passed to them.
"""

from __future__ import annotations

from simpleipc_cli.errors import IncompleteMessage, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

Buffer = bytes | bytearray | memoryview

MAX_PACKET = 65520
"""Bytes in the longest packet, its header included (0xfff0)."""

HEADER_SIZE = 4

MAX_PAYLOAD = MAX_PACKET - HEADER_SIZE
"""Bytes of payload in the longest packet."""

FLUSH_PACKET = b"0000"

MAX_BUFFERS = 1024
"""Maximum number of buffers in one writev(2) or sendmsg(2) (IOV_MAX of Linux)."""

_MAX_COPY = 4096  # bytes; to copy them takes less time than to write two buffers (tunable)
_NOTHING = memoryview(b"")
_HEX_DIGITS = b"0123456789abcdefABCDEF"
_EXPECTED = "expected 0000, or 0004 to fff0, in hexadecimal"
_RESERVED = {1: "a delim packet (0001)", 2: "a response-end packet (0002)"}


class Event:
    """The result of next_event(): Data, FLUSH or NEED_DATA."""

    __slots__ = ()


class Data(Event):
    """The part of a packet's payload that has been received.

    `payload` is a view of the buffer passed to `receive_data()`: use it before that buffer
    changes. `ends_packet` is true for the last part of a packet. An empty packet (0004) is
    a Data without bytes.
    """

    __slots__ = ("ends_packet", "payload")

    def __init__(self, payload: memoryview, ends_packet: bool) -> None:
        self.payload = payload
        self.ends_packet = ends_packet


FLUSH = Event()
"""A flush packet: the message is complete."""

NEED_DATA = Event()
"""The buffer is used up: receive more."""


class Decoder:
    """Turns bytes into events. The bytes may be split into buffers at any position.

    Pass received bytes to receive_data(), then call next_event() until it returns NEED_DATA.
    Keeps the buffer until its last byte is used, and then at most a partial header.
    """

    __slots__ = ("_broken", "_data", "_header", "_position", "_seen", "missing")

    def __init__(self) -> None:
        self._data = _NOTHING
        self._position = 0
        self._header = b""  # a partial header
        self.missing = 0
        """Payload bytes of the current packet not yet received; 0 inside its header."""
        self._seen = 0  # bytes before self._data
        # The error's text. Storing the exception itself would create a reference cycle through its
        # traceback, and memory would be freed only by the garbage collector.
        self._broken = ""

    def receive_data(self, data: Buffer) -> None:
        """Add received bytes. The previous buffer must be used up (NEED_DATA)."""
        length = len(self._data)
        assert self._position == length or self._broken, "the previous buffer has not been used up"  # noqa: S101
        self._seen += length
        self._data = memoryview(data)
        self._position = 0

    @property
    def offset(self) -> int:
        """Bytes used up since the start of the stream."""
        return self._seen + self._position

    @property
    def unread(self) -> int:
        """Bytes received and not yet used up."""
        return len(self._data) - self._position

    @property
    def inside_packet(self) -> bool:
        """Whether a packet has started and is not complete."""
        return bool(self.missing or self._header)

    def next_event(self) -> Event:
        """Return Data, FLUSH or NEED_DATA. Raises ProtocolError at an invalid packet.

        After a ProtocolError the stream cannot be decoded any further: every later call raises the
        error again.
        """
        data, start, missing = self._data, self._position, self.missing
        if not missing:
            if self._broken:
                raise ProtocolError(self._broken)
            end = start + HEADER_SIZE - len(self._header)
            header = self._header + data[start:end]
            if len(header) < HEADER_SIZE:
                self._position = len(data)
                self._header = header
                return NEED_DATA
            self._position = start = end
            self._header = b""
            if header == FLUSH_PACKET:
                return FLUSH
            # Stricter than int(), which accepts signs, spaces, underscores and "0x".
            length = 0 if header.translate(None, _HEX_DIGITS) else int(header, 16)
            if not HEADER_SIZE <= length <= MAX_PACKET:
                self._broken = _header_error(header, self.offset - HEADER_SIZE)
                raise ProtocolError(self._broken)
            self.missing = missing = length - HEADER_SIZE
        payload = data[start : start + missing]
        size = len(payload)
        if missing and not size:
            return NEED_DATA
        self._position = start + size
        self.missing = missing - size
        return Data(payload, missing == size)


def _header_error(header: bytes, offset: int) -> str:
    """Describe a header that is no flush and has no valid length."""
    if header.translate(None, _HEX_DIGITS):
        return f"bad packet length {_quoted(header)} at byte {offset}: {_EXPECTED}"
    name = _RESERVED.get(int(header, 16), f"packet length {_quoted(header)}")
    return f"{name} at byte {offset} is not part of Simple-IPC: {_EXPECTED}"


def _quoted(header: bytes) -> str:
    return ascii(header)[1:]


def encode(payload: Buffer) -> list[Buffer]:
    """Split a payload into packets; return headers and views of the payload alternately.

    Adds no flush. An empty payload gives no packet: git's reader treats an empty packet as the end.
    """
    view = memoryview(payload)
    pieces: list[Buffer] = []
    for start in range(0, len(view), MAX_PAYLOAD):
        piece = view[start : start + MAX_PAYLOAD]
        pieces += (b"%04x" % (len(piece) + HEADER_SIZE), piece)
    return pieces


def find_whole(data: memoryview) -> memoryview | None:
    """Return the payload of a message of one packet, as most are; None for any other bytes."""
    size = len(data) - 2 * HEADER_SIZE
    if (
        0 < size <= MAX_PAYLOAD
        and data[-HEADER_SIZE:] == FLUSH_PACKET
        and data[:HEADER_SIZE] == b"%04x" % (size + HEADER_SIZE)
    ):
        return data[HEADER_SIZE:-HEADER_SIZE]
    return None


def encode_whole(payload: bytes) -> bytes:
    """Return a message of one packet, or of none without a payload, of at most MAX_PAYLOAD."""
    if not payload:
        return FLUSH_PACKET
    return b"%04x%b%b" % (len(payload) + HEADER_SIZE, payload, FLUSH_PACKET)


class MessageReader(Decoder):
    """Turns the bytes of one message into its payload."""

    __slots__ = ("complete", "packets", "payload_bytes", "trailing_bytes")

    def __init__(self) -> None:
        super().__init__()
        self.complete = False
        """Whether the flush has been received."""
        self.packets = 0
        """Complete packets, not counting the flush."""
        self.payload_bytes = 0
        self.trailing_bytes = 0
        """Bytes after the flush: they belong to no message and are dropped."""

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """Yield the payload in `data`, as views of it. Exhaust the iterator before the next call.

        Raises ProtocolError at a malformed packet, after yielding the payload that precedes it.
        """
        if self.complete:
            self.trailing_bytes += len(data)
            return
        payload = None if self.offset else find_whole(memoryview(data))
        if payload is not None:
            self.complete = True
            self.packets = 1
            self.payload_bytes = len(payload)
            yield payload
            return
        self.receive_data(data)
        while (event := self.next_event()) is not NEED_DATA:
            if event is FLUSH:
                self.complete = True
                self.trailing_bytes = self.unread
                return
            if isinstance(event, Data):
                self.packets += event.ends_packet
                self.payload_bytes += len(event.payload)
                if event.payload:
                    yield event.payload

    def feed_eof(self) -> None:
        """Note the end of the stream. Raises IncompleteMessage unless the message is complete."""
        if self.complete:
            return
        where = "inside a packet" if self.inside_packet else "without a flush packet"
        raise IncompleteMessage(f"the message was cut off {where}, after {self.offset} bytes")


class MessageWriter:
    """Turns payload into packets, and keeps the buffers that have not been written yet."""

    __slots__ = ("finished", "payload_bytes", "pending")

    def __init__(self) -> None:
        self.pending: list[Buffer] = []
        """The buffers to write next, in order."""
        self.finished = False
        """Whether the flush has been added."""
        self.payload_bytes = 0

    def write(self, payload: Buffer) -> None:
        """Add payload. The buffer must not change until it has been written."""
        size = len(payload)
        self.payload_bytes += size
        if 0 < size <= _MAX_COPY:
            self.pending.append(b"%04x" % (size + HEADER_SIZE) + payload)
        elif 0 < size <= MAX_PAYLOAD:
            self.pending += (b"%04x" % (size + HEADER_SIZE), memoryview(payload))
        else:
            self.pending += encode(payload)

    def finish(self) -> None:
        """Add the flush, which completes the message."""
        pending = self.pending
        if len(pending) == 1 and len(pending[0]) <= _MAX_COPY:
            pending[0] = b"".join((pending[0], FLUSH_PACKET))
        else:
            pending.append(FLUSH_PACKET)
        self.finished = True


def consume(buffers: list[Buffer], count: int) -> None:
    """Remove the first `count` bytes from a list of buffers that has at least `count` bytes."""
    whole = 0
    for buffer in buffers:
        if count < len(buffer):
            break
        count -= len(buffer)
        whole += 1
    del buffers[:whole]
    if count:
        buffers[0] = memoryview(buffers[0])[count:]
