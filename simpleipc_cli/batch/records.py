"""Cuts input into records: bytes in, events out; no input or output.

A record ends at its separator, which is no part of it, or at the end of the input. It is told
in pieces: a short one in a single piece once it is complete, so that a line that somebody is
still typing occupies no server; a long one as it comes, so that none has to fit into memory.
"""

from __future__ import annotations

HOLD = 64 * 1024
"""Bytes of an incomplete record from which on it is told as it comes: about a full packet."""


class Event:
    """Something that the cutter has to say."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The event's own name, for messages and tests."""
        return type(self).__name__


class RecordChunk(Event):
    """The next bytes of a record, none perhaps; `ends_record` is true on its last piece."""

    __slots__ = ("ends_record", "payload")

    def __init__(self, payload: bytes, ends_record: bool) -> None:
        """Made by the cutter."""
        self.payload = payload
        self.ends_record = ends_record


class NeedData(Event):
    """All that can be told has been told; more must come first."""

    __slots__ = ()


class End(Event):
    """The input has ended, and the last record before that."""

    __slots__ = ()


NEED_DATA = NeedData()
END = End()


class RecordSplitter:
    """Turns bytes, in any slicing, into pieces of records, each byte looked at once.

    It is told what came with `receive_data()`, and at last `end()`; then it is asked with
    `next_event()` until it answers NEED_DATA or END.
    """

    __slots__ = ("_data", "_ended", "_held", "_position", "_separator", "_told")

    def __init__(self, separator: bytes) -> None:
        """`separator` is one byte."""
        self._separator = separator
        self._data = b""
        self._position = 0
        self._held = bytearray()  # of a record whose first piece was not told yet
        self._told = False  # whether a piece of an incomplete record has been told
        self._ended = False

    @property
    def inside_record(self) -> bool:
        """Whether a record has begun and not ended, as far as it has been looked at."""
        return self._told or bool(self._held)

    @property
    def has_more(self) -> bool:
        """Whether there is something to be told before more data comes."""
        return self._ended or self._position < len(self._data)

    def receive_data(self, data: bytes) -> None:
        """Hand over what came. Only once NEED_DATA has been told."""
        assert not self.has_more, "the data before has not been used up"  # noqa: S101
        self._data = data
        self._position = 0

    def end(self) -> None:
        """Nothing more will come. Only once NEED_DATA has been told."""
        self._ended = True

    def next_event(self) -> Event:
        """A Piece, NEED_DATA or END."""
        data, start = self._data, self._position
        end = data.find(self._separator, start)
        if end >= 0:
            self._position = end + 1
            return self._last_piece(data[start:end])
        self._position = len(data)
        if start < len(data):
            if not self._told and len(self._held) + len(data) - start < HOLD:
                self._held += data[start:]
            else:
                self._told = True
                return RecordChunk(self._with_held(data[start:]), False)
        if not self._ended:
            return NEED_DATA
        return self._last_piece(b"") if self.inside_record else END

    def _last_piece(self, payload: bytes) -> RecordChunk:
        self._told = False
        return RecordChunk(self._with_held(payload), True)

    def _with_held(self, payload: bytes) -> bytes:
        """Bytes, behind those that were held back before them."""
        if self._held:
            payload = bytes(self._held) + payload
            self._held.clear()
        return payload
