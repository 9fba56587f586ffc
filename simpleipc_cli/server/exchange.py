"""One exchange: a request, its handler, and the response.

An exchange is a state machine. It makes all decisions: which descriptors are read, when the handler
starts and stops, which timeouts run, and when the exchange is over. It runs on the event loop with
the other exchanges until a step could block; then it moves to a worker thread.

It never introduces a deadlock. It reads the request only as fast as the handler does, but spools
the rest to disk while the client does not read the response, as the client may write all before it
reads. It stores no response: a slow client slows the handler. A quick exchange may take its place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from simpleipc_cli.errors import IncompleteMessage, PeerClosed, ProtocolError, Shortage, SipcError
from simpleipc_cli.pktline import consume
from simpleipc_cli.server.context import Outcome
from simpleipc_cli.server.exchange_state import Abort, ExchangeState, HandlerIO, Step, Timeout
from simpleipc_cli.server.handler import Result
from simpleipc_cli.transport import HANGUP, READ, WRITE, Poller, is_hung_up

_MAX_ON_LOOP = 1 << 20  # bytes that an exchange may move before it gets a thread (tunable)
_PACKET_COST = 256  # bytes; handling a packet takes as long as moving this many (tunable)


class Exchange(ExchangeState):
    """Receives one request, runs its handler, sends the response. Its stream has data to read."""

    __slots__ = ()

    def start(self) -> None:
        """Read the request."""
        self._step(self._receive)

    def resume(self) -> None:
        """Continue after a timeout or on another thread."""
        self._step(None)

    def on_called(self, io: HandlerIO, sent: int = 0) -> None:
        """Pass on the response of a run that was called, but for the first `sent` bytes."""
        self.is_in_call = False
        self._step(partial(self._on_output, io, sent=sent), READ)

    def on_shutdown(self) -> None:
        """Enter the next phase of the shutdown."""
        self._step(self.on_shutdown_phase, READ)

    def attach_to_thread(self, poller: Poller) -> None:
        """Continue in a worker thread. It dispatches `poller` until the exchange is over."""
        self.may_block = True
        self.poller = poller
        if self.context.shutdown.aborting.is_set():  # before a handler is started
            self.is_draining = True
            self.on_shutdown()
        else:
            self.resume()

    def _step(self, on_event: Callable[..., Step] | None, *event: Any) -> None:
        """Handle one event, then make all possible progress."""
        due = self.due
        try:
            try:
                step = Step.DONE if on_event is None else on_event(*event)
                if step is not Step.WOULD_BLOCK:
                    step = self._proceed()
            except Abort as abort:
                self.record.set_failure(abort.outcome, abort.detail)
                step = self._end()
            except SipcError as error:
                self.record.set_failure(Outcome.ABORTED, error.text)
                step = self._end()
        except Exception as error:  # internal error: other exchanges must continue
            step = self.end_after_defect(repr(error))
        self.needs_thread |= step is Step.WOULD_BLOCK
        if not self.may_block and (self.is_over or self.needs_thread or self.due < due):
            self.on_change(self)

    def _proceed(self) -> Step:
        """Make progress until the exchange must wait for an event."""
        while not self.is_ending:
            if self.must_stop and self._stop_handler() is Step.WOULD_BLOCK:
                return Step.WOULD_BLOCK
            if self.must_start and self._start_handler() is Step.WOULD_BLOCK:
                return Step.WOULD_BLOCK
            if self.is_in_call:
                return Step.DONE
            if self.is_response_over and not self.writer.pending and self.is_request_done():
                break
            now = monotonic()
            self._poll(now)
            if now < self.due:
                return Step.DONE
            if self._on_timeout(now) is Step.WOULD_BLOCK:
                return Step.WOULD_BLOCK
        return self._end()

    def _end(self) -> Step:
        """Close the connection and stop the handler."""
        self.is_ending = True
        reader = self.buffer.reader
        self.record.bytes_in = reader.payload_bytes
        self.record.bytes_out = self.writer.payload_bytes
        if self._stop_handler() is Step.WOULD_BLOCK:
            return Step.WOULD_BLOCK
        if reader.trailing_bytes:
            self.record.note_dropped(reader.trailing_bytes)
        self.is_over = True
        return Step.DONE

    def end_after_defect(self, text: str) -> Step:
        """End the exchange, even if closing or stopping fails."""
        self.record.set_failure(Outcome.INTERNAL_ERROR, text)
        try:
            return self._end()
        except Exception as second:
            self.record.warnings.append(repr(second))
            self.is_over = True
            return Step.DONE

    # -- polling and timeouts ----------------------------------------------------------------

    def _poll(self, now: float) -> None:
        """Register the descriptors that the exchange waits for, and set `due`."""
        buffer, io, writing = self.buffer, self.io, bool(self.writer.pending)
        reader = buffer.reader
        reading = not self.has_stream_ended and (io is None or not buffer.has_unsent or writing)
        wanted: dict[int, int] = {}  # events by descriptor
        if not self.is_client_gone:
            wanted[self.stream_fd] = (READ if reading else 0) | (WRITE if writing else 0)
        if io is not None:
            run = io.run
            if run.input >= 0 and not buffer.is_discarding:
                # Also if only the flush is left, because the pipe had no space for it.
                wanted[run.input] = WRITE if buffer.has_unsent or reader.complete else 0
            if run.output >= 0 and not writing:  # else its HANGUP would be reported repeatedly
                wanted[run.output] = READ
            if not io.has_exited and run.exit >= 0:
                wanted[run.exit] = READ
        if self.may_block:
            wanted[self.shutdown_event().fileno()] = READ
        self._run_timeouts(now, reading=reading, writing=writing)
        if wanted != self.polled:
            self._register(wanted)
        moved = reader.payload_bytes + self.writer.payload_bytes
        if moved + reader.packets * _PACKET_COST > _MAX_ON_LOOP:
            self.needs_thread = True

    def _register(self, wanted: dict[int, int]) -> None:
        """Change which events of which descriptors are polled."""
        polled, io = self.polled, self.io
        steps: dict[int, tuple[Any, ...]] = {self.stream_fd: (self._on_stream,)}
        if io is not None:
            run = io.run
            steps[run.input], steps[run.output] = (self._on_input, io), (self._on_output, io)
            steps[run.exit] = (self._on_exit, io)
        self.unregister(*(polled.keys() - wanted.keys()))
        for descriptor, events in wanted.items():
            if polled.get(descriptor) != events:
                polled[descriptor] = events
                step = steps.get(descriptor, (self.on_shutdown_phase,))
                try:
                    self.poller.register(descriptor, events, partial(self._step, *step))
                except OSError as error:
                    raise SipcError(f"cannot poll a descriptor: {error.strerror}") from error

    def _run_timeouts(self, now: float, *, reading: bool, writing: bool) -> None:
        """Run the timeouts for which the exchange waits, and pause the others."""
        buffer, io = self.buffer, self.io
        reader = buffer.reader
        running = Timeout.HANDLER if self.has_handler_timeout else 0
        if self.is_start_delayed:
            running |= Timeout.SHORTAGE
        if reading and not reader.complete:
            running |= Timeout.READ_IDLE | (Timeout.PACKET if reader.inside_packet else 0)
        if writing:
            running |= Timeout.WRITE_IDLE
        if io is not None and self.is_response_over:
            if (buffer.has_unsent or reader.complete) and io.wants_input(buffer):
                running |= Timeout.INPUT_DRAIN
        elif io is not None and not writing and io.is_lingering:
            running |= Timeout.OUTPUT_LINGER
        if running != self.running or self.progress & running:
            self.due = self.timeouts.update(now, running=running, progress=self.progress)
            self.running = running
            self.progress = 0

    def _on_timeout(self, now: float) -> Step:
        kind, limit = self.timeouts.expired(now)
        if kind in Timeout.ABORTS:
            outcome, detail = Timeout.ABORTS[kind]
            raise Abort(outcome, detail.format(limit))
        match kind:
            case Timeout.SHORTAGE:
                self.must_start = True
            case Timeout.HANDLER:
                self.fail(Outcome.HANDLER_TIMEOUT, f"still running after {limit:g} s")
            case Timeout.OUTPUT_LINGER if self.io is not None:
                self.progress |= Timeout.OUTPUT_LINGER
                if self.io.has_exited:
                    text = "the handler exited, but another process holds its output open"
                    self.record.warnings.append(text)
                self.io.run.output = -1
                self._end_response(self.io.run.result())
                return self._send()
            case Timeout.INPUT_DRAIN:
                text = f"the worker did not read the rest of its request within {limit:g} s"
                self.record.warnings.append(text)
                self._discard_rest()
            case _:  # no timeout has expired: compute `due` again
                self.due = self.timeouts.update(now, running=self.running, progress=0)
        return Step.DONE

    # -- the client ------------------------------------------------------------------------

    def _on_stream(self, events: int) -> Step:
        if events & HANGUP:
            return self._on_hangup()
        step = self._send() if events & WRITE else Step.DONE
        if events & READ and step is Step.DONE and not self.has_stream_ended:
            step = self._receive()
        return step

    def _on_hangup(self) -> Step:
        """Stop the handler of a client that has closed, unless the handler may finish."""
        if self.is_response_over and not self.writer.pending:
            self.is_client_gone = True  # it has the whole response, and need not send the rest
        elif self.context.config.finish_on_hangup and self.io is not None:
            while not self.buffer.reader.complete:
                step = self._receive()
                if step is Step.WOULD_BLOCK:
                    return step
                if step is Step.NO_DATA:  # the client only stopped reading: there will be no event
                    raise Abort(Outcome.CLIENT_CLOSED, "before its request was complete")
            self.is_client_gone = self.has_stream_ended = True
            self.writer.pending.clear()
            self.record.set_failure(Outcome.CLIENT_CLOSED, "the handler was allowed to finish")
        elif self.buffer.reader.complete:
            raise Abort(Outcome.CLIENT_CLOSED, "before the response was complete")
        else:
            detail = "the client closed before its request was complete"
            raise Abort(Outcome.REQUEST_INCOMPLETE, detail)
        return Step.DONE

    def _receive(self, _events: int = READ) -> Step:
        """Read from the client once."""
        buffer = self.buffer
        if not self.may_block and (buffer.has_unsent or self.context.config.whole_request):
            return Step.WOULD_BLOCK  # the bytes would be spooled to disk
        packets = buffer.reader.packets
        try:
            if not buffer.read(self.stream):
                self.has_stream_ended = True
                return Step.DONE
        except BlockingIOError:
            return Step.NO_DATA
        except IncompleteMessage as error:
            raise Abort(Outcome.REQUEST_INCOMPLETE, str(error)) from None
        except ProtocolError as error:
            raise Abort(Outcome.MALFORMED, str(error)) from None
        except SipcError as error:  # a full disk makes only this request fail
            self.fail(Outcome.ABORTED, error.text)
            return Step.DONE
        self.progress |= Timeout.READ_IDLE | Timeout.WRITE_IDLE
        if buffer.reader.packets != packets or not buffer.reader.inside_packet:
            self.progress |= Timeout.PACKET
        return self._on_data()

    def _on_data(self) -> Step:
        """Start the handler, or write to it, after data of the request has arrived."""
        config, buffer = self.context.config, self.buffer
        if config.max_request is not None and buffer.reader.payload_bytes > config.max_request:
            raise Abort(Outcome.TOO_LARGE, f"more than {config.max_request} bytes")
        if config.quit_on is not None and not self.is_response_over and buffer.is_quit_request():
            self.record.is_quit = True
            buffer.discard()
            self.is_response_over = True
            self.writer.finish()
            return self._send()
        if self.io is not None:
            self._feed_handler(self.io)
        elif not buffer.is_discarding:
            self.must_start = buffer.reader.complete or (
                not self.needs_whole_request and buffer.is_started()
            )
        return Step.DONE

    def _send(self) -> Step:
        """Write as much of the response as possible without blocking."""
        pending = self.writer.pending
        try:
            while pending:
                count = self.stream.write_nowait(pending)
                self.progress |= Timeout.WRITE_IDLE
                if count == sum(map(len, pending)):
                    pending.clear()
                else:
                    consume(pending, count)
        except BlockingIOError:
            pass
        except PeerClosed:
            return self._on_hangup()
        return Step.DONE

    # -- the handler -----------------------------------------------------------------------

    def _start_handler(self) -> Step:
        """Start the handler, unless the client has closed; write to it the data received so far."""
        if is_hung_up(self.stream_fd):
            return self._on_hangup()
        handled = self.context.handled
        handled.add(self)
        has_others = len(handled) > 1  # before the start: what they hold may be free after it
        try:
            handler = self.context.handler
            if not self.may_block:
                run = handler.run_nowait(self.record.request, self.buffer.whole())
                if run is None:
                    handled.discard(self)
                    return Step.WOULD_BLOCK
            else:
                is_spooled = self.needs_whole_request and handler.accepts_spooled
                spooled = self.buffer.take_spool() if is_spooled else None
                run = handler.run(self.record.request, spooled, self.buffer.whole())
        except SipcError as error:
            handled.discard(self)
            if not has_others or not isinstance(error, Shortage):
                self.fail(Outcome.SPAWN_FAILED, error.text)
                return Step.DONE
            if not self.is_start_delayed:
                self.record.warnings.append(error.text)
            self.must_start, self.is_start_delayed = False, True
            self.progress |= Timeout.SHORTAGE
            return Step.DONE
        self.must_start = self.is_start_delayed = False
        self.io = io = HandlerIO(run)
        self.has_handler_timeout = self.context.config.handler_timeout is not None
        self.progress |= Timeout.HANDLER
        if run.call is not None:
            self.is_in_call = True
            self.context.calls.append((run, partial(self.on_called, io)))
        if run.input < 0:  # it has the whole request
            self.buffer.clear()
        elif io.feed(self.buffer):
            run.end_input()
        return Step.DONE

    def _feed_handler(self, io: HandlerIO) -> None:
        """Write the request to the handler without blocking; end its input after the last byte."""
        descriptor = io.run.input
        if descriptor >= 0 and io.feed(self.buffer):
            self.unregister(descriptor)
            io.run.end_input()  # without space for the flush, the descriptor is polled again
        if self.is_response_over and not io.wants_input(self.buffer):
            self._discard_rest()

    def _on_input(self, io: HandlerIO, events: int) -> Step:
        """Write to the handler, or stop writing if it has closed its input."""
        if events & HANGUP:
            io.abandon_input(self.buffer)
        self.progress |= Timeout.INPUT_DRAIN
        self._feed_handler(io)
        return Step.DONE

    def _discard_rest(self) -> None:
        """Read the rest of the request from the client and drop it."""
        self.buffer.discard()
        if self.io is not None:
            self.io.run.abandon_input()

    def _on_output(self, io: HandlerIO, events: int, sent: int = 0) -> Step:
        """Send the handler's output to the client."""
        try:
            pieces = io.read(self.buffers.response, events)
        except BlockingIOError:
            return Step.DONE
        self.progress |= Timeout.OUTPUT_LINGER
        if not self.is_client_gone:
            for piece in pieces:
                self.writer.write(piece)
        if io.run.output < 0:
            io.is_lingering = io.has_exited or io.run.is_persistent
            self._end_response(io.run.result())
        if sent:
            consume(self.writer.pending, sent)
        return self._send() if self.writer.pending else Step.DONE

    def _on_exit(self, io: HandlerIO, _events: int) -> Step:
        io.has_exited = io.is_lingering = True
        self.has_handler_timeout = False
        if io.run.output >= 0 and not self.writer.pending:
            return self._on_output(io, READ)  # its output has probably ended, too
        if io.run.output < 0:
            self._end_response(io.run.result())
        return self._send()

    def _end_response(self, result: Result | None) -> None:
        """End the response after the end of the output; add the flush if the handler succeeded."""
        io, buffer = self.io, self.buffer
        if result is None or io is None or self.is_response_over:
            return
        if result.request_unread and buffer.rewind():
            self.must_stop = self.must_start = True  # another run answers
            return
        self.has_handler_timeout = False
        self.is_response_over = True
        self.record.status = result.status
        if not result.succeeded:
            self.record.set_failure(Outcome.HANDLER_FAILED, result.text)
        elif not self.is_client_gone:
            self.writer.finish()
        is_unread = buffer.has_unsent or not buffer.reader.complete or io.run.input >= 0
        if is_unread and not (result.succeeded and io.wants_input(buffer)):
            self._discard_rest()

    def fail(self, outcome: Outcome, detail: str) -> None:
        """Leave the response truncated; read the rest of the request before closing."""
        self.record.set_failure(outcome, detail)
        self.must_start = self.is_start_delayed = False
        self.must_stop = True
        self.has_handler_timeout = False
        self.writer.pending.clear()
        self.is_response_over = True
        self._discard_rest()

    def _stop_handler(self) -> Step:
        """Stop the handler and its children. First close an ending exchange's connection."""
        self.unregister(*self.polled)
        if self.is_ending and not self.is_closed:
            self.is_closed = True
            self.stream.close()
            if self.buffer.spool is not None:
                self.buffer.spool.close()
        if self.io is not None:
            run = self.io.run
            try:
                if self.may_block:
                    run.stop(self.context.shutdown.killing)
                elif not run.stop_nowait():
                    return Step.WOULD_BLOCK
            except SipcError as error:
                self.record.warnings.append(error.text)
            except OSError as error:  # do not stop it again: its descriptors are closed
                self.record.warnings.append(f"cannot stop the handler: {error.strerror}")
            self.io = None
        self.must_stop = False
        return Step.DONE
