"""One connection from its first byte to its end: the request in, the response out.

An exchange is stepped by whoever waits for what it waits for. That is the desk first, together
with all others: there nothing may wait. What might, or takes its time, is carried on by a
thread of its own. What keeps it free of deadlock: a request is read as fast as the handler
takes it, and while the response cannot be written because the client does not read, it is read
ahead onto disk, for the client may be one that writes its whole request before it reads. A
response is never stored: a client that reads slowly slows the handler.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic

from simpleipc_cli.errors import CutOff, PeerGone, ProtocolError, SipcError
from simpleipc_cli.message import MessageWriter
from simpleipc_cli.server.clocks import Clocks
from simpleipc_cli.server.handler import Handler, Request, Run
from simpleipc_cli.server.intake import Intake
from simpleipc_cli.server.limits import DRAIN_SILENCE, LINGER, Limits
from simpleipc_cli.server.log import Outcome, Record
from simpleipc_cli.server.running import Running
from simpleipc_cli.server.stages import Stages, Workspace
from simpleipc_cli.server.stepwise import MightWait, Ready, Stepwise
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import HANGUP, READ, WRITE, Poller, Stream, new_poller

_MUCH = 1 << 20  # bytes after which an exchange gets a thread: others shall not wait, at will
_A_PACKET = 256  # bytes that can be moved while one packet is looked at, and more; at will


class _Over(Exception):
    """The exchange ends here, without a complete response."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Exchange(Stepwise):
    """One request being received, handled and answered."""

    def __init__(
        self,
        stream: Stream,
        request: Request,
        *,
        handler: Handler,
        limits: Limits,
        stages: Stages,
        workspace: Workspace,
        poller: Poller,
        owners: dict[int, Exchange],
    ) -> None:
        """Takes over the stream, from which at least one byte can be read. See Stepwise."""
        super().__init__(poller, owners)
        self.record = Record(request.id, request.peer)
        self.workspace = workspace
        """Lent by the desk, until this is over."""

        self._stream = stream
        self._request = request
        self._handler = handler
        self._limits = limits
        self._stages = stages

        self._intake = Intake(
            workspace.request,
            limits.spool_folder,
            hold=limits.whole_request,
            watchword=limits.quit_on,
        )
        self._stream_ended = False  # the client writes no more; it may still read
        self._client_gone = False  # ... and this one does not, but its handler may finish
        self._hung_up = False  # we have

        self._running = Running(self._lookout, self._intake)
        self._writer = MessageWriter()
        self._response_over = False  # its last byte, or its flush, is in the writer

        self._clocks = Clocks(limits)
        self._latch = stages.drain
        self.needs_thread = limits.whole_request  # a disk is waited for
        self._again = self._receive

    # -- the whole of it ---------------------------------------------------------------

    def heed_stop(self) -> None:
        """The server's stop has come a stage further; only for one without a thread."""
        self.step([(self._latch.fileno(), HANGUP)])

    def carry_on(self) -> None:
        """See Stepwise."""
        if not self._hung_up:
            self._lookout.watch(self._latch.fileno(), 0)
        super().carry_on()

    def _step(self, ready: Ready) -> None:
        try:
            if ready and not self._hung_up:
                self._on_ready(ready)
            self._do_again()
            if self.over:
                return
            done = self._is_done()
            if not done:
                now = monotonic()
                if now >= self.due:
                    self._check_time(now)
                    done = self._is_done()
            if not done:
                self._watch(now)
                return
        except _Over as over:
            self._set_outcome(over.outcome, over.detail)
        except SipcError as error:
            self._set_outcome(Outcome.BROKEN, error.text)
        self._end()

    def _is_done(self) -> bool:
        """The client has sent all and been given all, and so has a handler that stays."""
        if not self._response_over or self._writer.pending:
            return False
        if self._intake.complete:
            return not self._running.feeding
        return self._client_gone

    def _set_outcome(self, outcome: Outcome, detail: str) -> None:
        """The first thing that went wrong is what the request is remembered by."""
        if self.record.outcome is Outcome.ANSWERED:
            self.record.outcome = outcome
            self.record.detail = detail

    def _end(self) -> None:
        """Hang up first: an end of what the handler started may take its time."""
        self._hang_up()
        self._stop_run(self._end)
        self._finish()

    def _hang_up(self) -> None:
        if self._hung_up:
            return
        self._hung_up = True
        self.record.bytes_in = self._intake.payload_bytes
        self.record.bytes_out = self._writer.payload_bytes
        if self._intake.trailing_bytes:
            self.record.notes.append(f"{self._intake.trailing_bytes} bytes behind the flush")
        self._lookout.forget(self._stream.fileno())
        self._stream.close()
        self._intake.close()

    def _break_off(self, error: Exception) -> None:
        self._set_outcome(Outcome.BROKEN, repr(error))
        try:
            self._hang_up()
            self._stop_run(self._end)
        except MightWait:
            raise
        except Exception as another:
            self.record.warnings.append(repr(another))

    def _on_ready(self, ready: Ready) -> None:
        run = self._running.run
        for descriptor, what in ready:
            if descriptor == self._stream.fileno():
                self._on_stream(what)
            elif descriptor == self._latch.fileno():
                self._on_stop()
            elif run is None or run is not self._running.run:
                continue  # ended by something that came before in the same list
            elif descriptor == run.output:
                self._on_output(run)
            elif descriptor == run.input:
                self._on_input(what)
            elif descriptor == run.exit:
                self._on_exit(run)

    # -- what is waited for, and how long --------------------------------------------------

    def _watch(self, now: float) -> None:
        """Tell poller and watches what is due next."""
        intake, running = self._intake, self._running
        reading = self._wants_request()
        writing = bool(self._writer.pending)
        self.due = self._clocks.watch(
            now,
            receiving=reading and not intake.complete,
            inside=intake.inside_packet,
            writing=writing,
            linger=running.lingering and not self._response_over and not writing,
            rest=self._response_over and running.owes_reading,
        )
        if not self._client_gone:
            self._lookout.watch(
                self._stream.fileno(), (READ if reading else 0) | (WRITE if writing else 0)
            )
        running.watch(blocked=writing)
        moved = intake.payload_bytes + self._writer.payload_bytes
        if moved + intake.packets * _A_PACKET > _MUCH:
            self.needs_thread = True

    def _wants_request(self) -> bool:
        """Whether to read from the client: see the module's first paragraph."""
        if self._stream_ended:
            return False
        if self._running.run is None or not self._intake.waiting:
            return True
        return bool(self._writer.pending)

    def _check_time(self, now: float) -> None:
        """Give up on whoever has used up all patience."""
        clocks = self._clocks
        if clocks.silence.left(now) == 0.0:
            raise _Over(Outcome.SILENT, f"silent for {clocks.silence.limit:g} s")
        if clocks.packet.left(now) == 0.0:
            raise _Over(Outcome.SILENT, f"not done with one packet for {clocks.packet.limit:g} s")
        if clocks.stall.left(now) == 0.0:
            raise _Over(Outcome.STUCK, f"no byte moved for {clocks.stall.limit:g} s")
        if clocks.handling.left(now) == 0.0:
            self._fail(Outcome.TIMED_OUT, f"not done in {clocks.handling.limit:g} s")
        if clocks.linger.left(now) == 0.0:
            if self._running.exited:
                self.record.warnings.append(
                    "the handler has exited, but something holds its output open"
                )
            self._running.end_output()
            self._conclude()
        if clocks.rest.left(now) == 0.0:
            self.record.warnings.append(f"the worker did not read on for {LINGER:g} s")
            self._running.discard_request()

    def _on_stop(self) -> None:
        """The server is stopping: be less patient, or give up."""
        self._lookout.forget(self._latch.fileno())
        if self._latch is self._stages.drain:
            if self._clocks.silence.limit is None or self._clocks.silence.limit > DRAIN_SILENCE:
                self._clocks.silence.limit = DRAIN_SILENCE
                self._clocks.silence.restart(monotonic())
            self._latch = self._stages.end
            if self._may_wait:
                self._lookout.watch(self._latch.fileno(), 0)
        else:
            raise _Over(Outcome.STOPPED, "the server was stopped before the answer was complete")

    # -- the client ------------------------------------------------------------------------

    def _on_stream(self, what: int) -> None:
        if what & HANGUP:
            self._on_hangup()
            return
        if what & WRITE:
            self._send()
        if what & READ:
            self._receive()

    def _on_hangup(self) -> None:
        """The client has closed. Its handler goes with it, unless it may finish."""
        if self._response_over and not self._writer.pending:
            self._lookout.forget(self._stream.fileno())
            self._client_gone = True  # it has all it wanted, and need not write on
            return
        if self._limits.finish_on_hangup and self._running.run is not None:
            while not self._intake.complete:
                if not self._receive():  # it only stopped reading: nothing to wait for
                    raise _Over(Outcome.HUNG_UP, "before its request was complete")
            self._lookout.forget(self._stream.fileno())
            self._client_gone = True
            self._stream_ended = True
            self._writer.drop()
            self._set_outcome(Outcome.HUNG_UP, "the handler was allowed to finish")
            return
        if self._intake.complete:
            raise _Over(Outcome.HUNG_UP, "before the answer was complete")
        raise _Over(Outcome.CUT_OFF, "the client hung up before its request was complete")

    def _receive(self) -> bool:
        """Take what the client has written; False if there is nothing now."""
        intake = self._intake
        if intake.stores_next and not self._may_wait:
            raise MightWait(self._receive)
        packets = intake.packets
        try:
            self._stream_ended = not intake.read(self._stream)
        except BlockingIOError:
            return False
        except CutOff as error:
            raise _Over(Outcome.CUT_OFF, str(error)) from None
        except ProtocolError as error:
            raise _Over(Outcome.MALFORMED, str(error)) from None
        except SipcError as error:  # a full disk is the end of this request alone
            self._fail(Outcome.BROKEN, error.text)
            return True
        if self._stream_ended:
            return True
        now = monotonic()
        self._clocks.silence.restart(now)
        self._clocks.stall.restart(now)
        if intake.packets != packets or not intake.inside_packet:
            self._clocks.packet.restart(now)
        self._hand_over()
        return True

    def _hand_over(self) -> None:
        """Give the handler what came, once there is reason to start one."""
        most = self._limits.max_request
        if most is not None and self._intake.payload_bytes > most:
            raise _Over(Outcome.TOO_LARGE, f"more than {most} bytes")
        if self._intake.is_watchword and not self._response_over:
            self._quit()
            return
        whole = self._limits.whole_request
        due = self._intake.complete if whole else self._intake.begun
        if self._running.run is None and due and not self._intake.unwanted:
            self._start(self._intake.held if whole else None)
        self._feed()

    def _quit(self) -> None:
        """It was asked for the server's end: that is answered with a flush."""
        self.record.quits = True
        self._intake.discard()
        self._response_over = True
        self._writer.finish()
        self._send()

    def _send(self) -> None:
        """Write as much of the response as the client takes."""
        pending = self._writer.pending
        try:
            while pending:
                self._writer.written(self._stream.write_now(pending))
                self._clocks.stall.restart(monotonic())
        except BlockingIOError:
            return
        except PeerGone:
            self._on_hangup()

    # -- the handler -----------------------------------------------------------------------

    def _start(self, stored: Spool | None) -> None:
        """Start the handler, unless the client is gone."""
        if self._is_client_gone():
            self._on_hangup()
        try:
            self._running.begin(self._new_run(stored))
        except BlockingIOError:
            raise MightWait(self._hand_over) from None
        except SipcError as error:
            self._fail(Outcome.NOT_STARTED, error.text)
            return
        self._clocks.begin_handling(monotonic())

    def _new_run(self, stored: Spool | None) -> Run:
        """Raises SipcError, and BlockingIOError where it would have to wait and may not."""
        if not self._may_wait:
            return self._handler.start_now(self._request)
        return self._handler.start(self._request, stored if self._handler.takes_stored else None)

    def _is_client_gone(self) -> bool:
        poller = new_poller()
        poller.register(self._stream.fileno(), 0)
        gone = bool(poller.wait(0))
        poller.unregister(self._stream.fileno())
        poller.close()
        return gone

    def _on_input(self, what: int) -> None:
        """The handler takes more of the request, or will take no more of it."""
        if what & HANGUP:
            self._running.lose_input()
            self._drop_unwanted()
        elif what & WRITE:
            self._clocks.rest.restart(monotonic())
            self._feed()

    def _feed(self) -> None:
        self._running.feed()
        self._drop_unwanted()

    def _drop_unwanted(self) -> None:
        """Behind an answer, the rest of the request is for who stays and reads on, or nobody."""
        if self._response_over and not self._running.feeding:
            self._running.discard_request()

    def _on_output(self, run: Run) -> None:
        """Take what the handler has written, and pass it on."""
        try:
            pieces = self._running.read(run, self.workspace.response)
        except BlockingIOError:
            return
        self._clocks.linger.restart(monotonic())
        if not self._client_gone:
            for piece in pieces:
                self._writer.write(piece)
        if run.output < 0:
            self._finish_response()
        self._send()

    def _on_exit(self, run: Run) -> None:
        self._running.on_exit(run)
        self._clocks.end_handling()
        self._conclude()

    def _conclude(self) -> None:
        self._finish_response()
        self._send()

    def _finish_response(self) -> None:
        """Once output and handler have ended: a flush, or none, so that the client knows."""
        result = self._running.result()
        if result is None or self._response_over:
            return
        if result.untouched and self._intake.rewind():
            self._start_again()
            return
        self._clocks.end_handling()
        self.record.status = result.status
        self._response_over = True
        if result.succeeded:
            if not self._client_gone:
                self._writer.finish()
        else:
            self._set_outcome(Outcome.FAILED, result.text)
            self._running.discard_request()
        self._drop_unwanted()

    def _start_again(self) -> None:
        """What was handed the request had ended before it looked at it: the next, please."""
        self._stop_run(self._conclude)
        self._start(None)
        self._feed()

    def _fail(self, outcome: Outcome, detail: str) -> None:
        """No complete response will come; the client is still heard out, then told."""
        self._set_outcome(outcome, detail)
        self._stop_run(partial(self._fail, outcome, detail))
        self._clocks.end_handling()
        self._writer.drop()
        self._response_over = True
        self._running.discard_request()

    def _stop_run(self, again: Callable[[], object]) -> None:
        """End the handler and whatever it left behind; where that might wait, `again` there."""
        try:
            if self._may_wait:
                self._running.stop(self._limits.kill_after, self._stages.hurry)
            else:
                self._running.stop_now()
        except BlockingIOError:
            raise MightWait(again) from None
        except SipcError as error:
            self.record.warnings.append(error.text)
