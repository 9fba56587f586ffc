"""The parts of an exchange: its state, its timeouts, and the bytes between client and handler.

exchange.py makes the decisions. RequestBuffer holds the bytes that have been read from the client
and not yet written to the handler: in the read buffer until the next read, then on disk. HandlerIO
writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from simpleipc_cli.deadline import NEVER, InactivityTimer
from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.pktline import Buffer, MessageReader, MessageWriter, consume
from simpleipc_cli.server.context import (
    DRAIN_IDLE_TIMEOUT,
    LINGER,
    Outcome,
    RequestRecord,
    ServerConfig,
    ServerContext,
)
from simpleipc_cli.server.handler import HandlerRun
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import HANGUP, Poller, Stream, WakeupEvent

_START_RETRY = 0.1  # seconds between tries to start a handler without resources (tunable)
_MAX_PIPE_CONTENT = 1 << 16  # bytes that a pipe holds (pipe(7))
_BUFFER_SIZE = 512 * 1024
"""Bytes per read: several full packets, but little memory for many requests."""


class Timeout:
    """The kinds of timeouts, as bits."""

    READ_IDLE = 1
    """The client must send more of its request."""
    PACKET = 2
    """The client must complete a packet."""
    WRITE_IDLE = 4
    """The client must read the response."""
    HANDLER = 8
    """The handler must end."""
    OUTPUT_LINGER = 16
    """The output must end after the handler has exited, or a worker exit after its output has
    ended."""
    INPUT_DRAIN = 32
    """A worker that has answered must read the rest of the request."""
    SHORTAGE = 64
    """The handler could not be started: another one must end first."""

    ABORTS: Final = {
        READ_IDLE: (Outcome.READ_TIMEOUT, "no data for {:g} s"),
        PACKET: (Outcome.READ_TIMEOUT, "a packet was not complete after {:g} s"),
        WRITE_IDLE: (Outcome.WRITE_TIMEOUT, "no data moved for {:g} s"),
    }
    """Those that end an exchange: the outcome, and the detail with the limit."""


def timeout_limits(config: ServerConfig) -> dict[int, float | None]:
    """Return the limit of each kind in seconds, those to report first at the front."""
    return {
        Timeout.READ_IDLE: config.read_timeout,
        Timeout.PACKET: config.read_timeout,
        Timeout.WRITE_IDLE: config.write_timeout,
        Timeout.HANDLER: config.handler_timeout,
        Timeout.OUTPUT_LINGER: LINGER,
        Timeout.INPUT_DRAIN: LINGER,
        Timeout.SHORTAGE: _START_RETRY,
    }


@dataclass(slots=True)
class Timeouts:
    """One inactivity timer for each kind, created when it first runs."""

    limits: dict[int, float | None]
    timers: dict[int, InactivityTimer] = field(default_factory=dict)

    def shorten_read_idle(self) -> None:
        """Use a short limit from the next reset on, as the server drains."""
        limit = min(self.limits[Timeout.READ_IDLE] or NEVER, DRAIN_IDLE_TIMEOUT)
        self.limits = {**self.limits, Timeout.READ_IDLE: limit}

    def update(self, now: float, *, running: int, progress: int) -> float:
        """Reset the timers in `progress`, then run those in `running` and pause the others.

        Return the monotonic time when the first expires, or NEVER.
        """
        due = NEVER
        for kind, limit in self.limits.items():
            timer = self.timers.get(kind)
            if timer is None:
                if not running & kind:
                    continue
                timer = self.timers[kind] = InactivityTimer(limit)
            elif progress & kind:
                timer.limit = limit
                timer.reset(now)
            timer.set_running(bool(running & kind), now)
            due = min(due, timer.expires_at())
        return due

    def expired(self, now: float) -> tuple[int, float]:
        """Return a kind that has expired, and its limit; 0 if no timer has expired."""
        for kind in self.limits:
            timer = self.timers.get(kind)
            if timer is not None and timer.limit is not None and timer.expires_at() <= now:
                return kind, timer.limit
        return 0, 0.0


@dataclass(slots=True)
class RequestBuffer:
    """One request on its way from the client to the handler."""

    buffer: memoryview
    """The buffer that the request is read into."""
    spool_folders: Sequence[str]
    is_held: bool
    """Whether the whole request is stored on disk before the handler gets it."""
    quit_on: bytes | None
    """The payload that asks the server to stop, if configured."""
    quit_matched: int = 0
    """Number of bytes that match `quit_on`; more than its length if a byte differs."""
    reader: MessageReader = field(default_factory=MessageReader)
    """Decodes the request, and detects whether it is complete."""
    chunks: list[Buffer] = field(default_factory=list)
    """The next bytes for the handler; load() reads more of them from disk."""
    spool: Spool | None = None
    """The bytes after `chunks`, on disk."""
    has_unsent: bool = False
    """Whether `chunks` or `spool` has bytes for the handler."""
    is_discarding: bool = False
    """Whether the rest is dropped as it arrives."""
    sent_prefix: bytearray = field(default_factory=bytearray)
    """The bytes written to a persistent handler, as long as they fit into a pipe."""
    sent_bytes: int = 0
    received: int = 0
    """Bytes in the buffer that have been read before; read() takes them first."""

    def is_started(self) -> bool:
        """Return whether the handler must start: the request has payload, or is complete.

        A prefix of the quit request does not start it.
        """
        if self.reader.complete:
            return True
        if self.quit_on is not None and self.quit_matched <= len(self.quit_on):
            return False
        return self.reader.payload_bytes > 0

    def is_quit_request(self) -> bool:
        """Return whether the request is complete and asks the server to stop."""
        text = self.quit_on
        return text is not None and self.reader.complete and self.quit_matched == len(text)

    def read(self, stream: Stream) -> bool:
        """Read from the client; return False at the end of the stream.

        Raises BlockingIOError without data, ProtocolError, IncompleteMessage at an end before the
        flush, and SipcError if the disk is full.
        """
        if self.chunks and not self.spool:
            self._store(self.chunks)  # they are in the buffer that this read will overwrite
            self.chunks = []
        count, self.received = self.received or stream.read_nowait(self.buffer), 0
        if not count:
            self.reader.feed_eof()
            return False
        payload: list[Buffer] = list(self.reader.feed(self.buffer[:count]))
        if self.quit_on is not None:
            self._match(self.quit_on, payload)
        if payload and not self.is_discarding:
            if self.is_held or self.has_unsent:
                self._store(payload)
            else:
                self.chunks = payload
            self.has_unsent = True
        return True

    def _match(self, text: bytes, payload: list[Buffer]) -> None:
        for piece in payload:
            end = self.quit_matched + len(piece)
            is_equal = text[self.quit_matched : end] == piece
            self.quit_matched = end if is_equal else len(text) + 1

    def _store(self, payload: list[Buffer]) -> None:
        if self.spool is None:
            self.spool = Spool(*self.spool_folders)
        self.spool.append(payload)

    def take_spool(self) -> Spool | None:
        """Return the whole request, which the caller closes; None if it is in memory."""
        if self.spool is None and self.is_held:
            self.spool = Spool(*self.spool_folders)
        return self.spool

    def whole(self) -> list[Buffer] | None:
        """Return the whole request if it has arrived and is in memory."""
        return self.chunks if self.reader.complete and self.spool is None else None

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
        """Queue all bytes from remember() for another handler; return whether that is possible.

        It is possible as long as all written bytes fit into a pipe.
        """
        if self.is_discarding or self.sent_bytes != len(self.sent_prefix):
            return False
        if self.sent_prefix:
            self.chunks.insert(0, bytes(self.sent_prefix))
            self.has_unsent = True
        self.sent_prefix.clear()
        self.sent_bytes = 0
        return True

    def clear(self) -> None:
        """Drop the bytes for the handler that are in memory."""
        self.has_unsent = False
        self.chunks = []

    def discard(self) -> None:
        """Drop the bytes for the handler, and all bytes that are read from now on."""
        self.is_discarding = True
        self.clear()
        if self.spool is not None:
            self.spool.close()


class IoBuffers:
    """The two buffers of one exchange; the dispatcher reuses them. Unused pages take no memory."""

    received = 0
    """Bytes of a request that have been read before it is started."""

    def __init__(self) -> None:
        self.request = memoryview(bytearray(_BUFFER_SIZE))
        self.response = memoryview(bytearray(_BUFFER_SIZE))


@dataclass(slots=True)
class HandlerIO:
    """One run of the handler; writes the request buffer to it."""

    run: HandlerRun
    has_exited: bool = False
    is_lingering: bool = False
    """Whether the run is about to end: a handler has exited but its output is still open, or the
    output of a worker has ended but it has not exited."""
    pieces: list[memoryview] | None = None
    """The part of the response that read() returns next, if it has been read already."""

    def wants_input(self, request: RequestBuffer) -> bool:
        """Return whether the handler gets the rest of the request even after its response."""
        return self.run.is_persistent and self.run.input >= 0 and not request.is_discarding

    def feed(self, request: RequestBuffer) -> bool:
        """Write without blocking; return whether the whole request is written.

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
            if not self.drop_written(request, count):
                return False  # a short write: the poller reports when there is space
        return request.reader.complete and not request.is_discarding

    def drop_written(self, request: RequestBuffer, count: int) -> bool:
        """Drop `count` bytes of `chunks`, which the run has; return whether that is all of them."""
        if self.run.is_persistent:
            request.remember(count)
        if count < sum(map(len, request.chunks)):
            consume(request.chunks, count)
            return False
        request.chunks = []
        request.has_unsent = bool(request.spool)
        return True

    def read(self, buffer: memoryview, events: int) -> list[memoryview]:
        """Read the response; if all writers have closed, the end of it, too.

        Then a small response and its flush are sent together. Raises BlockingIOError.
        """
        if self.pieces is not None:
            pieces, self.pieces = self.pieces, None
            return pieces
        pieces = self.run.read(buffer)
        if events & HANGUP and pieces and not self.run.is_persistent:
            rest = buffer[len(pieces[0]) :]
            try:
                pieces += self.run.read(rest) if rest else []
            except BlockingIOError:
                pass  # another process has opened the pipe again (proc(5))
        return pieces

    def abandon_input(self, request: RequestBuffer) -> None:
        """Stop writing, because the handler has closed its input.

        A worker may be about to exit without reading the request: then another worker gets it.
        """
        self.run.abandon_input()
        if not self.run.is_persistent:
            request.discard()


class Step:
    """The result of a step. (No Enum, as it takes longer to read a member.)"""

    DONE: ClassVar[Step]
    NO_DATA: ClassVar[Step]
    """The client has sent nothing."""
    WOULD_BLOCK: ClassVar[Step]
    """The step has changed nothing and must be repeated on a worker thread."""


Step.DONE, Step.NO_DATA, Step.WOULD_BLOCK = Step(), Step(), Step()


@dataclass(eq=False)
class Abort(Exception):
    """Ends the exchange without a complete response."""

    outcome: Outcome
    detail: str


@dataclass(slots=True, eq=False)
class ExchangeState:
    """The fields of an exchange."""

    context: ServerContext
    on_change: Callable[..., None]
    """Called with the exchange after each step on the event loop that sets `is_over` or
    `needs_thread`, or makes `due` earlier."""
    stream: Stream
    stream_fd: int
    record: RequestRecord
    buffers: IoBuffers
    buffer: RequestBuffer
    timeouts: Timeouts
    poller: Poller
    needs_thread: bool

    writer: MessageWriter = field(default_factory=MessageWriter)
    io: HandlerIO | None = None
    is_over: bool = False

    polled: dict[int, int] = field(default_factory=dict)
    """The polled events by descriptor."""
    may_block: bool = False
    """Whether the exchange runs on a worker thread, where it may block."""
    is_draining: bool = False
    due: float = NEVER
    """Monotonic time at which to call resume() if no event occurs."""
    running: int = 0
    """The timeouts that run."""
    progress: int = 0
    """The timeouts to reset, before they run again."""
    has_handler_timeout: bool = False

    must_start: bool = False
    """Whether the handler must be started next."""
    is_start_delayed: bool = False
    """Whether it must be started after a while."""
    must_stop: bool = False
    """Whether the handler must be stopped next."""
    is_in_call: bool = False
    """Whether the run is called next, or is being called; there is nothing to poll for yet."""
    is_response_over: bool = False
    """Whether the whole response, complete or truncated, is in `writer`."""
    has_stream_ended: bool = False
    """Whether the client has ended its request stream; it may still read."""
    is_client_gone: bool = False
    """Whether the client has also stopped reading; its handler may finish."""
    is_closed: bool = False
    """Whether the connection is closed."""
    is_ending: bool = False

    def adopt(self, run: HandlerRun, written: int, pieces: list[memoryview] | None) -> None:
        """Take over a run that has `written` bytes of the request, which is in the buffer.

        `pieces` have been read of its response.
        """
        self.buffer.read(self.stream)
        self.io = io = HandlerIO(run, pieces=pieces)
        if run.input < 0 and not run.is_persistent:
            self.buffer.clear()
        else:
            io.drop_written(self.buffer, written)
        self.has_handler_timeout = self.context.config.handler_timeout is not None
        self.progress |= Timeout.HANDLER
        self.is_in_call = run.call is not None
        self.context.handled.add(self)

    def unregister(self, *descriptors: int) -> None:
        """Stop polling these descriptors."""
        for descriptor in descriptors:
            if self.polled.pop(descriptor, None) is not None:
                self.poller.unregister(descriptor)

    def is_request_done(self) -> bool:
        """Return whether the request is complete, and read by a persistent handler."""
        if not self.buffer.reader.complete:
            return self.is_client_gone
        io = self.io  # the second condition is cheap, and false for most handlers
        return io is None or not io.run.is_persistent or not io.wants_input(self.buffer)

    @property
    def needs_whole_request(self) -> bool:
        """Whether the handler starts only when the request is complete."""
        context = self.context
        return context.config.whole_request or context.handler.needs_whole_request

    def shutdown_event(self) -> WakeupEvent:
        """Return the event of the next phase of the shutdown."""
        shutdown = self.context.shutdown
        return shutdown.aborting if self.is_draining else shutdown.draining

    def on_shutdown_phase(self, _events: int) -> Step:
        """Enter the next phase of the shutdown."""
        if self.is_draining:
            raise Abort(Outcome.ABORTED, "the server stopped before the response was complete")
        self.is_draining = True
        self.timeouts.shorten_read_idle()
        self.progress |= Timeout.READ_IDLE
        return Step.DONE
