"""Splits input into records: bytes in, chunks of records out; no input or output.

A record ends at its separator, which is not part of it, or at the end of the input. A short
record is returned in one chunk when it is complete, so that a line that is still being typed
occupies no server. A long one is returned as it arrives, so that it need not fit into memory.
"""

from __future__ import annotations

MAX_HELD = 64 * 1024
"""Bytes, a full packet: an incomplete record of this size is returned as it arrives."""


class RecordSplitter:
    """Splits a stream of bytes, however it is sliced; searches each byte once."""

    __slots__ = ("_data", "_held", "_position", "_separator", "_started", "input_ended")

    def __init__(self, separator: bytes) -> None:
        """`separator` is one byte."""
        self._separator = separator
        self._data = b""
        self._position = 0
        self._held = bytearray()  # the beginning of a record of which nothing was returned yet
        self._started = False  # whether a chunk of an incomplete record was returned
        self.input_ended = False

    @property
    def inside_record(self) -> bool:
        """Whether the bytes searched so far end within a record."""
        return self._started or bool(self._held)

    @property
    def needs_data(self) -> bool:
        """Whether next_chunk() has nothing to return before feed() or feed_eof()."""
        return not self.input_ended and self._position >= len(self._data)

    def feed(self, data: bytes) -> None:
        """Add input. Only when `needs_data` is true."""
        self._data = data
        self._position = 0

    def feed_eof(self) -> None:
        """Note the end of the input. Only when `needs_data` is true."""
        self.input_ended = True

    def next_chunk(self) -> tuple[bytes, bool] | None:
        """Return the next bytes of a record, and whether they are its last.

        None if more data is needed or, once `input_ended` is true, at the end.
        """
        data, start = self._data, self._position
        end = data.find(self._separator, start)
        if end >= 0:
            self._position = end + 1
            return self._chunk(data[start:end], True)
        self._position = len(data)
        if start < len(data):
            if self._started or len(self._held) + len(data) - start >= MAX_HELD:
                return self._chunk(data[start:], False)
            self._held += data[start:]
        return self._chunk(b"", True) if self.input_ended and self.inside_record else None

    def _chunk(self, payload: bytes, ends_record: bool) -> tuple[bytes, bool]:
        self._started = not ends_record
        if self._held:
            payload = bytes(self._held) + payload
            self._held.clear()
        return payload, ends_record
