"""Moves the payload of a request from the client to one run of a handler.

RequestBuffer holds what has been read from the client and not yet written to the handler: in the
buffer that it was read into until more is read, then on disk. HandlerIO writes it. Neither decides:
the exchange does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.pktline import Buffer, MessageReader, consume
from simpleipc_cli.server.handler import HandlerRun
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import Stream

_MAX_PIPE_CONTENT = 1 << 16  # bytes that a pipe holds (pipe(7))
_BUFFER_SIZE = 512 * 1024
"""Bytes moved at once: several full packets, and little memory with many requests."""


class QuitRequest:
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
        """Return whether the data received so far is a prefix of the text, or all of it."""
        return self._matched <= len(self._text)

    def is_equal(self) -> bool:
        return self._matched == len(self._text)


@dataclass(slots=True)
class RequestBuffer:
    """One request on its way from the client to the handler."""

    reader: MessageReader
    """Decodes the request, and knows whether it is complete."""
    buffer: memoryview
    """The buffer that the request is read into."""
    spool_folder: str
    is_held: bool
    """Whether the whole request goes to disk before the handler gets it."""
    quit_request: QuitRequest | None = None
    chunks: list[Buffer] = field(default_factory=list)
    """The next bytes for the handler; load() brings more of them from disk."""
    spool: Spool | None = None
    """The bytes after `chunks`, on disk."""
    has_unsent: bool = False
    """Whether `chunks` or `spool` has bytes for the handler."""
    is_discarding: bool = False
    """Whether the rest is dropped as it arrives."""
    sent_prefix: bytearray = field(default_factory=bytearray)
    """The bytes that a persistent handler has taken, while they fit into a pipe."""
    sent_bytes: int = 0

    def is_started(self) -> bool:
        """Return whether this is a request for the handler: it has payload, or is complete.

        A prefix of the quit request is not.
        """
        if self.reader.complete:
            return True
        if self.quit_request is not None and self.quit_request.is_prefix():
            return False
        return self.reader.payload_bytes > 0

    def is_quit_request(self) -> bool:
        """Return whether the request is complete and asks the server to stop."""
        quit_request = self.quit_request
        return quit_request is not None and self.reader.complete and quit_request.is_equal()

    def read(self, stream: Stream) -> bool:
        """Read from the client; return False at the end of the stream.

        Raises BlockingIOError without data, ProtocolError, IncompleteMessage at an end before the
        flush, and SipcError if the disk is full.
        """
        if self.chunks and not self.spool:
            self._store(self.chunks)  # they are in the buffer that is read into next
            self.chunks = []
        count = stream.read_nowait(self.buffer)
        if not count:
            self.reader.feed_eof()
            return False
        payload: list[Buffer] = list(self.reader.feed(self.buffer[:count]))
        if self.quit_request is not None:
            self.quit_request.feed(payload)
        if payload and not self.is_discarding:
            if self.is_held or self.has_unsent:
                self._store(payload)
            else:
                self.chunks = payload
            self.has_unsent = True
        return True

    def _store(self, payload: list[Buffer]) -> None:
        if self.spool is None:
            self.spool = Spool(self.spool_folder)
        self.spool.append(payload)

    def take_spool(self) -> Spool:
        """Return the whole request, which was held. The caller closes it."""
        self.has_unsent = False
        if self.spool is None:
            self.spool = Spool(self.spool_folder)
        return self.spool

    def load(self) -> list[Buffer]:
        """Return the next bytes for the handler. Raises SipcError if the disk cannot be read."""
        if not self.chunks and self.spool is not None:
            self.chunks = [self.spool.take(len(self.buffer))]
        return self.chunks

    def remember(self, count: int) -> None:
        """Keep a copy of the first `count` bytes of `chunks` for rewind()."""
        self.sent_bytes += count
        if self.sent_bytes <= _MAX_PIPE_CONTENT:
            self.sent_prefix += b"".join(self.chunks)[:count]

    def rewind(self) -> bool:
        """Queue all that was remembered for another handler; return whether that is possible.

        It is possible while all written bytes may still be in a pipe.
        """
        if self.is_discarding or self.sent_bytes != len(self.sent_prefix):
            return False
        if self.sent_prefix:
            self.chunks.insert(0, bytes(self.sent_prefix))
            self.has_unsent = True
        self.sent_prefix.clear()
        self.sent_bytes = 0
        return True

    def discard(self) -> None:
        """Drop the bytes for the handler, and all that are read from now on."""
        self.is_discarding = True
        self.has_unsent = False
        self.chunks = []
        if self.spool is not None:
            self.spool.close()


class IoBuffers:
    """The two buffers of one exchange, lent by the dispatcher. Untouched pages cost no memory."""

    def __init__(self) -> None:
        self.request = memoryview(bytearray(_BUFFER_SIZE))
        self.response = memoryview(bytearray(_BUFFER_SIZE))


@dataclass(slots=True)
class HandlerIO:
    """One run, which is fed from the request buffer."""

    run: HandlerRun
    has_exited: bool = False
    is_lingering: bool = False
    """Whether the end of the run is near: a handler has exited and its output is still open, or
    the output of a worker has ended and its exit is due."""

    def wants_input(self, request: RequestBuffer) -> bool:
        """Return whether it gets the rest of the request even after its response."""
        return self.run.is_persistent and self.run.input >= 0 and not request.is_discarding

    def feed(self, request: RequestBuffer) -> bool:
        """Write as much as the handler takes; return whether the whole request is written.

        Raises SipcError if the disk cannot be read.
        """
        run = self.run
        while request.has_unsent:
            chunks = request.chunks or request.load()
            try:
                count = run.write(chunks, last=request.reader.complete and not request.spool)
            except BlockingIOError:
                return False
            except PeerClosed:
                self.abandon_input(request)
                return False
            if run.is_persistent:
                request.remember(count)
            if count < sum(map(len, chunks)):
                consume(chunks, count)
                return False  # a short write: the poller reports when there is space
            request.chunks = []
            request.has_unsent = bool(request.spool)
        return request.reader.complete and not request.is_discarding

    def abandon_input(self, request: RequestBuffer) -> None:
        """Write no more, because the handler reads no more.

        A worker may be about to exit without having read the request, which then goes to another
        worker.
        """
        self.run.abandon_input()
        if not self.run.is_persistent:
            request.discard()
