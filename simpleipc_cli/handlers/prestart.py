"""Handlers that are started ahead of their requests: a request does not wait for a start.

Each is used once. What was used is replaced behind the answer, by another thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from threading import Lock, Thread
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.handlers import Command, ProcessHandler, ProcessRun, describe, start_process
from simpleipc_cli.handlers.keeper import Keeper
from simpleipc_cli.handlers.variables import PER_REQUEST
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.log import Log
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import Latch

_FIRST_DELAY, _MAX_DELAY = 0.1, 10.0  # seconds before one more is started, at will
_A_HANDLER, _KEEPER = 3, 5  # descriptors: two pipes and a pidfd; epoll, bell, latch, a poller


class PrestartHandler(Handler):
    """Answers requests with processes that wait for them, or with new ones when none does."""

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        log: Log,
        *,
        path: str,
        count: int,
        grace: float,
    ) -> None:
        """Keeps `count` waiting from begin() on; `path` is the endpoint's absolute path.

        `grace` is given, in seconds, to those that are ended while they wait.
        """
        self._on_demand = ProcessHandler(command, environment, limit)
        self._command = command
        kept = {name: value for name, value in environment.items() if name not in PER_REQUEST}
        self._environment = {**kept, "PROTO": "UNIX", "UNIXLOCALPATH": path}
        self._limit = limit
        self._log = log
        self._count = count
        self._grace = grace
        self._lock = Lock()
        self._waiting: deque[_Waiting] = deque()  # under the lock; the oldest is used first
        self._keeper: Keeper | None = None
        self._generation = 0
        self._failures = 0  # in a row
        self._not_before = 0.0  # none is started ahead until then

    def begin(self) -> None:
        """See Handler."""
        try:
            self._keeper = Keeper(self._tend)
            self._keeper.start()
        except SipcError as error:
            self._log.problem(f"handlers are started when needed: {error.text}")

    def descriptors(self) -> int:
        """See Handler."""
        return self._count * _A_HANDLER + _KEEPER

    def least_descriptors(self) -> int:
        """See Handler."""
        return self.descriptors()

    def renew(self) -> None:
        """See Handler."""
        self._generation += 1
        self._refill()

    def start_now(self, request: Request) -> ProcessRun:
        """See Handler."""
        return self._used(self._next() or self._on_demand.start_now(request))

    def start(self, request: Request, stored: Spool | None) -> ProcessRun:
        """See Handler."""
        return self._used(self._next() or self._on_demand.start(request, stored))

    def _used(self, run: ProcessRun) -> ProcessRun:
        run.on_stopped = self._refill
        return run

    def _next(self) -> ProcessRun | None:
        """The oldest that can be used; the keeper sees to those that cannot."""
        with self._lock:
            for waiting in self._waiting:
                if self._is_fit(waiting) and waiting.is_usable():
                    self._take_out(waiting)
                    self._failures = 0
                    return waiting.run
                waiting.passed_over = True
        return None

    def _is_fit(self, waiting: _Waiting) -> bool:
        return waiting.generation == self._generation and not waiting.passed_over

    def _take_out(self, waiting: _Waiting) -> None:
        """Under the lock."""
        self._waiting.remove(waiting)
        if self._keeper is not None:
            self._keeper.forget(waiting.run.process)

    def _refill(self) -> None:
        if self._keeper is not None:
            self._keeper.ring()

    # -- while nothing is asked --------------------------------------------------------------

    def _tend(self) -> float | None:
        """Replace those that cannot be used, start those that are missing."""
        while (waiting := self._take_unfit()) is not None:
            if waiting.has_failed():
                self._note_failure(waiting.how_it_ended())
            self._end_waiting(waiting, self._keeper.hurry if self._keeper is not None else None)
        while len(self._waiting) < self._count:
            left = self._not_before - monotonic()
            if left > 0:
                return left
            generation = self._generation  # before it is started: it may read its files at once
            try:
                run = start_process(self._command, self._environment, self._limit, None)
            except SipcError as error:
                self._note_failure(str(error))
                continue
            with self._lock:
                self._waiting.append(_Waiting(run, generation))
                if self._keeper is not None:
                    self._keeper.watch(run.process)
        return None

    def _take_unfit(self) -> _Waiting | None:
        with self._lock:
            for waiting in self._waiting:
                if not self._is_fit(waiting) or waiting.has_failed():
                    self._take_out(waiting)
                    return waiting
        return None

    def _note_failure(self, how: str) -> None:
        """Say it once, and let more and more time pass between the attempts."""
        if not self._failures:
            self._log.problem(
                f"a handler that was started ahead has ended before its request: {how}"
            )
        pause = min(_MAX_DELAY, _FIRST_DELAY * 2 ** min(self._failures, 20))
        self._not_before = monotonic() + pause
        self._failures += 1

    def end(self, grace: float, hurry: Latch) -> None:
        """See Handler. All at once, so that it takes no longer than the slowest of them."""
        if self._keeper is not None:
            self._keeper.close(hurry)
            self._keeper = None
        self._grace = grace
        threads = [Thread(target=self._end_waiting, args=(each, hurry)) for each in self._waiting]
        self._waiting.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _end_waiting(self, waiting: _Waiting, hurry: Latch | None) -> None:
        """Its input is not ended before: it would take that for an empty request."""
        try:
            waiting.run.stop(self._grace, hurry)
        except SipcError as error:
            self._log.problem(error.text)


class _Waiting:
    """One that waits for its request."""

    def __init__(self, run: ProcessRun, generation: int) -> None:
        self.run = run
        self.generation = generation
        self.passed_over = False  # it could not be used

    def is_usable(self) -> bool:
        """Whether it waits still, or has ended well and has written its answer already.

        One that ended well without a word may just as well have given up waiting.
        """
        status = self.run.process.status()
        return status is None or (status == 0 and self.run.has_output())

    def has_failed(self) -> bool:
        """Whether it has ended, and not well."""
        return bool(self.run.process.status())

    def how_it_ended(self) -> str:
        """For people."""
        return describe(self.run.process.status() or 0)[1]
