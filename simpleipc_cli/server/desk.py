"""Where requests are answered: by the main thread itself, as long as nothing keeps it waiting.

Handing a request to another thread costs more than a short answer does: both threads take
Python's lock from each other at every system call. So one thread moves on whatever exchange
can go on; one that would have to wait for something that cannot be polled for (a disk, the end
of a process that does not want to end), or that takes its time (many bytes), gets a thread of
the crew.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from simpleipc_cli.deadline import NEVER
from simpleipc_cli.server.connection import Exchange
from simpleipc_cli.server.counters import Counters
from simpleipc_cli.server.crew import Crew
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.limits import Limits
from simpleipc_cli.server.log import Log, Outcome, Record
from simpleipc_cli.server.stages import Stages, Workspace
from simpleipc_cli.transport import Poller, Stream


class Desk:
    """Requests from their first byte to their end. For the main thread, but where it is said."""

    def __init__(
        self,
        path: str,
        poller: Poller,
        *,
        handler: Handler,
        limits: Limits,
        log: Log,
        counters: Counters,
        stages: Stages,
        watch: Callable[[Stream, str], Stream] | None,
        on_done: Callable[[Record], None],
    ) -> None:
        """`on_done` is called when a request has ended, by any thread. For the rest see Server."""
        self._path = path
        self._poller = poller
        self._handler = handler
        self._limits = limits
        self._log = log
        self._counters = counters
        self._stages = stages
        self._watch = watch
        self._on_done = on_done
        self._pid = os.getpid()
        self.crew = Crew(log=log, on_over=self._finish)

        self._waiting: deque[tuple[Stream, str, float]] = deque()  # with an id, and since when
        self._owners: dict[int, Exchange] = {}  # by their descriptors in the poller
        self._here: set[Exchange] = set()
        self._spare: list[Workspace] = []

        self._lock = threading.Lock()
        self._in_flight = 0  # requests that are being answered, under the lock
        self._active = monotonic()  # when a request last came or ended, under the lock
        self.due = NEVER
        """The moment when to call go_on(), whatever happens."""
        self.unanswered = 0
        """Connections that have spoken and are not done."""

    def idle_since(self) -> float | None:
        """Since when there has been no request; None while there is one."""
        with self._lock:
            return None if self.unanswered else self._active

    def figures(self, *, silent: int) -> dict[str, int]:
        """See Counters.figures()."""
        with self._lock:
            waiting = self.unanswered - self._in_flight
            return self._counters.figures(in_flight=self._in_flight, waiting=waiting, silent=silent)

    @property
    def wants_to_know(self) -> bool:
        """Whether the end of a request is to be told to the main thread."""
        return bool(self._waiting)

    def take(self, stream: Stream) -> None:
        """Answer a connection that has spoken, in its turn."""
        self._counters.requests += 1
        now = monotonic()
        with self._lock:
            self.unanswered += 1
            self._active = now
        request_id = f"{self._pid}-{self._counters.requests}"
        if self._watch is not None:
            stream = self._watch(stream, request_id)
        self._waiting.append((stream, request_id, now))
        self._begin()

    def go_on(self, ready: list[tuple[int, int]]) -> list[int]:
        """Let exchanges go on; `ready` is what the poller tells. Descriptors of others come back.

        Whose a descriptor is, is looked up before anything is done: then it may be closed, and
        its number another's.
        """
        mine: dict[Exchange, list[tuple[int, int]]] = {}
        others = []
        for descriptor, what in ready:
            exchange = self._owners.get(descriptor)
            if exchange is None:
                others.append(descriptor)
            elif exchange in mine:
                mine[exchange].append((descriptor, what))
            else:
                mine[exchange] = [(descriptor, what)]
        for exchange, told in mine.items():
            exchange.step(told)
            self._look_at(exchange)
        if monotonic() >= self.due:
            self._step_due()
        if self._waiting:
            self._begin()
        return others

    def heed_stop(self) -> None:
        """The server's stop has come a stage further."""
        for exchange in tuple(self._here):
            exchange.heed_stop()
            self._look_at(exchange)

    def drop(self) -> None:
        """Hang up on all who wait for their turn; nobody is answered any more."""
        while self._waiting:
            stream, request_id, since = self._waiting.popleft()
            record = Record(request_id, stream.peer(), outcome=Outcome.STOPPED)
            record.detail = "the server was stopped before it began"
            record.waited = record.began - since
            stream.close()
            with self._lock:
                self._in_flight += 1
            self._note(record)

    def _begin(self) -> None:
        """Begin with those whose turn it is."""
        while self._waiting and self._in_flight < self._limits.threads:
            stream, request_id, since = self._waiting.popleft()
            with self._lock:
                self._in_flight += 1
            exchange = self._exchange(stream, request_id)
            exchange.record.waited = exchange.record.began - since
            self._here.add(exchange)
            if self._stages.drain.is_set():
                exchange.heed_stop()
            elif not exchange.needs_thread:
                exchange.step()
            self._look_at(exchange)

    def _exchange(self, stream: Stream, request_id: str) -> Exchange:
        return Exchange(
            stream,
            Request(request_id, self._path, stream.peer()),
            handler=self._handler,
            limits=self._limits,
            stages=self._stages,
            workspace=self._spare.pop() if self._spare else Workspace(),
            poller=self._poller,
            owners=self._owners,
        )

    def _look_at(self, exchange: Exchange) -> None:
        """One has been stepped: what now?"""
        if exchange.over:
            self._here.remove(exchange)
            self._finish(exchange)
        elif exchange.needs_thread:
            self._here.remove(exchange)
            exchange.leave_desk()
            self.crew.take(exchange)
        elif exchange.due < self.due:
            self.due = exchange.due

    def _step_due(self) -> None:
        """Somebody's time may be up."""
        now, self.due = monotonic(), NEVER
        for exchange in tuple(self._here):
            if exchange.due <= now:
                exchange.step()
            self._look_at(exchange)

    def _finish(self, exchange: Exchange) -> None:
        """One is over; by any thread."""
        self._spare.append(exchange.workspace)
        self._note(exchange.record)

    def _note(self, record: Record) -> None:
        with self._lock:
            self.unanswered -= 1
            self._in_flight -= 1
            self._active = monotonic()
            self._counters.count(record)
        self._log.request(record)
        self._on_done(record)
