"""A persistent handler process: reads requests from its standard input, writes responses.

Each message is a sequence of packets that ends with a flush, as on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, sleep

from simpleipc_cli.errors import PeerClosed, ProtocolError, SipcError
from simpleipc_cli.handlers.base import Program
from simpleipc_cli.pktline import (
    FLUSH_PACKET,
    HEADER_SIZE,
    MAX_PAYLOAD,
    Buffer,
    MessageReader,
    find_whole,
)
from simpleipc_cli.process import WorkerPipes, describe
from simpleipc_cli.server.context import LINGER
from simpleipc_cli.server.handler import HandlerRun, Result
from simpleipc_cli.text import quoted
from simpleipc_cli.transport import READ, WakeupEvent, new_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.handlers.stderr import LoggedStderr

_EXIT_TIMEOUT = 1.0  # seconds from the end of the worker's input to SIGTERM (tunable)
_MAX_QUOTED = 60  # bytes of unexpected output in a message (tunable)
_POLL_INTERVAL = 0.005  # seconds between checks of unread input; there is no event (tunable)
_ANSWERED = Result(True, "-", "answered")
_STATUS_DELAY = 0.1  # seconds to wait for the exit after the end of the output (tunable)


class Worker:
    """A running worker process, and the server's ends of its pipes."""

    def __init__(self, program: Program, slot: int, generation: int, request_id: str) -> None:
        """Start the process for a request. A replacement may get the same `slot`.

        Raises SipcError.
        """
        self.slot = slot
        self.generation = generation
        errors = program.stderr
        self.pipes = WorkerPipes(None, None if errors is None else errors.of_child)
        environment = {**program.environment, "SIPC_WORKER": str(slot)}
        self.process = self.pipes.spawn(program.command, environment, program.limit, {})
        self.stderr: LoggedStderr | None = None
        if errors is not None:
            self.stderr = errors.watch(self.pipes.errors, self.process.pid, request_id)
        self.requests = 0
        self.responses = 0
        """Number of complete responses."""
        self._grace_period = program.grace_period
        self._idle_since = 0.0
        try:
            self._poller = new_poller()  # kept, as each request polls an idle worker
            self._poller.register(self.pipes.output, READ)
            self._poller.register(self.pipes.input, 0)
        except OSError as error:
            self.process.stop(0.0, None)
            self._close_pipes()
            raise SipcError(f"cannot poll the worker: {error.strerror}") from error

    def __str__(self) -> str:
        return f"worker {self.slot} (process {self.process.pid})"

    def is_ready(self) -> bool:
        """Return whether the worker has read all its input, and not written after its response."""
        try:
            return not self.pipes.unread() and not self._poller.wait(0)
        except (OSError, SipcError):
            return False  # unexpected_output() returns the reason

    def mark_idle(self) -> None:
        """Record that the worker is idle."""
        self._idle_since = monotonic()

    def unexpected_output(self) -> str | None:
        """Describe the output or exit of an idle worker; return None if there was none.

        After its response it has LINGER seconds to read the rest of its last request. Unread bytes
        in the pipe would delay the next client.
        """
        try:
            has_read_all = self._reads_all()
            ready = [descriptor for descriptor, _ in self._poller.wait(0)]
        except (OSError, SipcError) as error:
            return f"cannot be checked ({getattr(error, 'strerror', error)})"
        if self.pipes.output in ready:
            return self._describe_output()
        if self.pipes.input in ready:
            return "closed its standard input"
        return None if has_read_all else f"did not read the rest of its request within {LINGER:g} s"

    def _reads_all(self) -> bool:
        while self.pipes.unread():
            if self.process.status() is not None or monotonic() >= self._idle_since + LINGER:
                return False
            sleep(_POLL_INTERVAL)
        return True

    def _describe_output(self) -> str | None:
        """Describe the worker's output, or how the output ended."""
        buffer = memoryview(bytearray(_MAX_QUOTED))
        try:
            data = b"".join(self.pipes.read(buffer))
        except BlockingIOError:
            return None
        if data:
            return f"wrote {quoted(data)}"
        self.process.wait(_STATUS_DELAY, None)
        status = self.process.status()
        return "closed its standard output" if status is None else f"ended: {describe(status)[1]}"

    def stop(self, kill_now: WakeupEvent | None, *, end_input: bool) -> None:
        """Stop the process and its group. Raises SipcError.

        `end_input`: close the input first, so that an idle worker can exit. Otherwise the input
        stays open until the worker has been stopped.
        """
        try:
            if end_input:
                self.pipes.end_input()
                with suppress(SipcError):  # stop() below reports errors
                    self.process.wait(min(self._grace_period, _EXIT_TIMEOUT), kill_now)
            self.process.stop(self._grace_period, kill_now)
        finally:
            self._poller.close()
            self._close_pipes()

    def _close_pipes(self) -> None:
        if self.stderr is not None:
            self.stderr.close()
        self.pipes.close()


class WorkerRun(HandlerRun):
    """Answers one request with a worker."""

    is_persistent = True
    failure = ""
    """The worker's error."""
    unexpected_output = ""
    """The worker's output after the end of its response, quoted."""
    request_unread = False
    """Whether the worker failed without reading a byte of the request."""
    is_complete = False
    """Whether the worker has written the whole response."""
    # The packet being written. Its length has been written. The caller passes unwritten bytes
    # again, so the rest of the packet follows.
    _header = b""
    _left = 0
    _flush = FLUSH_PACKET  # its unwritten part
    _written = 0
    _reader: MessageReader | None = None  # of a response that has not arrived in one packet
    _wrote_nothing = True
    _output_ended_at = 0.0
    _failure_result: Result | None = None

    def __init__(
        self,
        worker: Worker,
        can_keep: Callable[[Worker], bool],
        on_stopped: Callable[[WorkerRun, WakeupEvent | None], None],
    ) -> None:
        """stop() calls `on_stopped`; this does not block if is_reusable and `can_keep` are true."""
        self.worker = worker
        self.input = worker.pipes.input
        self.output = worker.pipes.output
        self.exit = worker.process.descriptor
        self._can_keep = can_keep
        self._on_stopped = on_stopped

    @property
    def is_reusable(self) -> bool:
        """Whether the worker has read the whole request and written exactly one response."""
        return self.is_complete and not self._flush and not self.unexpected_output

    # -- the request -----------------------------------------------------------------------

    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:
        taken = 0
        try:
            for number, buffer in enumerate(payload, 1):
                piece = memoryview(buffer)
                while piece:
                    count = self._write_piece(piece, last=last and number == len(payload))
                    taken += count
                    piece = piece[count:]
                    if self._header or (self._left and piece):
                        return taken  # the pipe is full
        except BlockingIOError:
            if not taken:
                raise
        except PeerClosed:
            if not taken:
                raise PeerClosed("the worker has closed its standard input") from None
        return taken

    def _write_piece(self, piece: memoryview, *, last: bool) -> int:
        """Write one packet without blocking; after the last packet of the request, the flush."""
        if not self._left:
            self._left = min(len(piece), MAX_PAYLOAD)
            self._header = b"%04x" % (self._left + HEADER_SIZE)
        body = piece[: self._left]
        ends = last and len(body) == len(piece)
        buffers: list[Buffer] = [self._header, body]
        if ends:
            buffers.append(self._flush)
        count = self.worker.pipes.write(buffers)
        self._written += count
        of_header = min(count, len(self._header))
        self._header = self._header[of_header:]
        of_body = min(count - of_header, len(body))
        self._left -= of_body
        self._flush = self._flush[count - of_header - of_body :]
        return of_body

    def end_input(self) -> None:
        try:
            if self._flush and self.input >= 0:
                count = self.worker.pipes.write([self._flush])
                self._written += count
                self._flush = self._flush[count:]
        except BlockingIOError:
            return
        except PeerClosed:
            pass
        self.abandon_input()

    def abandon_input(self) -> None:
        """Keep the pipe open: closing it would end the worker's input."""
        self.input = -1

    # -- the response ----------------------------------------------------------------------

    def read(self, buffer: memoryview) -> list[memoryview]:
        data = self.worker.pipes.read(buffer)
        if not data:
            self.output = -1
            self._output_ended_at = monotonic()
            return []
        self._wrote_nothing = False
        payload = find_whole(data[0]) if self._reader is None else None
        if payload is not None:
            self.is_complete = True
            self.output = -1
            return [payload]
        pieces = self._decode(*data)
        if not pieces and self.output >= 0:
            raise BlockingIOError  # only part of a packet's header
        return pieces

    def _decode(self, data: memoryview) -> list[memoryview]:
        """Return the payload in `data`; end the output at the flush or at a malformed packet."""
        pieces = []
        self._reader = reader = self._reader or MessageReader()
        try:
            for piece in reader.feed(data):
                pieces.append(piece)  # noqa: PERF402 - keeps the pieces before a malformed packet
        except ProtocolError as error:
            bad = data[max(0, len(data) - reader.unread - HEADER_SIZE) :]
            self.failure = f"wrote a malformed packet: {error}: {quoted(bad[:_MAX_QUOTED])}"
            self.output = -1
        if reader.complete:
            self.is_complete = True
            self.output = -1
            end = len(data) - reader.trailing_bytes
            if end < len(data):
                self.unexpected_output = quoted(data[end:][:_MAX_QUOTED])
        return pieces

    def result(self) -> Result | None:
        if self.is_complete:
            return _ANSWERED
        if self._failure_result is None and self.output < 0:
            self._failure_result = self._find_failure()
        return self._failure_result

    def _find_failure(self) -> Result | None:
        """Return why the output ended within the response; None if the worker may exit soon."""
        process = self.worker.process
        if (
            not self.failure
            and process.status() is None
            and monotonic() < self._output_ended_at + LINGER
        ):
            return None  # wait for the exit status, which explains more
        # Unread bytes stay in the pipe, even after the worker's exit.
        self.request_unread = self.worker.pipes.unread() == self._written
        may_retry = False
        status = None if self.failure else process.status()
        if status is not None:
            self.failure = f"ended before its response was complete: {describe(status)[1]}"
            # A worker that exits after a response may get another request just before it exits.
            may_retry = self.worker.responses > 0 and self._wrote_nothing and self.request_unread
        self.failure = self.failure or "closed its standard output before its response was complete"
        status_word = "-" if status is None else describe(status)[0]
        return Result(False, status_word, f"{self.worker} {self.failure}", request_unread=may_retry)

    def kill(self) -> None:
        self.worker.process.kill()

    def stop_nowait(self) -> bool:
        if not self.is_reusable or not self._can_keep(self.worker):
            return False
        self.stop(None)
        return True

    def stop(self, kill_now: WakeupEvent | None) -> None:
        """Keep the worker if it is reusable, else stop it."""
        self.worker.requests += 1
        self.worker.responses += self.is_complete
        self._on_stopped(self, kill_now)
