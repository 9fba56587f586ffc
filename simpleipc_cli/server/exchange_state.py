"""The state of one exchange, and what can come of a step; exchange.py decides what changes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from simpleipc_cli.deadline import NEVER
from simpleipc_cli.message import MessageWriter
from simpleipc_cli.server.config import ServerConfig
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.handler_io import HandlerIO, IoBuffers
from simpleipc_cli.server.log import Outcome, RequestRecord
from simpleipc_cli.server.request_buffer import RequestBuffer
from simpleipc_cli.server.shutdown import Shutdown
from simpleipc_cli.server.timeouts import Timeouts
from simpleipc_cli.transport import Poller, Stream


class Step(Enum):
    """What has come of a step."""

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
    """All that an exchange consists of."""

    handler: Handler
    config: ServerConfig
    shutdown: Shutdown
    on_change: Callable[..., None]
    """Called with the exchange after each step on the event loop that sets `is_over` or
    `needs_thread`, or lets `due` be earlier."""
    stream: Stream
    stream_fd: int
    request: Request
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
    """The events that are polled, by descriptor."""
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
    """Whether the handler is to be started."""
    must_stop: bool = False
    """Whether the handler is to be stopped."""
    response_over: bool = False
    """Whether the last byte of the response, or its flush, is in `writer`."""
    stream_ended: bool = False
    """Whether the client sends no more; it may still read."""
    client_gone: bool = False
    """Whether it does not read either; its handler may finish."""
    is_closed: bool = False
    """Whether the connection is closed."""
    is_ending: bool = False
