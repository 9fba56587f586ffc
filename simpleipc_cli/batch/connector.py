"""One record's exchange, and the line in which exchanges wait to be connected."""

from __future__ import annotations

from collections import deque
from time import monotonic

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import EndpointError, NotListening, PathNotFound, ServerBusy
from simpleipc_cli.message import MessageReader, MessageWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simpleipc_cli.batch.reorder import Answer
    from simpleipc_cli.transport import Stream

_FIRST_DELAY = 0.001  # seconds between tries, at will; it doubles
_MAX_DELAY = 0.05
_LONGEST_BUSY = 0.005  # no event tells that a queue has room, and others want that, too


class Exchange:
    """One record in flight: its request going out, its answer coming in."""

    __slots__ = ("answer", "limit", "reader", "stream", "trouble", "writer")

    def __init__(self, answer: Answer) -> None:
        """Not connected yet."""
        self.answer = answer
        self.writer = MessageWriter()
        self.reader = MessageReader()
        self.stream: Stream | None = None
        self.trouble: EndpointError | None = None
        """What kept it from being connected at the last try."""
        self.limit = Deadline(None)
        """When it gives up waiting to be connected."""


class Connector:
    """Connects exchanges, first come, first served; whoever finds no room waits in line.

    Nobody here has sent a byte, so trying again never sends a request twice.
    """

    def __init__(
        self,
        connect: Callable[[], Stream],
        *,
        connect_timeout: float | None,
        wait: float | None,
        waits: bool,
    ) -> None:
        """`connect` connects at once or raises EndpointError.

        An exchange waits `connect_timeout` seconds for room in the queue of a busy server;
        with `waits`, in place of that, `wait` seconds for anybody to listen. None is no limit.
        """
        self._connect = connect
        self._patience = wait if waits else connect_timeout
        self._worth_it = (NotListening, PathNotFound) if waits else (ServerBusy,)
        self._line: deque[Exchange] = deque()
        self._pause = _FIRST_DELAY
        self._retry_at = 0.0

    def join(self, exchange: Exchange) -> None:
        """Stand in line, at its end."""
        exchange.limit = Deadline(self._patience)
        self._line.append(exchange)

    def admit(self, others: bool) -> Iterator[Exchange]:
        """Those who leave the line now: connected, or else, without a stream, given up.

        `others` is whether exchanges are connected: with their end there may be room for us.
        """
        while self._line:
            first = self._line[0]
            is_last_try = first.limit.passed()
            if not is_last_try and monotonic() < self._retry_at:
                return
            try:
                first.stream = self._connect()
            except EndpointError as error:
                first.trouble = error
                if not is_last_try and self._is_worth_waiting(error, others):
                    self._wait_longer(error)
                    return
            self._line.popleft()
            if first.stream is not None:
                self.hurry()
                others = True
            yield first

    def hurry(self) -> None:
        """Something has changed: there may be room now."""
        self._pause = _FIRST_DELAY
        self._retry_at = 0.0

    def time_left(self) -> float | None:
        """Seconds until admit() has something to do; None while nobody is in line."""
        if not self._line:
            return None
        left = max(0.0, self._retry_at - monotonic())
        limit = self._line[0].limit.remaining()
        return left if limit is None else min(left, limit)

    def try_once(self) -> EndpointError | None:
        """Connect and hang up; what kept us from it."""
        try:
            self._connect().close()
        except EndpointError as error:
            return error
        return None

    def _is_worth_waiting(self, error: EndpointError, others: bool) -> bool:
        if type(error) is EndpointError:  # not the endpoint fails but we do, for descriptors
            return others
        return isinstance(error, self._worth_it)

    def _wait_longer(self, error: EndpointError) -> None:
        self._retry_at = monotonic() + self._pause
        longest = _LONGEST_BUSY if isinstance(error, ServerBusy) else _MAX_DELAY
        self._pause = min(self._pause * 2, longest)
