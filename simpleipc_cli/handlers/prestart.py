"""Handlers that are started before their requests, which then do not wait for the start.

Each process answers one request. Another thread replaces it after that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from threading import Lock, Thread
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.handlers.exec import PER_REQUEST, ProcessHandler, ProcessRun, start_process
from simpleipc_cli.handlers.supervisor import Supervisor
from simpleipc_cli.process import Command, describe
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.log import Log
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import Latch

_MIN_BACKOFF, _MAX_BACKOFF = 0.1, 10.0  # seconds between starts that fail (tunable)
_HANDLER_FDS = 3  # descriptors: two pipes and a pidfd
_SUPERVISOR_FDS = 5  # epoll, wakeup, both ends of a latch, one spare


class PrestartHandler(Handler):
    """Answers requests with idle processes, or with new ones if none is idle."""

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        log: Log,
        *,
        path: str,
        count: int,
        grace_period: float,
    ) -> None:
        """Keep `count` processes idle from start() on; `path` is the endpoint's absolute path.

        `grace_period` is in seconds, for idle processes that are stopped.
        """
        self._on_demand = ProcessHandler(command, environment, limit)
        self._command = command
        kept = {name: value for name, value in environment.items() if name not in PER_REQUEST}
        self._environment = {**kept, "PROTO": "UNIX", "UNIXLOCALPATH": path}
        self._limit = limit
        self._log = log
        self._count = count
        self.held_fds = count * _HANDLER_FDS + _SUPERVISOR_FDS
        self._grace_period = grace_period
        self._lock = Lock()
        self._idle: deque[_Idle] = deque()  # under the lock, the oldest first
        self._supervisor: Supervisor | None = None
        self._generation = 0
        self._failures = 0  # in a row
        self._not_before = 0.0  # no process is started until then

    def start(self) -> None:
        try:
            self._supervisor = Supervisor(self._maintain)
            self._supervisor.start()
        except SipcError as error:
            self._log.warning(f"cannot prestart handlers: {error.text}")

    def min_fds(self) -> int:
        return self.held_fds

    def reload(self) -> None:
        self._generation += 1
        self._refill()

    def run_nowait(self, request: Request) -> ProcessRun | None:
        run = self._next() or self._on_demand.run_nowait(request)
        return None if run is None else self._used(run)

    def run(self, request: Request, spooled: Spool | None) -> ProcessRun:
        return self._used(self._next() or self._on_demand.run(request, spooled))

    def _used(self, run: ProcessRun) -> ProcessRun:
        run.on_stopped = self._refill
        return run

    def _next(self) -> ProcessRun | None:
        """Return the oldest usable process; the supervisor replaces the others."""
        with self._lock:
            for idle in self._idle:
                if self._is_current(idle) and idle.is_usable():
                    self._remove(idle)
                    self._failures = 0
                    return idle.run
                idle.passed_over = True
        return None

    def _is_current(self, idle: _Idle) -> bool:
        return idle.generation == self._generation and not idle.passed_over

    def _remove(self, idle: _Idle) -> None:
        """Under the lock."""
        self._idle.remove(idle)
        if self._supervisor is not None:
            self._supervisor.remove(idle.run.process)

    def _refill(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wake()

    # -- idle processes --------------------------------------------------------------------

    def _maintain(self) -> float | None:
        """Replace processes that cannot be used, start those that are missing."""
        while (idle := self._take_unusable()) is not None:
            if idle.has_failed():
                self._record_failure(idle.exit_text())
            self._stop_idle(
                idle, self._supervisor.kill_now if self._supervisor is not None else None
            )
        while len(self._idle) < self._count:
            left = self._not_before - monotonic()
            if left > 0:
                return left
            generation = (
                self._generation
            )  # before the start: the process may read its files at once
            try:
                run = start_process(self._command, self._environment, self._limit, None, {})
            except SipcError as error:
                self._record_failure(str(error))
                continue
            with self._lock:
                self._idle.append(_Idle(run, generation))
                if self._supervisor is not None:
                    self._supervisor.add(run.process)
        return None

    def _take_unusable(self) -> _Idle | None:
        with self._lock:
            for idle in self._idle:
                if not self._is_current(idle) or idle.has_failed():
                    self._remove(idle)
                    return idle
        return None

    def _record_failure(self, how: str) -> None:
        """Log the first of some failures in a row, and back off."""
        if not self._failures:
            self._log.warning(f"a prestarted handler ended before its request: {how}")
        pause = min(_MAX_BACKOFF, _MIN_BACKOFF * 2 ** min(self._failures, 20))
        self._not_before = monotonic() + pause
        self._failures += 1

    def close(self, grace_period: float, kill_now: Latch) -> None:
        """Stop all at once, which takes as long as the slowest."""
        if self._supervisor is not None:
            self._supervisor.close(kill_now)
            self._supervisor = None
        self._grace_period = grace_period
        threads = [Thread(target=self._stop_idle, args=(each, kill_now)) for each in self._idle]
        self._idle.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _stop_idle(self, idle: _Idle, kill_now: Latch | None) -> None:
        """Stop an idle process without ending its input: that would be an empty request."""
        try:
            idle.run.stop(self._grace_period, kill_now)
        except SipcError as error:
            self._log.warning(error.text)


class _Idle:
    """A process that waits for its request."""

    def __init__(self, run: ProcessRun, generation: int) -> None:
        self.run = run
        self.generation = generation
        self.passed_over = False  # a request could not use it

    def is_usable(self) -> bool:
        """Whether it waits still, or has ended well and has written its answer already.

        One that ended well without a word may just as well have given up idle.
        """
        status = self.run.process.status()
        return status is None or (status == 0 and self.run.has_output())

    def has_failed(self) -> bool:
        """Return whether it has exited with an error."""
        return bool(self.run.process.status())

    def exit_text(self) -> str:
        return describe(self.run.process.status() or 0)[1]
