"""One message: packets ended by a flush. No input or output, no idea of sockets.

A reader turns the bytes of a message into its payload, a writer does the opposite.
Neither holds more of the message than the buffers it was handed.
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
"""Buffers that one gathering write may have (IOV_MAX of Linux)."""


class MessageReader:
    """Takes the bytes of one message, gives its payload."""

    __slots__ = ("_decoder", "complete", "packets", "payload_bytes", "trailing_bytes")

    def __init__(self) -> None:
        """A reader at the first byte of a message."""
        self._decoder = Decoder()
        self.complete = False
        """Whether the flush has come."""
        self.packets = 0
        """Packets that came whole, the flush not counted."""
        self.payload_bytes = 0
        self.trailing_bytes = 0
        """Bytes behind the flush; they belong to no message and were dropped."""

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """Payload in `data`, piece by piece, looking into it. Use all of it before more comes.

        Raises ProtocolError where a packet is malformed, behind the payload before it.
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
        """Bytes of the last that came that lie behind a malformed packet's length."""
        return self._decoder.unread

    def end(self) -> None:
        """The stream has ended. Raises CutOff unless the message is complete."""
        if self.complete:
            return
        where = "inside a packet" if self.inside_packet else "without a flush packet"
        raise IncompleteMessage(
            f"the message was cut off {where}, after {self._decoder.offset} bytes"
        )

    @property
    def inside_packet(self) -> bool:
        """Whether a packet has begun and is not complete."""
        return self._decoder.inside_packet


class MessageWriter:
    """Takes payload, gives buffers for gathering writes, and keeps what was not written yet."""

    __slots__ = ("finished", "payload_bytes", "pending")

    def __init__(self) -> None:
        """A writer at the start of a message."""
        self.pending: list[Buffer] = []
        """What is to be written next, in order; empty when all is."""
        self.finished = False
        """Whether the flush is, or was, among what is to be written."""
        self.payload_bytes = 0

    def write(self, payload: Buffer) -> None:
        """Add payload. It must not change until it has been written."""
        size = len(payload)
        self.payload_bytes += size
        if 0 < size <= MAX_PAYLOAD:
            self.pending += (b"%04x" % (size + HEADER_SIZE), memoryview(payload))
        else:
            self.pending += encode(payload)

    def finish(self) -> None:
        """Add the flush: the message is complete."""
        self.pending.append(FLUSH_PACKET)
        self.finished = True

    def written(self, count: int) -> None:
        """The first `count` bytes of what was pending have been written."""
        consume(self.pending, count)

    def drop(self) -> None:
        """Forget what is pending: nobody will read it."""
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
