"""A request that a call answers at once, without an exchange.

Most requests to a callback arrive whole in one packet, and the connection takes the whole response
at once. Then there is nothing to wait for, and no need of a state machine. In all other cases an
exchange continues from where the quick call is.
"""

from __future__ import annotations

from typing import Protocol

from simpleipc_cli.errors import SipcError
from simpleipc_cli.pktline import HEADER_SIZE, encode_whole, find_whole
from simpleipc_cli.server.context import Outcome, RequestRecord, ServerContext
from simpleipc_cli.server.exchange import Exchange
from simpleipc_cli.server.exchange_state import IoBuffers
from simpleipc_cli.server.handler import HandlerRun
from simpleipc_cli.transport import Stream, is_hung_up

_MAX_RESPONSE = 4096  # bytes, which a new connection mostly takes at once (tunable)


class Owner(Protocol):
    """The dispatcher."""

    def continue_quick(self, quick: QuickCall) -> None:
        """Set `exchange`, which takes the place of the quick call."""

    def finish_quick(self, quick: QuickCall) -> None:
        """Free the resources of a quick call that has answered."""


class QuickCall:
    """One request from its first byte to its response. Only the event loop's thread uses it."""

    received = 0
    """Bytes of the request in the buffer."""
    sent = 0
    """Bytes of the response, with headers, that the connection has taken."""
    run: HandlerRun | None = None
    exchange: Exchange | None = None
    """What continues it."""

    def __init__(
        self,
        context: ServerContext,
        owner: Owner,
        stream: Stream,
        descriptor: int,
        record: RequestRecord,
        buffers: IoBuffers,
    ) -> None:
        """Call start() next."""
        self._context = context
        self._owner = owner
        self.stream = stream
        self.descriptor = descriptor
        self.record = record
        self.buffers = buffers

    @staticmethod
    def is_possible(context: ServerContext) -> bool:
        """Return whether the server's settings allow quick calls."""
        config, handler = context.config, context.handler
        is_plain = context.observe is None and config.quit_on is None and not config.whole_request
        return is_plain and handler.has_calls and handler.needs_whole_request

    def start(self) -> bool:
        """Read the request, and have its handler called; return False if an exchange must do it."""
        buffer, context = self.buffers.request, self._context
        try:
            self.received = count = self.received or self.stream.read_nowait(buffer)
            payload = find_whole(buffer[:count])
            max_size = context.config.max_request
            if payload is None or (max_size is not None and len(payload) > max_size):
                return False
            if is_hung_up(self.descriptor):
                return False
            run = context.handler.run_nowait(self.record.request, [payload])
        except Exception:
            return False  # the exchange has the same error, and reports it
        if run is None:
            return False
        self.run = run
        if run.call is None:
            self._owner.continue_quick(self)
            if self.exchange is not None:
                self.exchange.resume()
        else:
            context.calls.append((run, self.on_called))
        return True

    def on_called(self) -> None:
        """Write the response and close the connection; have an exchange do what is left to do."""
        if self.exchange is None:
            try:
                is_over = self._answer()
            except Exception as error:  # internal error: other requests must continue
                self.record.set_failure(Outcome.INTERNAL_ERROR, repr(error))
                self.stream.close()
                is_over = True
            if is_over:
                self._owner.finish_quick(self)
                return
            self._owner.continue_quick(self)
        if self.exchange is not None and self.exchange.io is not None:
            self.exchange.on_called(self.exchange.io, self.sent)

    def _answer(self) -> bool:
        """Return False if an exchange must do it, or the rest of it."""
        run, record = self.run, self.record
        result = None if run is None else run.result()
        if run is None or result is None or not result.succeeded:
            return False
        response = run.whole_response
        if len(response) > _MAX_RESPONSE or not self._send(encode_whole(response)):
            return False
        record.status = result.status
        record.bytes_in = self.received - 2 * HEADER_SIZE
        record.bytes_out = len(response)
        self.stream.close()
        return run.stop_nowait()

    def _send(self, wire: bytes) -> bool:
        """Write without blocking; return whether all was written."""
        try:
            self.sent = self.stream.write_nowait([wire])
        except (BlockingIOError, SipcError):
            return False  # the exchange has the same error, or waits
        return self.sent == len(wire)
