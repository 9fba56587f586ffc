"""Bytes between one run of a handler and its exchange.

It only moves bytes and knows nothing of the client: the exchange decides what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.message import consume
from simpleipc_cli.server.handler import HandlerRun
from simpleipc_cli.server.request_buffer import RequestBuffer

_BUFFER_SIZE = 512 * 1024
"""Bytes moved at once: several full packets, and little memory with many requests."""


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
    """Whether a part of it has ended and the rest is due: the output of a handler that has exited,
    or the exit of a worker without output."""

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
                return False  # a short write: the poller reports when there is room
            request.chunks = []
            request.has_unsent = bool(request.spool)
        return request.reader.complete and not request.is_discarding

    def abandon_input(self, request: RequestBuffer) -> None:
        """Write no more, as the handler reads no more.

        A worker may be about to exit without having looked at the request, which then is for
        another one.
        """
        self.run.abandon_input()
        if not self.run.is_persistent:
            request.discard()
