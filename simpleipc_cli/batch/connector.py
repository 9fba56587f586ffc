"""Non-blocking exchanges, and the queue of those that wait for a connection."""

from __future__ import annotations

from collections import deque
from time import monotonic

from simpleipc_cli.deadline import Backoff, Deadline
from simpleipc_cli.errors import (
    EndpointError,
    NotListening,
    OutOfResources,
    PathNotFound,
    PeerClosed,
    ServerBusy,
)
from simpleipc_cli.pktline import MessageReader, MessageWriter, consume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simpleipc_cli.batch.reorder import PendingResponse
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Stream

_RETRY_DELAYS = (0.001, 0.05)  # seconds: first and longest (tunable)
_MAX_BUSY_DELAY = 0.005  # short: no event reports free space, and other clients retry, too


class Exchange:
    """One request and its response over a stream, without blocking."""

    __slots__ = ("pending", "stream")

    def __init__(self, pending: list[Buffer]) -> None:
        self.stream: Stream | None = None
        """The connection, while there is one."""
        self.pending = pending
        """The buffers of the request to write next."""

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        assert self.stream is not None  # noqa: S101
        return self.stream.fileno()

    def write_nowait(self) -> bool:
        """Write without blocking; return whether bytes are left to write.

        If the server has closed the connection, drop the rest: its response may still be readable.
        """
        assert self.stream is not None  # noqa: S101
        pending = self.pending
        try:
            while pending:
                consume(pending, self.stream.write_nowait(pending))
        except BlockingIOError:
            return True
        except PeerClosed:
            self.drop_request()
        return False

    def drop_request(self) -> None:
        """Drop the unwritten part of the request."""
        self.pending.clear()


class RecordExchange(Exchange):
    """The exchange of one record."""

    __slots__ = ("connect_deadline", "last_error", "reader", "response", "writer")

    def __init__(self, response: PendingResponse) -> None:
        self.writer = MessageWriter()
        super().__init__(self.writer.pending)
        self.reader = MessageReader()
        self.response = response
        self.last_error: EndpointError | None = None
        """Why the last try to connect failed."""
        self.connect_deadline = Deadline(None)

    def read_nowait(self, buffer: memoryview) -> Iterator[memoryview]:
        """Read once; return an iterator that decodes the data and yields its payload.

        Raises BlockingIOError, IncompleteMessage; the iterator raises ProtocolError.
        """
        assert self.stream is not None  # noqa: S101
        count = self.stream.read_nowait(buffer)
        if not count:
            self.reader.feed_eof()
        return self.reader.feed(buffer[:count])


class Connector:
    """Connects exchanges in order. Exchanges that a busy server refuses wait in a queue.

    A retry never sends a request twice: an exchange sends no byte before it is connected.
    """

    def __init__(
        self,
        connect: Callable[[], Stream],
        *,
        timeout: float | None,
        waits: bool,
    ) -> None:
        """`connect` connects without waiting, or raises EndpointError.

        An exchange waits at most `timeout` seconds (None: no limit) while the queue of the server
        is full; with `waits`, also while no server listens.
        """
        self._connect = connect
        self._timeout = timeout
        self._transient_errors: tuple[type[EndpointError], ...] = (ServerBusy,)
        if waits:
            self._transient_errors += (NotListening, PathNotFound)
        self._queue: deque[RecordExchange] = deque()
        self._backoff = Backoff(*_RETRY_DELAYS)
        self._retry_at = 0.0

    def enqueue(self, exchange: RecordExchange) -> None:
        """Add an exchange to the queue, and start its timeout."""
        exchange.connect_deadline = Deadline(self._timeout)
        self._queue.append(exchange)

    def connect_ready(self, has_connected: bool) -> Iterator[RecordExchange]:
        """Yield the exchanges that leave the queue: connected, or without a stream, failed.

        `has_connected`: whether any exchange is connected: if it ends, the server may accept
        another one.
        """
        while self._queue:
            first = self._queue[0]
            is_last_try = first.connect_deadline.expired()
            if not is_last_try and monotonic() < self._retry_at:
                return
            try:
                first.stream = self._connect()
            except EndpointError as error:
                first.last_error = error
                if not is_last_try and self._is_transient(error, has_connected):
                    delay = self._backoff.next()
                    if isinstance(error, ServerBusy):
                        delay = min(delay, _MAX_BUSY_DELAY)
                    self._retry_at = monotonic() + delay
                    return
            self._queue.popleft()
            if first.stream is not None:
                self.reset_backoff()
                has_connected = True
            yield first

    def reset_backoff(self) -> None:
        """Retry at once: the server's queue may have space now."""
        self._backoff.reset()
        self._retry_at = 0.0

    def remaining(self) -> float | None:
        """Return the seconds until connect_ready() is due; None if the queue is empty."""
        if not self._queue:
            return None
        limit = self._queue[0].connect_deadline
        return limit.capped(max(0.0, self._retry_at - monotonic())).remaining()

    def check(self) -> EndpointError | None:
        """Connect and close; return the error if that fails."""
        try:
            self._connect().close()
        except EndpointError as error:
            return error
        return None

    def _is_transient(self, error: EndpointError, has_connected: bool) -> bool:
        if isinstance(error, OutOfResources):  # an exchange that ends frees its descriptor
            return has_connected
        return isinstance(error, self._transient_errors)
