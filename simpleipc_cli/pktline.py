"""Framing alone: bytes in, events out; no input or output, no idea what a message is.

A pkt-line is four hexadecimal digits, the length of the whole packet, and then the
payload. Lengths below 4 are signals without a payload. Source: git's
Documentation/gitprotocol-common.txt ("pkt-line Format") and pkt-line.h; the largest
packet is LARGE_PACKET_MAX in pkt-line.h.

A decoder is told what came with `receive_data()` and then asked with `next_event()`
until it answers NEED_DATA.
"""

from __future__ import annotations

from simpleipc_cli.errors import ProtocolError

Buffer = bytes | bytearray | memoryview


MAX_PACKET = 65520
"""Bytes in the longest packet, its header included (0xfff0)."""

HEADER_SIZE = 4

MAX_PAYLOAD = MAX_PACKET - HEADER_SIZE
"""Bytes of payload in the longest packet."""

FLUSH_PACKET = b"0000"

_NOTHING = memoryview(b"")
_FULL_HEADER = b"%04x" % MAX_PACKET
_HEX_DIGITS = b"0123456789abcdefABCDEF"
_EXPECTED = "expected 0000, or 0004 to fff0, in hexadecimal"
_RESERVED = {1: "a delim packet (0001)", 2: "a response-end packet (0002)"}


class Event:
    """Something the decoder has to say."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The event's own name, for messages and tests."""
        return type(self).__name__


class Data(Event):
    """A part of a packet's payload, as much of it as has come.

    `payload` looks into the buffer given to `receive_data()`: use it before that buffer
    changes. `ends_packet` is true on a packet's last part. An empty packet (0004) is a
    Data without bytes.
    """

    __slots__ = ("ends_packet", "payload")

    def __init__(self, payload: memoryview, ends_packet: bool) -> None:
        """Made by the decoder."""
        self.payload = payload
        self.ends_packet = ends_packet

    def __repr__(self) -> str:
        """Length in place of the bytes: they may be many."""
        return f"Data({len(self.payload)} bytes, ends_packet={self.ends_packet})"


class Flush(Event):
    """A flush packet: the message is complete."""

    __slots__ = ()


class NeedData(Event):
    """All that came has been told; more must come first."""

    __slots__ = ()


FLUSH = Flush()
NEED_DATA = NeedData()


class Decoder:
    """Turns bytes, in any slicing, into events, each byte looked at once.

    Holds the buffer it was given until that is used up, and beyond it at most one
    partial header.
    """

    __slots__ = ("_broken", "_data", "_header", "_left", "_position", "_seen")

    def __init__(self) -> None:
        """A decoder at the start of a stream of packets."""
        self._data = _NOTHING
        self._position = 0
        self._header = b""  # the part of a header that has come, while it is not whole
        self._left = 0  # bytes of the current packet's payload that are still to come
        self._seen = 0  # bytes before self._data
        # What was wrong. Not the error itself: it would lead, by its traceback, back here, and
        # memory would be freed only when Python looks for such circles.
        self._broken = ""

    def receive_data(self, data: Buffer) -> None:
        """Hand over what came. Only once NEED_DATA has been told, and never less."""
        length = len(self._data)
        assert self._position == length or self._broken, "the buffer before has not been used up"  # noqa: S101
        self._seen += length
        self._data = memoryview(data)
        self._position = 0

    @property
    def offset(self) -> int:
        """Bytes used up so far, since the stream began."""
        return self._seen + self._position

    @property
    def unread(self) -> int:
        """Bytes handed over and not yet used up."""
        return len(self._data) - self._position

    @property
    def inside_packet(self) -> bool:
        """Whether a packet has begun and is not complete."""
        return bool(self._left or self._header)

    @property
    def missing(self) -> int:
        """Bytes of the current packet's payload that are still to come; 0 before its length is."""
        return self._left

    def next_event(self) -> Event:
        """Data, FLUSH or NEED_DATA. Raises ProtocolError at a packet that may not be.

        After a ProtocolError the stream cannot be understood any more: it is raised again.
        """
        if not self._left:
            if self._broken:
                raise ProtocolError(self._broken)
            header = self._header
            end = self._position + HEADER_SIZE - len(header)
            header += self._data[self._position : end].tobytes()
            if len(header) < HEADER_SIZE:
                self._position = len(self._data)
                self._header = header
                return NEED_DATA
            self._position = end
            self._header = b""
            if header == FLUSH_PACKET:
                return FLUSH
            try:
                self._left = _packet_length(header, self.offset - HEADER_SIZE) - HEADER_SIZE
            except ProtocolError as error:
                self._broken = str(error)
                raise
        elif self._position == len(self._data):
            return NEED_DATA
        return self._next_data()

    def _next_data(self) -> Event:
        """The payload that is there; nothing of it may have come yet."""
        payload = self._data[self._position : self._position + self._left]
        size = len(payload)
        if self._left and not size:
            return NEED_DATA
        self._position += size
        self._left -= size
        return Data(payload, not self._left)


def _packet_length(header: bytes, offset: int) -> int:
    """The length a header gives that is no flush: 4 to MAX_PACKET.

    Stricter than int(), which takes signs, spaces, underscores and "0x".
    """
    if header.translate(None, _HEX_DIGITS):
        raise ProtocolError(f"bad packet length {_quoted(header)} at byte {offset}: {_EXPECTED}")
    length = int(header, 16)
    if HEADER_SIZE <= length <= MAX_PACKET:
        return length
    name = _RESERVED.get(length, f"packet length {_quoted(header)}")
    raise ProtocolError(f"{name} at byte {offset} is not part of Simple-IPC: {_EXPECTED}")


def _quoted(header: bytes) -> str:
    """A header as it may be shown: ASCII, anything else escaped."""
    return ascii(header)[1:]


def encode(payload: Buffer) -> list[Buffer]:
    """Cut a payload into packets: headers and slices of the payload, in turn.

    The slices look into `payload`, nothing is copied. No flush is added; an empty payload
    gives no packet, as an empty one would be taken for the end by git's reader.
    """
    view = memoryview(payload)
    size = len(view)
    if 0 < size <= MAX_PAYLOAD:
        return [b"%04x" % (size + HEADER_SIZE), view]
    pieces: list[Buffer] = []
    for start in range(0, size, MAX_PAYLOAD):
        piece = view[start : start + MAX_PAYLOAD]
        full = len(piece) == MAX_PAYLOAD
        pieces += (_FULL_HEADER if full else b"%04x" % (len(piece) + HEADER_SIZE), piece)
    return pieces
