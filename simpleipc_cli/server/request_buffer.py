"""The part of a request that has been read from the client and not yet written to the handler.

It stays in the buffer that it was read into as long as nothing more is read, and goes to disk
before that. It only buffers: the exchange decides what is read, and what is dropped.
"""

from __future__ import annotations

from simpleipc_cli.buffers import Buffer, advance
from simpleipc_cli.message import MessageReader
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import Stream

_MAX_PIPE_CONTENT = 1 << 16  # bytes that a pipe holds (pipe(7))


class _QuitRequest:
    """Compares a request with the one that ends the server."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._matched = 0  # more than there are if something differs

    def feed(self, payload: list[Buffer]) -> None:
        for piece in payload:
            end = self._matched + len(piece)
            if self._text[self._matched : end] != piece:
                end = len(self._text) + 1
            self._matched = end

    def is_prefix(self) -> bool:
        """Return whether all that came is the beginning of the text, or all of it."""
        return self._matched <= len(self._text)

    def is_equal(self) -> bool:
        return self._matched == len(self._text)


class RequestBuffer:
    """One request on its way from the client to the handler."""

    def __init__(
        self,
        reader: MessageReader,
        buffer: memoryview,
        spool_folder: str,
        *,
        hold: bool,
        quit_on: bytes | None = None,
    ) -> None:
        """Read into `buffer`. With `hold` the whole request goes to disk first."""
        self.reader = reader
        """Counts what came, and knows whether it is complete."""
        self.chunks: list[Buffer] = []
        """The next bytes for the handler; load() brings more of them from disk."""
        self.has_unsent = False
        """Whether something waits for the handler, in memory or on disk."""
        self.is_discarding = False
        """Whether the rest is dropped as it comes."""
        self._buffer = buffer
        self._spool_folder = spool_folder
        self.spool: Spool | None = None
        """What waits on disk, after `chunks`."""
        self._hold = hold
        self._quit_request = None if quit_on is None else _QuitRequest(quit_on)
        self._sent_prefix = bytearray()  # what a persistent handler has taken, while it is short
        self._sent_bytes = 0

    def is_started(self) -> bool:
        """Return whether this is a request for the handler: it has payload, or is complete.

        A beginning of the quit request is not.
        """
        if self.reader.complete:
            return True
        if self._quit_request is not None and self._quit_request.is_prefix():
            return False
        return self.reader.payload_bytes > 0

    def is_quit_request(self) -> bool:
        """Return whether the request is complete and asks the server to stop."""
        quit_request = self._quit_request
        return quit_request is not None and self.reader.complete and quit_request.is_equal()

    def read(self, stream: Stream) -> bool:
        """Read from the client; return False at the end of the stream.

        Raises BlockingIOError if nothing has come, ProtocolError, CutOff at an end before the
        flush, and SipcError if the disk is full.
        """
        if self.chunks and not self.spool:
            self._store(self.chunks)  # they are in the buffer that is read into next
            self.chunks = []
        count = stream.read_now(self._buffer)
        if not count:
            self.reader.end()
            return False
        payload: list[Buffer] = list(self.reader.feed(self._buffer[:count]))
        if self._quit_request is not None:
            self._quit_request.feed(payload)
        if payload and not self.is_discarding:
            if self._hold or self.has_unsent:
                self._store(payload)
            else:
                self.chunks = payload
            self.has_unsent = True
        return True

    def _store(self, payload: list[Buffer]) -> None:
        if self.spool is None:
            self.spool = Spool(self._spool_folder)
        self.spool.append(payload)

    def take_spool(self) -> Spool:
        """Return the whole request, which was held. The caller closes it."""
        self.has_unsent = False
        if self.spool is None:
            self.spool = Spool(self._spool_folder)
        return self.spool

    def load(self) -> list[Buffer]:
        """Return the next bytes for the handler. Raises SipcError if the disk cannot be read."""
        if not self.chunks and self.spool is not None:
            self.chunks = [self.spool.take(len(self._buffer))]
        return self.chunks

    def consume(self, count: int, *, remember: bool) -> None:
        """Drop the first `count` bytes of `chunks`; `remember` keeps a copy for rewind()."""
        if remember:
            self._sent_bytes += count
            if self._sent_bytes <= _MAX_PIPE_CONTENT:
                self._sent_prefix += b"".join(self.chunks)[:count]
        if count == sum(map(len, self.chunks)):
            self.chunks = []
            self.has_unsent = bool(self.spool)
        else:
            advance(self.chunks, count)

    def rewind(self) -> bool:
        """Undo every consume(), for another handler; return False if that is not possible.

        It is possible as long as all that was written may still lie in a pipe.
        """
        if self.is_discarding or self._sent_bytes != len(self._sent_prefix):
            return False
        if self._sent_prefix:
            self.chunks.insert(0, bytes(self._sent_prefix))
            self.has_unsent = True
        self._sent_prefix.clear()
        self._sent_bytes = 0
        return True

    def discard(self) -> None:
        """Drop what waits for the handler and what is read from now on."""
        self.is_discarding = True
        self.has_unsent = False
        self.chunks = []
        if self.spool is not None:
            self.spool.close()

    def close(self) -> None:
        """Free the disk space."""
        if self.spool is not None:
            self.spool.close()
