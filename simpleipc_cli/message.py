"""One message, packets ended by a flush, without any input or output.

A reader turns the bytes of a message into its payload; a writer does the opposite.
Neither holds more of the message than the buffers passed to it.
"""

from __future__ import annotations

from simpleipc_cli.errors import IncompleteMessage
from simpleipc_cli.pktline import (
    FLUSH,
    FLUSH_PACKET,
    HEADER_SIZE,
    MAX_PAYLOAD,
    NEED_DATA,
    Buffer,
    Data,
    Decoder,
    encode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BUFFERS = 1024
"""Buffers that one gathering write takes (IOV_MAX of Linux)."""


class MessageReader:
    """Turns the bytes of one message into its payload."""

    __slots__ = ("_decoder", "complete", "packets", "payload_bytes", "trailing_bytes")

    def __init__(self) -> None:
        self._decoder = Decoder()
        self.complete = False
        """Whether the flush has been received."""
        self.packets = 0
        """Complete packets, not counting the flush."""
        self.payload_bytes = 0
        self.trailing_bytes = 0
        """Bytes after the flush, which were dropped: they belong to no message."""

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """Yield the payload in `data`, as views of it. Exhaust the iterator before the next call.

        Raises ProtocolError at a malformed packet, after yielding the payload before it.
        """
        if self.complete:
            self.trailing_bytes += len(data)
            return
        decoder = self._decoder
        decoder.receive_data(data)
        while (event := decoder.next_event()) is not NEED_DATA:
            if event is FLUSH:
                self.complete = True
                self.trailing_bytes = decoder.unread
                return
            if isinstance(event, Data):
                self.packets += event.ends_packet
                self.payload_bytes += len(event.payload)
                if event.payload:
                    yield event.payload

    @property
    def unread(self) -> int:
        """Bytes of the last buffer after the header of a malformed packet."""
        return self._decoder.unread

    def feed_eof(self) -> None:
        """Note the end of the stream. Raises IncompleteMessage unless the message is complete."""
        if self.complete:
            return
        where = "inside a packet" if self.inside_packet else "without a flush packet"
        raise IncompleteMessage(
            f"the message was cut off {where}, after {self._decoder.offset} bytes"
        )

    @property
    def inside_packet(self) -> bool:
        """Whether a packet has started and is not complete."""
        return self._decoder.inside_packet


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
        if 0 < size <= MAX_PAYLOAD:
            self.pending += (b"%04x" % (size + HEADER_SIZE), memoryview(payload))
        else:
            self.pending += encode(payload)

    def finish(self) -> None:
        """Add the flush, which completes the message."""
        self.pending.append(FLUSH_PACKET)
        self.finished = True

    def advance(self, count: int) -> None:
        """Remove the first `count` pending bytes, which have been written."""
        consume(self.pending, count)

    def clear(self) -> None:
        """Drop the pending buffers: the peer will not read them."""
        self.pending.clear()


def consume(buffers: list[Buffer], count: int) -> None:
    """Remove the first `count` bytes from a list of buffers; there must be as many."""
    whole = 0
    for buffer in buffers:
        if count < len(buffer):
            break
        count -= len(buffer)
        whole += 1
    del buffers[:whole]
    if count:
        buffers[0] = memoryview(buffers[0])[count:]
