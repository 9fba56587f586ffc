"""The state of one exchange: its fields, its timeouts, and what all exchanges share.

exchange.py decides what changes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from simpleipc_cli.deadline import NEVER, InactivityTimer
from simpleipc_cli.pktline import MessageWriter
from simpleipc_cli.server.config import LINGER, ServerConfig
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.handler_io import HandlerIO, IoBuffers, RequestBuffer
from simpleipc_cli.server.log import Counters, Log, Outcome, RequestRecord
from simpleipc_cli.transport import (
    Poller,
    Stream,
    WakeupEvent,
    new_scalable_poller,
    new_wakeup_event,
)


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
    """The output of a handler that has exited must end, or a worker without output must exit."""
    INPUT_DRAIN = 32
    """A worker that has answered must read the rest of the request."""


_KINDS = (
    Timeout.READ_IDLE,
    Timeout.PACKET,
    Timeout.WRITE_IDLE,
    Timeout.HANDLER,
    Timeout.OUTPUT_LINGER,
    Timeout.INPUT_DRAIN,
)


class Shutdown:
    """One event for each phase; a phase that has begun does not end."""

    def __init__(self) -> None:
        """Raises OSError without free descriptors."""
        self.draining: WakeupEvent = new_wakeup_event()
        """Answer all connected clients, but wait only briefly for those that send nothing."""
        self.aborting: WakeupEvent = new_wakeup_event()
        """End every request now; handlers get their grace period."""
        self.killing: WakeupEvent = new_wakeup_event()
        """End handlers without a grace period."""

    def close(self) -> None:
        """Free the descriptors."""
        for phase in (self.draining, self.aborting, self.killing):
            phase.close()


@dataclass(slots=True, eq=False)
class ServerContext:
    """What all parts of a server share."""

    path: str
    """The endpoint's absolute path."""
    handler: Handler
    config: ServerConfig
    log: Log
    observe: Callable[[Stream, str], Stream] | None
    """Wraps a request's stream; also gets the request's id."""
    poller: Poller = field(default_factory=new_scalable_poller)
    """The poller of the event loop."""
    shutdown: Shutdown = field(default_factory=Shutdown)
    counters: Counters = field(default_factory=Counters)


@dataclass(slots=True)
class Timeouts:
    """One inactivity timer for each kind, made when it first runs."""

    config: ServerConfig
    max_read_idle: float = NEVER
    """Seconds that limit the read timeout."""
    timers: dict[int, InactivityTimer] = field(default_factory=dict)

    def update(self, now: float, *, running: int, progress: int) -> float:
        """Reset the kinds in `progress`, then let those in `running` run and the others pause.

        Return the monotonic time when the first expires, or NEVER.
        """
        due = NEVER
        for kind in _KINDS:
            timer = self.timers.get(kind)
            if timer is None:
                if not running & kind:
                    continue
                timer = self.timers[kind] = InactivityTimer(self._limit(kind))
            elif progress & kind:
                timer.limit = self._limit(kind)
                timer.reset(now)
            timer.set_running(bool(running & kind), now)
            due = min(due, timer.expires_at())
        return due

    def _limit(self, kind: int) -> float | None:
        config = self.config
        if kind == Timeout.READ_IDLE:
            limit = min(config.read_timeout or NEVER, self.max_read_idle)
            return None if limit == NEVER else limit
        limits = {
            Timeout.PACKET: config.read_timeout,
            Timeout.WRITE_IDLE: config.write_timeout,
            Timeout.HANDLER: config.handler_timeout,
        }
        return limits.get(kind, LINGER)

    def expired(self, now: float) -> tuple[int, float]:
        """Return a kind that has expired, and its limit; 0 if none has."""
        for kind in _KINDS:
            timer = self.timers.get(kind)
            if timer is not None and timer.limit is not None and timer.remaining(now) == 0.0:
                return kind, timer.limit
        return 0, 0.0


class Step(Enum):
    """How a step ended."""

    DONE = auto()
    NO_DATA = auto()
    """The client has sent nothing."""
    WOULD_BLOCK = auto()
    """The step has changed nothing and must be repeated on a worker thread."""


class Abort(Exception):
    """Ends the exchange without a complete response."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


@dataclass(slots=True, eq=False)
class ExchangeState:
    """The fields of an exchange."""

    context: ServerContext
    on_change: Callable[..., None]
    """Called with the exchange after each step on the event loop that sets `is_over` or
    `needs_thread`, or lets `due` be earlier."""
    stream: Stream
    stream_fd: int
    request: Request
    record: RequestRecord
    buffers: IoBuffers
    writer: MessageWriter
    buffer: RequestBuffer
    timeouts: Timeouts
    poller: Poller
    needs_thread: bool

    io: HandlerIO | None = None
    is_over: bool = False

    polled: dict[int, int] = field(default_factory=dict)
    """The polled events by descriptor."""
    may_block: bool = False
    """Whether it runs on a worker thread."""
    is_draining: bool = False
    due: float = NEVER
    """Monotonic time at which to call resume() if nothing happens."""
    running: int = 0
    """The timeouts that run."""
    ever_running: int = 0
    """The timeouts that run or have run."""
    progress: int = 0
    """The timeouts to reset."""
    has_handler_timeout: bool = False

    must_start: bool = False
    """Whether the handler must be started next."""
    must_stop: bool = False
    """Whether the handler must be stopped next."""
    is_response_over: bool = False
    """Whether the last byte of the response, or its flush, is in `writer`."""
    has_stream_ended: bool = False
    """Whether the client has ended its request stream; it may still read."""
    is_client_gone: bool = False
    """Whether it does not read either; its handler may finish."""
    is_closed: bool = False
    """Whether the connection is closed."""
    is_ending: bool = False
