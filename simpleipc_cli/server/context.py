"""Objects that all parts of a server share: configuration, log, counters, shutdown events.

Times are in seconds, sizes in bytes, None means no limit. The log determines its own format.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic

from simpleipc_cli.server.handler import Call, Handler, RequestInfo
from simpleipc_cli.system import SPOOL_FOLDERS
from simpleipc_cli.text import call_path
from simpleipc_cli.transport import (
    Poller,
    Stream,
    WakeupEvent,
    new_scalable_poller,
    new_wakeup_event,
)

DRAIN_IDLE_TIMEOUT = 1.0
"""Seconds after which a connection that sends nothing is closed while the server drains."""

LINGER = 1.0
"""Seconds without output after which the output of a handler that has exited is complete."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The server's settings; `sipc serve --help` describes each.

    `sipc serve` takes the defaults of its options from here.
    """

    max_concurrency: int = 8
    max_request: int | None = None
    read_timeout: float | None = 30.0
    write_timeout: float | None = 60.0
    handler_timeout: float | None = None
    drain_timeout: float | None = 10.0
    abort_timeout: float = 5.0
    """Maximum time, in seconds, in which aborted requests end, unless a thread hangs."""
    max_requests: int | None = None
    idle_timeout: float | None = None
    quit_on: bytes | None = None
    allowed_users: frozenset[int] | None = None
    whole_request: bool = False
    finish_on_hangup: bool = False
    spool_folders: Sequence[str] = SPOOL_FOLDERS


class Outcome(Enum):
    """How a request ended. The value is its name in JSON records and counters."""

    ANSWERED = "answered"
    HANDLER_FAILED = "handler_failed"
    HANDLER_TIMEOUT = "handler_timeout"
    SPAWN_FAILED = "spawn_failed"
    CLIENT_CLOSED = "client_closed"
    REQUEST_INCOMPLETE = "request_incomplete"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    READ_TIMEOUT = "read_timeout"
    WRITE_TIMEOUT = "write_timeout"
    ABORTED = "aborted"
    INTERNAL_ERROR = "internal_error"

    __hash__ = object.__hash__  # that of Enum takes longer

    def __init__(self, name: str) -> None:
        # A client that closes is no error.
        self.is_error = name not in {"answered", "client_closed", "request_incomplete"}
        """Whether to log the outcome as an error."""


class RequestRecord:
    """The log record of one request."""

    outcome = Outcome.ANSWERED
    detail = ""
    """The reason of a failure. It may quote bytes of the client, escaped."""
    status = "-"
    """The handler's exit status or signal; "-" if the server stopped it."""
    bytes_in = 0
    bytes_out = 0
    queue_time = 0.0
    """Seconds from the request's first byte until it left the queue."""
    is_quit = False
    """Whether the request asked the server to stop."""

    def __init__(self, request: RequestInfo) -> None:
        self.request = request
        self.debug_notes: list[str] = []
        self.warnings: list[str] = []
        """Warnings for the administrator, even if the request was answered."""
        self.started_at = monotonic()
        """Time when the request left the queue; before that, when it arrived."""

    def note_dropped(self, count: int) -> None:
        """Record bytes that the client sent after its request."""
        self.debug_notes.append(f"dropped {count} bytes after the flush")

    def set_failure(self, outcome: Outcome, detail: str) -> None:
        """Record the first failure; ignore later ones.

        For an internal error, record where the current exception was raised.
        """
        error = sys.exc_info()[1]
        if outcome is Outcome.INTERNAL_ERROR and error is not None:
            self.debug_notes.append(f"raised in {call_path(error)}")
        if self.outcome is Outcome.ANSWERED:
            self.outcome = outcome
            self.detail = detail


class Log(ABC):
    """Receives log records from any thread. Never raises, never blocks for long."""

    needs_peer = True
    """Whether request() needs the peer of a request."""

    @abstractmethod
    def request(self, record: RequestRecord) -> None:
        """Log a request that has ended."""

    def stderr(self, request_id: str, process: int, line: bytes) -> None:  # noqa: B027
        """Log a line that a handler's process wrote to its standard error.

        `request_id` is "" if the process has no request.
        """

    @abstractmethod
    def error(self, text: str) -> None:
        """Log the error that ends the server."""

    @abstractmethod
    def warning(self, text: str) -> None:
        """Log a problem after which the server continues."""

    @abstractmethod
    def info(self, text: str) -> None:
        """Log a normal event that happens only once."""

    @abstractmethod
    def debug(self, text: str) -> None:
        """Log a detail that helps to debug."""

    @abstractmethod
    def exception(self, text: str, error: BaseException) -> None:
        """Log an exception that a callback has raised, with its traceback."""

    @abstractmethod
    def stats(self, counters: Mapping[str, int]) -> None:
        """Log the counters."""

    @abstractmethod
    def reopen(self) -> None:
        """Open the log file again, as it may have been renamed."""


class Counters:
    """Counts connections, requests and bytes since the start. Not thread-safe."""

    def __init__(self) -> None:
        self.accepted = 0
        self.closed_without_data = 0
        """Connections that the client closed before it sent data."""
        self.refused = 0
        """Connections of users that are not allowed."""
        self.idle_closed = 0
        """Connections that the server closed before they sent data."""
        self.requests = 0
        """Connections that have sent data."""
        self.bytes_in = 0
        """Bytes of payload in the requests that have ended."""
        self.bytes_out = 0
        """Bytes of payload in their responses."""
        self.outcomes: Counter[Outcome] = Counter()
        """Requests that have ended."""

    def as_dict(self, *, in_flight: int, queued: int, idle: int) -> dict[str, int]:
        """Return all counters by name. Counters of failures are left out if they are zero.

        `accepted` is the sum of `requests`, `closed_without_data`, `refused`, `idle_closed` and
        `idle`; `requests` of `answered`, `failed`, `in_flight` and `queued`.
        """
        failed = {
            outcome.value: number
            for outcome, number in self.outcomes.items()
            if outcome is not Outcome.ANSWERED and number
        }
        return {
            "accepted": self.accepted,
            "closed_without_data": self.closed_without_data,
            "refused": self.refused,
            "idle_closed": self.idle_closed,
            "idle": idle,
            "requests": self.requests,
            "answered": self.outcomes[Outcome.ANSWERED],
            "failed": sum(failed.values()),
            **dict(sorted(failed.items())),
            "in_flight": in_flight,
            "queued": queued,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }


class Shutdown:
    """One event for each phase of the shutdown. Each event stays set."""

    def __init__(self) -> None:
        """Raises OSError without free descriptors."""
        self.draining: WakeupEvent = new_wakeup_event()
        """Answer all connected clients, but close idle connections after a short time."""
        self.aborting: WakeupEvent = new_wakeup_event()
        """End every request now; handlers get their grace period."""
        self.killing: WakeupEvent = new_wakeup_event()
        """End handlers without a grace period."""
        self.is_requested = False
        """Whether to start the shutdown. Any thread may set it; it is never cleared."""

    def close(self) -> None:
        """Free the descriptors."""
        for phase in (self.draining, self.aborting, self.killing):
            phase.close()


@dataclass(slots=True, eq=False)
class ServerContext:
    """Objects that all parts of a server share."""

    handler: Handler
    config: ServerConfig
    log: Log
    observe: Callable[[Stream, str], Stream] | None
    """Wraps a request's stream; its second argument is the request's id."""
    poller: Poller = field(default_factory=new_scalable_poller)
    """The poller of the event loop."""
    shutdown: Shutdown = field(default_factory=Shutdown)
    counters: Counters = field(default_factory=Counters)
    handled: set[object] = field(default_factory=set)
    """The exchanges that have a handler, or start one. Any thread may change it."""
    calls: deque[Call] = field(default_factory=deque)
    """The runs to call next, by the thread of the event loop."""
