"""The threads of a server: each answers one request at a time, the others wait for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.server.connection import Exchange
from simpleipc_cli.server.counters import Counters
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.jobs import Jobs
from simpleipc_cli.server.limits import Limits
from simpleipc_cli.server.log import Log, Outcome, Record
from simpleipc_cli.server.stages import Stages, Workspace
from simpleipc_cli.transport import Stream

_JOIN_PATIENCE = 5.0  # seconds for threads that are to end at once, at will

_Job = tuple[Stream, str, float]  # a request's id, and since when it waits


class Crew:
    """Threads, started as there is work for them, and the requests that wait for one."""

    def __init__(
        self,
        path: str,
        *,
        handler: Handler,
        limits: Limits,
        log: Log,
        counters: Counters,
        stages: Stages,
        watch: Callable[[Stream, str], Stream] | None,
        on_done: Callable[[Record], None],
    ) -> None:
        """`on_done` is called by a thread when a request has ended. For the rest see Server."""
        self._path = path
        self._handler = handler
        self._limits = limits
        self._log = log
        self._counters = counters
        self._stages = stages
        self._watch = watch
        self._on_done = on_done

        self._jobs: Jobs[_Job | None] = Jobs()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._no_thread = False  # the system has no threads, and it has been said
        self._in_flight = 0  # requests that have a thread, under the lock
        self._active = monotonic()  # when a request last came or ended, under the lock
        self.unanswered = 0
        """Connections that have spoken and are not done."""

    def idle_since(self) -> float | None:
        """Since when there has been no request; None while there is one."""
        with self._lock:
            return None if self.unanswered else self._active

    @property
    def is_stuck(self) -> bool:
        """Whether somebody waits and there is not one thread."""
        return bool(self.unanswered) and not self._threads

    @property
    def is_over(self) -> bool:
        """Whether no thread is left."""
        return not any(thread.is_alive() for thread in self._threads)

    def take(self, stream: Stream) -> None:
        """Let a connection that has spoken wait for a thread."""
        self._counters.requests += 1
        with self._lock:
            self.unanswered += 1
            self._active = monotonic()
        request_id = f"{os.getpid()}-{self._counters.requests}"
        if self._watch is not None:
            stream = self._watch(stream, request_id)
        self._jobs.put((stream, request_id, monotonic()))
        self.add_thread()

    def add_thread(self) -> None:
        """See that there are as many threads as there is work for, up to the limit."""
        if len(self._threads) >= min(self.unanswered, self._limits.threads):
            return
        thread = threading.Thread(target=self._work, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more: try again in a while
            if not self._no_thread:
                self._no_thread = True
                self._log.problem(f"{error}: allow more with ulimit -u, or give fewer --threads")
            return
        self._threads.append(thread)

    def figures(self, *, silent: int) -> dict[str, int]:
        """See Counters.figures()."""
        with self._lock:
            waiting = self.unanswered - self._in_flight
            return self._counters.figures(in_flight=self._in_flight, waiting=waiting, silent=silent)

    def drop(self) -> None:
        """Hang up on all who wait: without a single thread nobody else ever would."""
        for job in self._jobs.drop():
            if job is not None:
                stream, request_id, _ = job
                record = Record(request_id, stream.peer(), outcome=Outcome.STOPPED)
                stream.close()
                self._finish(record)

    def end(self) -> None:
        """Let all threads end; those in the middle of a request have been told to."""
        for _ in self._threads:
            self._jobs.put(None)
        patience = Deadline(_JOIN_PATIENCE)
        for thread in self._threads:
            thread.join(patience.remaining())

    def _work(self) -> None:
        """A thread's life: one request after the other."""
        workspace = Workspace()
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._in_flight += 1
            record = self._answer(*job, workspace)
            with self._lock:
                self._in_flight -= 1
            self._finish(record)

    def _finish(self, record: Record) -> None:
        with self._lock:
            self.unanswered -= 1
            self._active = monotonic()
            self._counters.count(record)
        self._log.request(record)
        self._on_done(record)

    def _answer(
        self, stream: Stream, request_id: str, since: float, workspace: Workspace
    ) -> Record:
        """Answer one request; a defect of ours ends that request, and not the server."""
        record = Record(request_id, stream.peer())
        try:
            exchange = Exchange(
                stream,
                Request(request_id, self._path, record.peer),
                handler=self._handler,
                limits=self._limits,
                stages=self._stages,
                workspace=workspace,
            )
            record = exchange.answer()
        except Exception as error:  # whatever it is, others must still be answered
            stream.close()
            record.outcome, record.detail = Outcome.BROKEN, repr(error)
        record.waited = record.began - since
        return record
