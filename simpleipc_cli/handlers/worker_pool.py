"""The pool of workers: started when needed, at most one for each concurrent request, and kept.

A worker gets one request at a time. One that is left in the middle of a message, or writes outside
of one, is replaced: no client gets data of another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Condition, Lock, Thread
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.handlers.exec import PER_REQUEST, start_worker
from simpleipc_cli.handlers.supervisor import Supervisor
from simpleipc_cli.handlers.worker import Worker, WorkerRun
from simpleipc_cli.process import Command
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.log import Log
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import Latch

_MIN_BACKOFF, _MAX_BACKOFF = 0.1, 10.0  # seconds between starts that fail (tunable)
_WORKER_FDS = 3  # descriptors: two pipes and a pidfd
_SUPERVISOR_FDS = 5  # epoll, wakeup, both ends of a latch, one spare


class WorkerPool(Handler):
    """Answers requests with persistent processes."""

    accepts_spooled = False

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        log: Log,
        *,
        max_workers: int,
        max_requests: int | None,
        grace_period: float,
    ) -> None:
        """Start at most `max_workers`, each for at most `max_requests` requests.

        `grace_period` is in seconds, for idle workers that are stopped.
        """
        self._command = command
        kept = {name: value for name, value in environment.items() if name not in PER_REQUEST}
        self._environment = {**kept, "PROTO": "UNIX"}
        self._limit = limit
        self._log = log
        self._max_requests = max_requests
        self._grace_period = grace_period

        # All under the lock, except the generation, which a signal handler sets.
        self._changed = Condition(Lock())
        self._idle: list[Worker] = []  # the last in is the first out: its caches are warm
        self.held_fds = _SUPERVISOR_FDS
        self._free = list(range(max_workers, 0, -1))  # numbers of no worker, the smallest last
        self._supervisor: Supervisor | None = None
        self._generation = 0
        self._failures = 0  # to start, since the last response
        self._reason = ""  # of the last failure
        self._not_before = 0.0  # no worker is started until then
        self._started = self._failed = self._ended = 0

    def min_fds(self) -> int:
        return _WORKER_FDS + _SUPERVISOR_FDS

    def reload(self) -> None:
        self._generation += 1
        if self._supervisor is not None:
            self._supervisor.wake()

    def stats(self) -> dict[str, int]:
        """Return the counters; `started` is the sum of `running` and `ended`.

        `failed_to_start` counts workers that exited without reading anything, and those that the
        system could not start.
        """
        with self._changed:
            return {
                "workers_running": self._started - self._ended,
                "workers_started": self._started,
                "workers_failed_to_start": self._failed,
                "workers_ended": self._ended,
            }

    # -- one request -----------------------------------------------------------------------

    def run_nowait(self, request: Request) -> WorkerRun | None:  # noqa: ARG002
        """Use an idle worker; to start one may take time."""
        with self._changed:
            if not self._idle:
                return None
            worker = self._idle[-1]
            if worker.generation != self._generation or not worker.is_ready():
                return None
            self._idle.pop()
            self._count_fds()
        return WorkerRun(worker, self._may_stay, self._done)

    def run(self, request: Request, spooled: Spool | None) -> WorkerRun:  # noqa: ARG002
        worker = self._take_worker(request.path)
        return WorkerRun(worker, self._may_stay, self._done)

    def _take_worker(self, path: str) -> Worker:
        """Return an idle worker, or a new one. Raises SipcError."""
        while True:
            with self._changed:
                while not self._idle and not self._free:
                    self._changed.wait()  # for the exit of one that is being replaced
                if not self._idle:
                    number = self._take_number()
                    break
                worker = self._idle.pop()
                self._count_fds()
            if worker.generation != self._generation:
                self._retire(worker, self._grace_period, None)
            elif (surplus := worker.unexpected_output()) is None:
                return worker
            else:
                self._remove_idle(worker, surplus)
        return self._start_worker(number, path)

    def _may_stay(self, worker: Worker) -> bool:
        """Return whether it may answer another request after its current one."""
        return worker.generation == self._generation and worker.requests + 1 != self._max_requests

    def _take_number(self) -> int:
        """Return a free number. Raises SipcError during a backoff. Under the lock."""
        left = self._not_before - monotonic()
        if left > 0:
            raise SipcError(
                f"workers fail to start ({self._reason}); next attempt in {left:.1f} s",
                "check their standard error",
            )
        return self._free.pop()

    def _start_worker(self, number: int, path: str) -> Worker:
        environment = {**self._environment, "UNIXLOCALPATH": path, "SIPC_WORKER": str(number)}
        generation = self._generation  # before the start: the worker may read its files at once
        try:
            process, pipes = start_worker(self._command, environment, self._limit)
        except SipcError as error:
            with self._changed:
                self._record_failure(str(error))
                self._release_number(number)
            raise SipcError(f"cannot start a worker: {error}", error.hint) from error
        worker = Worker(number, generation, process, pipes)
        with self._changed:
            self._started += 1
            supervisor = self._ready_supervisor()
        if supervisor is not None:
            supervisor.add(process)
        self._log.debug(f"started {worker}")
        return worker

    def _done(self, run: WorkerRun, grace_period: float, kill_now: Latch | None) -> None:
        """Keep or stop the worker of a run that has ended."""
        worker = run.worker
        if run.is_answered:
            self._failures, self._not_before = 0, 0.0
        if run.surplus:
            self._log.warning(
                f"{worker} wrote past the end of its response ({run.surplus}); replacing it"
            )
        elif run.is_reusable:
            self._keep(worker, grace_period, kill_now)
            return
        elif run.request_unread and not worker.answers:
            with self._changed:
                self._record_failure(f"{worker} {run.failure}")
        self._stop_worker(worker, grace_period, kill_now, at_once=True)

    def _keep(self, worker: Worker, grace_period: float, kill_now: Latch | None) -> None:
        """Make a worker that has answered idle, or replace it."""
        is_used_up = self._max_requests is not None and worker.requests >= self._max_requests
        if is_used_up or worker.generation != self._generation:
            self._retire(worker, grace_period, kill_now)
            return
        worker.mark_idle()
        with self._changed:
            self._idle.append(worker)
            self._count_fds()
            self._changed.notify()
            # The supervisor looks at idle workers only: what came before it has not seen.
            missed = worker.generation != self._generation or worker.process.status() is not None
        if missed and self._supervisor is not None:
            self._supervisor.wake()

    def _record_failure(self, reason: str) -> None:
        """Back off after the second of some workers in a row that failed before reading anything.

        A worker that has read its request may have failed because of it, and is no reason to let
        other requests wait.
        """
        self._failed += 1
        self._reason = reason
        if self._failures:
            pause = min(_MAX_BACKOFF, _MIN_BACKOFF * 2 ** min(self._failures - 1, 20))
            self._not_before = monotonic() + pause
        self._failures += 1

    # -- stopping --------------------------------------------------------------------------

    def _remove_idle(self, worker: Worker, surplus: str) -> None:
        """Stop an idle worker that has written something or exited."""
        log = self._log.debug if surplus == "ended: exit status 0" else self._log.warning
        log(f"{worker} {surplus} while idle; replacing it")
        self._stop_worker(worker, self._grace_period, None, at_once=True)

    def _retire(self, worker: Worker, grace_period: float, kill_now: Latch | None) -> None:
        self._log.debug(f"replacing {worker} after {worker.answers} responses")
        self._stop_worker(worker, grace_period, kill_now, at_once=False)

    def _stop_worker(
        self, worker: Worker, grace_period: float, kill_now: Latch | None, *, at_once: bool
    ) -> None:
        """Stop a worker, and only then let another have its number. Raises SipcError."""
        if self._supervisor is not None:
            self._supervisor.remove(worker.process)
        try:
            if at_once:
                worker.stop(grace_period, kill_now)
            else:
                worker.shutdown(grace_period, kill_now)
        finally:
            with self._changed:
                self._ended += 1
                self._release_number(worker.number)

    def _count_fds(self) -> None:
        """Update the number of descriptors. Under the lock."""
        self.held_fds = len(self._idle) * _WORKER_FDS + _SUPERVISOR_FDS

    def _release_number(self, number: int) -> None:
        """Make the number free. Under the lock."""
        self._free.append(number)
        self._free.sort(reverse=True)
        self._changed.notify()

    # -- idle workers ----------------------------------------------------------------------

    def _ready_supervisor(self) -> Supervisor | None:
        """Return the supervisor; without one, an exit is noticed when the worker is needed."""
        if self._supervisor is None:
            try:
                self._supervisor = Supervisor(self._maintain)
                self._supervisor.start()
            except SipcError as error:
                self._log.warning(error.text)
        return self._supervisor

    def _maintain(self) -> float | None:
        """Replace idle workers that have exited or are of an older generation."""
        while (worker := self._next_unusable()) is not None:
            kill_now = self._supervisor.kill_now if self._supervisor is not None else None
            try:
                if worker.process.status() is None:
                    self._retire(worker, self._grace_period, kill_now)
                else:
                    self._remove_idle(worker, worker.unexpected_output() or "ended")
            except SipcError as error:
                self._log.warning(error.text)
        return None

    def _next_unusable(self) -> Worker | None:
        with self._changed:
            for worker in self._idle:
                old = worker.generation != self._generation
                if old or worker.process.status() is not None:
                    self._idle.remove(worker)
                    self._count_fds()
                    return worker
        return None

    def close(self, grace_period: float, kill_now: Latch) -> None:
        """Stop all at once, which takes as long as the slowest."""
        if self._supervisor is not None:
            self._supervisor.close(kill_now)
            self._supervisor = None
        with self._changed:
            idle, self._idle = self._idle, []
        threads = [
            Thread(target=self._stop_idle, args=(each, grace_period, kill_now)) for each in idle
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        numbers = (f"{value} {name}" for name, value in self.stats().items())
        self._log.debug(", ".join(numbers).replace("_", " "))

    def _stop_idle(self, worker: Worker, grace_period: float, kill_now: Latch) -> None:
        try:
            self._stop_worker(worker, grace_period, kill_now, at_once=False)
        except SipcError as error:
            self._log.warning(error.text)
