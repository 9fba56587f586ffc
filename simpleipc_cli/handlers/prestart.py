"""Handler processes that are started before their requests, which then need not wait for the start.

Each process answers one request. The supervisor's thread replaces it after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.handlers.exec import ProcessHandler, ProcessRun, start_process
from simpleipc_cli.handlers.supervisor import PROCESS_FDS, SUPERVISOR_FDS, SupervisedHandler
from simpleipc_cli.process import Command, describe
from simpleipc_cli.server.handler import Request
from simpleipc_cli.server.log import Log
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import WakeupEvent


class IdleProcess:
    """A process that waits for its request."""

    def __init__(self, run: ProcessRun, generation: int) -> None:
        self.run = run
        self.generation = generation
        self.is_rejected = False  # a request could not use it

    def is_usable(self) -> bool:
        """Return whether it runs, or has written its response and exited with status 0.

        Exit status 0 without output may mean that it timed out waiting for input.
        """
        status = self.run.process.status()
        return status is None or (status == 0 and self.run.has_output())

    def has_failed(self) -> bool:
        return bool(self.run.process.status())


class PrestartHandler(SupervisedHandler[IdleProcess]):
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
        """Keep `count` processes idle from start() on; `path` is the endpoint's absolute path."""
        super().__init__(command, environment, limit, log, grace_period=grace_period)
        self._on_demand = ProcessHandler(command, environment, limit)
        self._environment["UNIXLOCALPATH"] = path
        self._count = count
        self.held_fds = count * PROCESS_FDS + SUPERVISOR_FDS

    def start(self) -> None:
        super().start()
        self._start_supervisor()

    def min_fds(self) -> int:
        return self.held_fds

    def run_nowait(self, request: Request) -> ProcessRun | None:
        run = self._take_idle() or self._on_demand.run_nowait(request)
        if run is not None:
            run.on_stopped = self._wake_supervisor
        return run

    def run(self, request: Request, spooled: Spool | None) -> ProcessRun:
        run = self._take_idle() or self._on_demand.run(request, spooled)
        run.on_stopped = self._wake_supervisor
        return run

    def _take_idle(self) -> ProcessRun | None:
        """Return the oldest usable process; the supervisor replaces the others."""
        with self._lock:
            for idle in self._idle:
                if self._is_current(idle) and idle.is_usable():
                    self._remove(idle)
                    if self._has_failed:
                        self._reset_backoff()
                    return idle.run
                idle.is_rejected = True
        return None

    def _is_current(self, idle: IdleProcess) -> bool:
        return idle.generation == self._generation and not idle.is_rejected

    def _remove(self, idle: IdleProcess) -> None:
        """Under the lock."""
        self._idle.remove(idle)
        if self._supervisor is not None:
            self._supervisor.remove(idle.run.process)

    # -- idle processes --------------------------------------------------------------------

    def _maintain(self, kill_now: WakeupEvent) -> float | None:
        """Stop processes that cannot be used, start those that are missing."""
        while (idle := self._take_unusable()) is not None:
            if idle.has_failed():
                self._record_failure(describe(idle.run.process.status() or 0)[1])
            self._stop_idle(idle, self._grace_period, kill_now)
        while len(self._idle) < self._count:
            left = self._retry_at - monotonic()
            if left > 0:
                return left
            generation = self._generation  # before the process can read its files
            try:
                run = start_process(self._command, self._environment, self._limit, None, {})
            except SipcError as error:
                self._record_failure(str(error))
                continue
            with self._lock:
                self._idle.append(IdleProcess(run, generation))
                if self._supervisor is not None:
                    self._supervisor.add(run.process)
        return None

    def _take_unusable(self) -> IdleProcess | None:
        with self._lock:
            for idle in self._idle:
                if not self._is_current(idle) or idle.has_failed():
                    self._remove(idle)
                    return idle
        return None

    def _record_failure(self, reason: str) -> None:
        """Log the first of several failures in a row, and back off."""
        if not self._has_failed:
            self._log.warning(f"a prestarted handler ended before its request: {reason}")
        self._has_failed = True
        self._delay_next_start()

    def _stop_idle(
        self, idle: IdleProcess, grace_period: float, kill_now: WakeupEvent | None
    ) -> None:
        """Stop a process without ending its input, which would be an empty request."""
        try:
            idle.run.stop(grace_period, kill_now)
        except SipcError as error:
            self._log.warning(error.text)
