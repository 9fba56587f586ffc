"""One exchange: a request from its first byte, its handler, and the response to its end.

An exchange is a state machine and the only one that decides: what is read, when the handler
starts and stops, which timeouts run, and when all of it is over. It runs on the event loop with
all others as long as it cannot block; then it moves to a worker thread of its own.

Why it has no deadlock: a request is read as fast as the handler takes it, and while the response
cannot be written, because the client does not read, the request is read ahead to disk: the client
may write its whole request before it reads. A response is never stored: a client that reads slowly
slows the handler.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from time import monotonic

from simpleipc_cli.buffers import advance
from simpleipc_cli.deadline import NEVER
from simpleipc_cli.errors import CutOff, PeerGone, ProtocolError, SipcError
from simpleipc_cli.message import MessageReader, MessageWriter
from simpleipc_cli.server import timeouts
from simpleipc_cli.server.config import DRAIN_IDLE_TIMEOUT, ServerConfig
from simpleipc_cli.server.handler import Handler, Request, Result
from simpleipc_cli.server.handler_io import HandlerIO, IoBuffers
from simpleipc_cli.server.log import Outcome, RequestRecord
from simpleipc_cli.server.request_buffer import QuitRequest, RequestBuffer
from simpleipc_cli.server.shutdown import Shutdown
from simpleipc_cli.server.timeouts import Timeouts
from simpleipc_cli.transport import HANGUP, READ, WRITE, Poller, Stream, is_hung_up

_MAX_ON_LOOP = 1 << 20  # bytes that an exchange may move before it gets a thread (tunable)
_PACKET_COST = 256  # bytes that are moved in the time that one packet costs (tunable)


class Step(Enum):
    """What has come of a step."""

    DONE = auto()
    NO_DATA = auto()
    """The client has sent nothing."""
    WOULD_BLOCK = auto()
    """The step has changed nothing and must be repeated on a worker thread."""


class _Abort(Exception):
    """Ends the exchange without a complete response."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Exchange:
    """One request being received, handled and answered."""

    def __init__(
        self,
        stream: Stream,
        descriptor: int,
        request: Request,
        *,
        handler: Handler,
        config: ServerConfig,
        shutdown: Shutdown,
        buffers: IoBuffers,
        poller: Poller,
        on_change: Callable[[Exchange], None],
    ) -> None:
        """Take over the stream, which has data to read, and its descriptor.

        `on_change` is called after each step on the event loop that sets `is_over` or
        `needs_thread`, or lets `due` be earlier.
        """
        self.record = RequestRecord(request.id, request.peer)
        self.buffers = buffers
        self.is_over = False
        self.needs_thread = config.whole_request  # it goes to disk
        self.due = NEVER
        """Monotonic time at which to call resume() if nothing happens."""

        self._stream = stream
        self._stream_fd = descriptor
        self._handler = handler
        self._request = request
        self._config = config
        self._shutdown = shutdown
        self._latch = shutdown.draining  # the next phase
        self._poller = poller
        self._on_change = on_change
        self._polled: dict[int, int] = {}  # events by descriptor
        self._may_block = False  # on a worker thread

        self._writer = MessageWriter()
        self._buffer = RequestBuffer(
            MessageReader(),
            buffers.request,
            config.spool_folder,
            config.whole_request,
            None if config.quit_on is None else QuitRequest(config.quit_on),
        )
        self._timeouts = Timeouts(config)
        self._running = 0  # timeouts that run
        self._ever_running = 0  # ... and that ever did
        self._progress = 0  # timeouts to reset

        self._io: HandlerIO | None = None
        self._has_handler_timeout = False
        self._must_start = False  # the handler is to be started
        self._must_stop = False  # ... to be stopped
        self._response_over = False  # its last byte, or its flush, is in the writer
        self._stream_ended = False  # the client sends no more; it may still read
        self._client_gone = False  # it does not, but its handler may finish
        self._is_closed = False  # the stream
        self._is_ending = False

    # -- steps -----------------------------------------------------------------------------

    def start(self) -> None:
        """Read the request."""
        self._step(self._receive)

    def resume(self) -> None:
        """Do what is due."""
        self._step(None)

    def on_shutdown(self) -> None:
        """Enter the next phase of the shutdown. For the event loop."""
        self._step(self._on_latch)

    def detach_from_loop(self) -> None:
        """Stop polling on the event loop: attach_to_thread() is called next."""
        self._unregister(*self._polled)

    def attach_to_thread(self, poller: Poller) -> None:
        """Go on in a worker thread, which dispatches `poller` until the exchange is over."""
        self._may_block = True
        self._poller = poller
        self.resume()

    def _step(self, on_event: Callable[[int], Step] | None, events: int = 0) -> None:
        """Handle one event, then do everything that follows from it."""
        due = self.due
        try:
            try:
                step = Step.DONE if on_event is None else on_event(events)
                if step is not Step.WOULD_BLOCK:
                    step = self._proceed()
            except _Abort as abort:
                self._set_outcome(abort.outcome, abort.detail)
                step = self._end()
            except SipcError as error:
                self._set_outcome(Outcome.INTERNAL_ERROR, error.text)
                step = self._end()
        except Exception as error:  # a defect: other exchanges must go on
            step = self._end_after_defect(error)
        if step is Step.WOULD_BLOCK:
            self.needs_thread = True
        if not self._may_block and (self.is_over or self.needs_thread or self.due < due):
            self._on_change(self)

    def _proceed(self) -> Step:
        """Do all that is due, until only an event can lead on."""
        while not self._is_ending:
            if self._must_stop and self._stop_handler() is Step.WOULD_BLOCK:
                return Step.WOULD_BLOCK
            if self._must_start and self._start_handler() is Step.WOULD_BLOCK:
                return Step.WOULD_BLOCK
            if self._response_over and not self._writer.pending and self._is_request_done():
                break
            now = monotonic()
            self._poll(now)
            if now < self.due:
                return Step.DONE
            if self._on_timeout(now) is Step.WOULD_BLOCK:
                return Step.WOULD_BLOCK
        return self._end()

    def _is_request_done(self) -> bool:
        """Return whether the client has sent all, and a handler that stays has read all."""
        if not self._buffer.reader.complete:
            return self._client_gone
        io = self._io
        return io is None or not io.run.is_persistent or not io.wants_input(self._buffer)

    def _set_outcome(self, outcome: Outcome, detail: str) -> None:
        """Record what went wrong, unless something has before."""
        if self.record.outcome is Outcome.ANSWERED:
            self.record.outcome = outcome
            self.record.detail = detail

    def _end(self) -> Step:
        """Close the connection and stop the handler."""
        self._is_ending = True
        reader = self._buffer.reader
        self.record.bytes_in = reader.payload_bytes
        self.record.bytes_out = self._writer.payload_bytes
        if self._stop_handler() is Step.WOULD_BLOCK:
            return Step.WOULD_BLOCK
        if reader.trailing_bytes:
            self.record.debug_notes.append(f"{reader.trailing_bytes} bytes behind the flush")
        self.is_over = True
        return Step.DONE

    def _end_after_defect(self, error: Exception) -> Step:
        self._set_outcome(Outcome.INTERNAL_ERROR, repr(error))
        try:
            return self._end()
        except Exception as another:
            self.record.warnings.append(repr(another))
            self.is_over = True
            return Step.DONE

    # -- events and timeouts that are waited for -------------------------------------------

    def _poll(self, now: float) -> None:
        """Register what is waited for, and set `due`."""
        buffer, io, writing = self._buffer, self._io, bool(self._writer.pending)
        reader = buffer.reader
        # The module's docstring says when the client's request is read.
        reading = not self._stream_ended and (io is None or not buffer.has_unsent or writing)
        wanted: dict[int, tuple[int, Callable[[int], Step]]] = {}
        if not self._client_gone:
            events = (READ if reading else 0) | (WRITE if writing else 0)
            wanted[self._stream_fd] = events, self._on_stream
        if io is not None:
            run = io.run
            if run.input >= 0 and not buffer.is_discarding:
                # Also when all is written but its end, for which there was no room.
                has_more = buffer.has_unsent or reader.complete
                wanted[run.input] = WRITE if has_more else 0, self._on_input
            if run.output >= 0 and not writing:  # its HANGUP would be reported at once
                wanted[run.output] = READ, self._on_output
            if not io.has_exited:
                wanted[run.exit] = READ, self._on_exit
        if self._may_block:
            wanted[self._latch.fileno()] = 0, self._on_latch
        self._run_timeouts(now, reading=reading, writing=writing)
        polled = self._polled
        if polled.keys() - wanted.keys():
            self._unregister(*(polled.keys() - wanted.keys()))
        for descriptor, (events, on_event) in wanted.items():
            if polled.get(descriptor) != events:
                polled[descriptor] = events
                self._poller.register(descriptor, events, partial(self._step, on_event))
        moved = reader.payload_bytes + self._writer.payload_bytes
        if moved + reader.packets * _PACKET_COST > _MAX_ON_LOOP:
            self.needs_thread = True

    def _run_timeouts(self, now: float, *, reading: bool, writing: bool) -> None:
        """Let the timeouts run that are due to what is waited for, and pause the others."""
        buffer, io = self._buffer, self._io
        reader = buffer.reader
        running = timeouts.HANDLER if self._has_handler_timeout else 0
        if reading and not reader.complete:
            running |= timeouts.READ_IDLE | (timeouts.PACKET if reader.inside_packet else 0)
        if writing:
            running |= timeouts.WRITE_IDLE
        if io is not None and self._response_over:
            if (buffer.has_unsent or reader.complete) and io.wants_input(buffer):
                running |= timeouts.INPUT_DRAIN
        elif io is not None and not writing and io.is_lingering:
            running |= timeouts.OUTPUT_LINGER
        if running != self._running or self._progress & self._ever_running:
            self.due = self._timeouts.update(now, running=running, progress=self._progress)
            self._running = running
            self._ever_running |= running
        self._progress = 0

    def _unregister(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            if self._polled.pop(descriptor, None) is not None:
                self._poller.unregister(descriptor)

    def _on_timeout(self, now: float) -> Step:
        kind, limit = self._timeouts.expired(now)
        match kind:
            case timeouts.READ_IDLE:
                raise _Abort(Outcome.READ_TIMEOUT, f"silent for {limit:g} s")
            case timeouts.PACKET:
                raise _Abort(Outcome.READ_TIMEOUT, f"not done with one packet for {limit:g} s")
            case timeouts.WRITE_IDLE:
                raise _Abort(Outcome.WRITE_TIMEOUT, f"no byte moved for {limit:g} s")
            case timeouts.HANDLER:
                self._fail(Outcome.HANDLER_TIMEOUT, f"not done in {limit:g} s")
            case timeouts.OUTPUT_LINGER:
                return self._on_linger_timeout()
            case timeouts.INPUT_DRAIN:
                self.record.warnings.append(f"the worker did not read on for {limit:g} s")
                self._discard_rest()
            case _:  # the time that was due has moved
                self.due = self._timeouts.update(now, running=self._running, progress=0)
        return Step.DONE

    def _on_linger_timeout(self) -> Step:
        """End the response of a handler whose output does not end."""
        self._progress |= timeouts.OUTPUT_LINGER
        if self._io is None:
            return Step.DONE
        if self._io.has_exited:
            self.record.warnings.append(
                "the handler has exited, but something holds its output open"
            )
        self._io.run.end_output()
        self._end_response(self._io.run.result())
        return self._send()

    def _on_latch(self, _events: int) -> Step:
        """Enter the next phase of the shutdown."""
        if self._latch is self._shutdown.aborting:
            raise _Abort(Outcome.ABORTED, "the server was stopped before the answer was complete")
        self._latch = self._shutdown.aborting
        self._timeouts.max_read_idle = DRAIN_IDLE_TIMEOUT
        self._progress |= timeouts.READ_IDLE
        return Step.DONE

    # -- the client ------------------------------------------------------------------------

    def _on_stream(self, events: int) -> Step:
        if events & HANGUP:
            return self._on_hangup()
        step = self._send() if events & WRITE else Step.DONE
        if events & READ and step is Step.DONE and not self._stream_ended:
            step = self._receive()
        return step

    def _on_hangup(self) -> Step:
        """Stop the handler of a client that is gone, unless it may finish."""
        if self._response_over and not self._writer.pending:
            self._client_gone = True  # it has everything, and need not send the rest
        elif self._config.finish_on_hangup and self._io is not None:
            while not self._buffer.reader.complete:
                step = self._receive()
                if step is Step.WOULD_BLOCK:
                    return step
                if step is Step.NO_DATA:  # it only stopped reading: no event will come
                    raise _Abort(Outcome.CLIENT_CLOSED, "before its request was complete")
            self._client_gone = self._stream_ended = True
            self._writer.drop()
            self._set_outcome(Outcome.CLIENT_CLOSED, "the handler was allowed to finish")
        elif self._buffer.reader.complete:
            raise _Abort(Outcome.CLIENT_CLOSED, "before the answer was complete")
        else:
            raise _Abort(
                Outcome.REQUEST_INCOMPLETE, "the client hung up before its request was complete"
            )
        return Step.DONE

    def _receive(self, _events: int = READ) -> Step:
        """Read from the client once."""
        buffer = self._buffer
        if not self._may_block and (buffer.has_unsent or self._config.whole_request):
            return Step.WOULD_BLOCK  # it goes to disk
        packets = buffer.reader.packets
        try:
            if not buffer.read(self._stream):
                self._stream_ended = True
                return Step.DONE
        except BlockingIOError:
            return Step.NO_DATA
        except CutOff as error:
            raise _Abort(Outcome.REQUEST_INCOMPLETE, str(error)) from None
        except ProtocolError as error:
            raise _Abort(Outcome.MALFORMED, str(error)) from None
        except SipcError as error:  # a full disk fails this request alone
            self._fail(Outcome.INTERNAL_ERROR, error.text)
            return Step.DONE
        self._progress |= timeouts.READ_IDLE | timeouts.WRITE_IDLE
        if buffer.reader.packets != packets or not buffer.reader.inside_packet:
            self._progress |= timeouts.PACKET
        return self._on_data()

    def _on_data(self) -> Step:
        """Start the handler, or feed it, after something of the request has come."""
        config, buffer = self._config, self._buffer
        if config.max_request is not None and buffer.reader.payload_bytes > config.max_request:
            raise _Abort(Outcome.TOO_LARGE, f"more than {config.max_request} bytes")
        if config.quit_on is not None and not self._response_over and buffer.is_quit_request():
            self.record.is_quit = True
            buffer.discard()
            self._response_over = True
            self._writer.finish()
            return self._send()
        if self._io is not None:
            self._feed_handler(self._io)
        elif not buffer.is_discarding:
            self._must_start = buffer.reader.complete or (
                not config.whole_request and buffer.is_started()
            )
        return Step.DONE

    def _send(self) -> Step:
        """Write as much of the response as the client takes."""
        pending = self._writer.pending
        try:
            while pending:
                count = self._stream.write_now(pending)
                self._progress |= timeouts.WRITE_IDLE
                if count == sum(map(len, pending)):
                    pending.clear()
                else:
                    advance(pending, count)
        except BlockingIOError:
            pass
        except PeerGone:
            return self._on_hangup()
        return Step.DONE

    # -- the handler -----------------------------------------------------------------------

    def _start_handler(self) -> Step:
        """Start the handler, unless the client is gone, and give it what has come."""
        if is_hung_up(self._stream_fd):
            return self._on_hangup()
        try:
            if self._may_block:
                spooled = None
                if self._config.whole_request and self._handler.accepts_spooled:
                    spooled = self._buffer.take_spool()
                run = self._handler.run(self._request, spooled)
            else:
                found = self._handler.run_nowait(self._request)
                if found is None:
                    return Step.WOULD_BLOCK
                run = found
        except SipcError as error:
            self._fail(Outcome.SPAWN_FAILED, error.text)
            return Step.DONE
        self._must_start = False
        self._io = io = HandlerIO(run)
        self._has_handler_timeout = self._config.handler_timeout is not None
        self._progress |= timeouts.HANDLER
        if run.input >= 0 and io.feed(self._buffer):
            run.end_input()
        return Step.DONE

    def _feed_handler(self, io: HandlerIO) -> None:
        """Give the handler what it takes, and tell it the end of the request."""
        run = io.run
        descriptor = run.input
        if descriptor < 0:
            return
        if io.feed(self._buffer):
            if descriptor in self._polled:
                self._unregister(descriptor)
            run.end_input()  # if there is no room for it, the descriptor is polled again
        if self._response_over and not io.wants_input(self._buffer):
            self._discard_rest()

    def _on_input(self, events: int) -> Step:
        """The handler takes more of the request, or will take no more of it."""
        io = self._io
        if io is None:
            return Step.DONE
        if events & HANGUP:
            io.abandon_input(self._buffer)
            if self._response_over:
                self._discard_rest()
        elif events & WRITE:
            self._progress |= timeouts.INPUT_DRAIN
            self._feed_handler(io)
        return Step.DONE

    def _discard_rest(self) -> None:
        """Read the rest of the request from the client and drop it.

        The handler's input is not ended: a process that the handler left behind may still read
        it, and must not take half a request for a whole one.
        """
        self._buffer.discard()
        if self._io is not None:
            self._io.run.abandon_input()

    def _on_output(self, _events: int) -> Step:
        """Pass on what the handler has written."""
        io = self._io
        if io is None:
            return Step.DONE
        try:
            pieces = io.run.read(self.buffers.response)
        except BlockingIOError:
            return Step.DONE
        self._progress |= timeouts.OUTPUT_LINGER
        if not self._client_gone:
            for piece in pieces:
                self._writer.write(piece)
        if not pieces and io.run.output >= 0:
            io.run.end_output()
        if io.run.output < 0:
            io.is_lingering = io.has_exited or io.run.is_persistent
            result = io.run.result()
            if result is not None:
                self._end_response(result)
        return self._send() if self._writer.pending else Step.DONE

    def _on_exit(self, _events: int) -> Step:
        io = self._io
        if io is None:
            return Step.DONE
        io.has_exited = io.is_lingering = True
        self._has_handler_timeout = False
        if io.run.output < 0:
            self._end_response(io.run.result())
        return self._send()

    def _end_response(self, result: Result | None) -> None:
        """End the response, whose output has ended: with a flush if the handler succeeded."""
        io, buffer = self._io, self._buffer
        if result is None or io is None or self._response_over:
            return
        if result.request_unread and buffer.rewind():
            self._must_stop = self._must_start = True  # another one answers
            return
        self._has_handler_timeout = False
        self._response_over = True
        self.record.status = result.status
        if not result.succeeded:
            self._set_outcome(Outcome.HANDLER_FAILED, result.text)
        elif not self._client_gone:
            self._writer.finish()
        is_unread = buffer.has_unsent or not buffer.reader.complete or io.run.input >= 0
        if is_unread and not (result.succeeded and io.wants_input(buffer)):
            self._discard_rest()

    def _fail(self, outcome: Outcome, detail: str) -> None:
        """Give up the response; the rest of the request is still read before the close."""
        self._set_outcome(outcome, detail)
        self._must_start = False
        self._must_stop = True
        self._has_handler_timeout = False
        self._writer.drop()
        self._response_over = True
        self._discard_rest()

    def _stop_handler(self) -> Step:
        """Stop the handler with everything it started; before that, close an ending connection."""
        self._unregister(*self._polled)
        if self._is_ending and not self._is_closed:
            self._is_closed = True
            self._stream.close()
            if self._buffer.spool is not None:
                self._buffer.spool.close()
        if self._io is not None:
            run = self._io.run
            try:
                if self._may_block:
                    self._io = None
                    run.stop(self._config.grace_period, self._shutdown.killing)
                elif not run.stop_nowait():
                    return Step.WOULD_BLOCK
            except SipcError as error:
                self.record.warnings.append(error.text)
            self._io = None
        self._must_stop = False
        return Step.DONE
