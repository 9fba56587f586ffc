"""A request that is answered soon, without an exchange.

Most requests arrive whole in one packet, the response is as small and comes soon, and the
connection takes it at once. Then only one descriptor of the run must be polled, and no state
machine is needed. In all other cases an exchange continues from where this one is.
"""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from simpleipc_cli.deadline import NEVER
from simpleipc_cli.errors import Shortage, SipcError
from simpleipc_cli.pktline import HEADER_SIZE, encode_whole, find_whole
from simpleipc_cli.server.context import Outcome, RequestRecord, ServerContext
from simpleipc_cli.server.exchange import Exchange
from simpleipc_cli.server.exchange_state import IoBuffers
from simpleipc_cli.server.handler import HandlerRun
from simpleipc_cli.transport import READ, Stream, is_hung_up

_MAX_RESPONSE = 4096  # bytes, which a new connection mostly takes at once (tunable)
_MAX_TIME = 0.01  # seconds until an exchange polls the client, too (tunable)


class Owner(Protocol):
    """The dispatcher."""

    def wait_for_run(self, quick: QuickExchange) -> None:
        """Have an exchange continue it when it is due."""

    def continue_quick(self, quick: QuickExchange) -> Exchange:
        """Return the exchange that continues it."""

    def finish_quick(self, quick: QuickExchange) -> None:
        """Free the resources of a quick exchange that has answered."""


class QuickExchange:
    """One request from its first byte to its response. Only the event loop's thread uses it."""

    received = 0
    """Bytes of the request in the buffer."""
    written = 0
    """Bytes of its payload that the run has."""
    pieces: list[memoryview] | None = None
    """What has been read of the response."""
    run: HandlerRun | None = None
    due = NEVER
    """Monotonic time at which an exchange must continue."""
    exchange: Exchange | None = None
    """What continues it."""
    _waits_for_exit = False  # before it reads the output
    _polled = -1  # the output of the run, or its exit
    _sent = 0  # bytes of the response, with headers, that the connection has taken

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
        """Return whether the server's settings allow quick exchanges."""
        config = context.config
        is_plain = context.observe is None and config.quit_on is None and not config.whole_request
        return is_plain and context.handler.has_quick_runs

    def start(self) -> bool:
        """Read the request, and start its run; return False if an exchange must do it."""
        try:
            payload = self._read()
        except Exception:
            payload = None  # the exchange has the same error, and reports it
        if payload is None:
            return False
        try:
            run = self._context.handler.run_nowait(self.record.request, [payload])
        except SipcError as error:
            if isinstance(error, Shortage):
                return False  # the exchange waits
            exchange = self.hand_over()  # which must not start it again: it may have done its work
            exchange.fail(Outcome.SPAWN_FAILED, error.text)
            exchange.start()
            return True
        except Exception:
            return False  # the exchange has the same error, and reports it
        if run is None:
            return False
        self.run = run
        if run.call is not None:
            self._context.calls.append((run, self.on_output))
        elif self._write(run, payload) and self._poll(run):
            self._owner.wait_for_run(self)
        else:
            self.hand_over().resume()
        return True

    def _read(self) -> memoryview | None:
        """Return the payload of a whole small request; None if it is none, or its client left."""
        buffer = self.buffers.request
        self.received = count = self.received or self.stream.read_nowait(buffer)
        payload = find_whole(buffer[:count])
        max_size = self._context.config.max_request
        if payload is None or (max_size is not None and len(payload) > max_size):
            return None
        return None if is_hung_up(self.descriptor) else payload

    def _write(self, run: HandlerRun, payload: memoryview) -> bool:
        """Return whether the run has the whole request."""
        if run.input < 0:
            return True
        try:
            self.written = run.write([payload], last=True)
            if self.written == len(payload):
                run.end_input()
        except (BlockingIOError, SipcError):
            return False  # the exchange has the same error, or waits
        return run.input < 0

    def _poll(self, run: HandlerRun) -> bool:
        # The exit of a process comes just after the end of its output: one event is enough.
        self._waits_for_exit = run.exit >= 0 and not run.is_persistent
        descriptor = run.exit if self._waits_for_exit else run.output
        try:
            self._context.poller.register(descriptor, READ, self.on_output)
        except OSError:
            return False  # the exchange has the same error
        self._polled = descriptor
        self.due = monotonic() + _MAX_TIME
        return True

    def on_output(self, _events: int = READ) -> None:
        """Write the response and close the connection; have an exchange do what is left to do."""
        if self.exchange is None:
            try:
                is_over = self._answer()
            except Exception as error:
                exchange = self.hand_over()
                exchange.fail(Outcome.INTERNAL_ERROR, repr(error))
                exchange.resume()
                return
            if is_over:
                self._owner.finish_quick(self)
                return
        exchange = self.exchange or self.hand_over()
        if exchange.io is not None:
            exchange.on_called(exchange.io, self._sent)

    def _answer(self) -> bool:
        """Return False if an exchange must do it, or the rest of it."""
        run, record = self.run, self.record
        assert run is not None  # noqa: S101
        try:
            self.pieces = pieces = run.read(self.buffers.response)
            if self._waits_for_exit and pieces:  # also the end of the output
                pieces += run.read(self.buffers.response[len(pieces[0]) :])
            result = run.result() if run.output < 0 else None
        except (BlockingIOError, SipcError):
            return False  # the exchange has the same error, or waits
        if result is None or not result.succeeded or len(pieces) > 1:
            return False
        response = pieces[0] if pieces else b""
        if len(response) > _MAX_RESPONSE or not self._send(encode_whole(bytes(response))):
            return False
        self._stop_polling()
        if not run.stop_nowait():
            return False
        self._drop_rest()
        self.stream.close()
        record.status = result.status
        record.bytes_in = self.received - 2 * HEADER_SIZE
        record.bytes_out = len(response)
        return True

    def _send(self, wire: bytes) -> bool:
        """Write without blocking; return whether all was written."""
        try:
            self._sent = self.stream.write_nowait([wire])
        except (BlockingIOError, SipcError):
            return False  # the exchange has the same error, or waits
        return self._sent == len(wire)

    def _drop_rest(self) -> None:
        """Read what the client has sent after its request: else its next write or read fails."""
        try:
            count = self.stream.read_nowait(self.buffers.request)
        except (BlockingIOError, SipcError):
            return
        if count:
            self.record.note_dropped(count)

    def on_due(self) -> bool:
        """Have an exchange continue it; return whether output has waited to be read."""
        assert self.run is not None  # noqa: S101
        if self._waits_for_exit:
            try:
                self.pieces = self.run.read(self.buffers.response)
            except (BlockingIOError, SipcError):
                pass  # the exchange has the same error, or waits
        exchange = self.hand_over()
        if self.pieces is not None and exchange.io is not None:
            exchange.on_called(exchange.io)
        else:
            exchange.resume()
        return bool(self.pieces)

    def hand_over(self) -> Exchange:
        """Return the exchange that continues it."""
        self._stop_polling()
        self.exchange = self._owner.continue_quick(self)
        return self.exchange

    def _stop_polling(self) -> None:
        if self._polled >= 0:
            self._context.poller.unregister(self._polled)
            self._polled = -1
