"""Workers: started when needed, at most one for each of the server's threads, and kept.

A worker is handed one request at a time. Whatever leaves it in the middle of a message, or
writes what belongs to none, is replaced: what one client began is never seen by the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Condition, Lock, Thread
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.handlers import Command, start_worker
from simpleipc_cli.handlers.keeper import Keeper
from simpleipc_cli.handlers.variables import PER_REQUEST
from simpleipc_cli.handlers.worker import Worker, WorkerRun
from simpleipc_cli.server.handler import Handler, Request
from simpleipc_cli.server.log import Log
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import Latch

_FIRST_DELAY, _MAX_DELAY = 0.1, 10.0  # seconds before one more is started, at will
_A_WORKER, _KEEPER = 3, 5  # descriptors: two pipes and a pidfd; epoll, bell, latch, a poller


class WorkerHandler(Handler):
    """Answers requests with workers."""

    takes_stored = False

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        log: Log,
        *,
        most: int,
        max_requests: int | None,
        grace: float,
    ) -> None:
        """At most `most` workers, each for `max_requests` at most.

        `grace` is given, in seconds, to those that are ended while they have no request.
        """
        self._command = command
        kept = {name: value for name, value in environment.items() if name not in PER_REQUEST}
        self._environment = {**kept, "PROTO": "UNIX"}
        self._limit = limit
        self._log = log
        self._most = most
        self._max_requests = max_requests
        self._grace = grace

        # All of this under the lock, but for the generation: a signal handler sets that.
        self._changed = Condition(Lock())
        self._idle: list[Worker] = []  # who was done last is asked next: it is still warm
        self._free = list(range(most, 0, -1))  # numbers that no process has, the smallest last
        self._keeper: Keeper | None = None
        self._generation = 0
        self._failures = 0  # to start, since there last was an answer
        self._reason = ""  # of the last of them
        self._not_before = 0.0  # no other is started until then
        self._started = self._failed = self._ended = 0

    def descriptors(self) -> int:
        """See Handler."""
        return len(self._idle) * _A_WORKER + _KEEPER

    def least_descriptors(self) -> int:
        """See Handler."""
        return _A_WORKER + _KEEPER

    def renew(self) -> None:
        """See Handler."""
        self._generation += 1
        if self._keeper is not None:
            self._keeper.ring()

    def counts(self) -> dict[str, int]:
        """`started` is `running` and `ended`; `failed_to_start` ended without reading anything.

        It counts those, too, that the system could not start.
        """
        with self._changed:
            return {
                "workers_running": self._started - self._ended,
                "workers_started": self._started,
                "workers_failed_to_start": self._failed,
                "workers_ended": self._ended,
            }

    # -- one request -----------------------------------------------------------------------

    def start_now(self, request: Request) -> WorkerRun:  # noqa: ARG002
        """See Handler. Not where one must be started: what it is may take its time to load."""
        with self._changed:
            if not self._idle:
                raise BlockingIOError
            worker = self._idle[-1]
            if worker.generation != self._generation or not worker.is_ready():
                raise BlockingIOError
            self._idle.pop()
        return self._run(worker)

    def start(self, request: Request, stored: Spool | None) -> WorkerRun:  # noqa: ARG002
        """See Handler."""
        while True:
            with self._changed:
                while not self._idle and not self._free:
                    self._changed.wait()  # for the end of one that is being replaced
                if not self._idle:
                    number = self._number()
                    break
                worker = self._idle.pop()
            if worker.generation != self._generation:
                self._retire(worker, self._grace, None)
            elif (surplus := worker.surplus()) is None:
                return self._run(worker)
            else:
                self._remove_idle(worker, surplus)
        return self._run(self._start_worker(number, request.path))

    def _run(self, worker: Worker) -> WorkerRun:
        return WorkerRun(worker, self._may_stay, self._done)

    def _may_stay(self, worker: Worker) -> bool:
        """Whether it may answer more than the request that it is answering."""
        return worker.generation == self._generation and worker.requests + 1 != self._max_requests

    def _number(self) -> int:
        """A free number, unless none may be started now: then SipcError. Under the lock."""
        left = self._not_before - monotonic()
        if left > 0:
            raise SipcError(
                f"workers fail to start ({self._reason}), the next is started in {left:.1f} s",
                "see what they write to standard error",
            )
        return self._free.pop()

    def _start_worker(self, number: int, path: str) -> Worker:
        environment = {**self._environment, "UNIXLOCALPATH": path, "SIPC_WORKER": str(number)}
        generation = self._generation  # before it is started: it may read its files at once
        try:
            process, pipes = start_worker(self._command, environment, self._limit)
        except (OSError, SipcError) as error:
            text = f"no pipe: {error.strerror}" if isinstance(error, OSError) else str(error)
            with self._changed:
                self._note_failure(text)
                self._give_number_back(number)
            raise SipcError(f"no worker: {text}") from error
        worker = Worker(number, generation, process, pipes)
        with self._changed:
            self._started += 1
            keeper = self._ready_keeper()
        if keeper is not None:
            keeper.watch(process)
        self._log.detail(f"{worker} was started")
        return worker

    def _done(self, run: WorkerRun, grace: float, hurry: Latch | None) -> None:
        """A run was stopped: keep its worker, or end it."""
        worker = run.worker
        if run.answered:
            self._failures, self._not_before = 0, 0.0
        if run.surplus:
            self._log.problem(f"{worker} wrote behind its answer: {run.surplus}: it is replaced")
        elif run.fit:
            self._keep(worker, grace, hurry)
            return
        elif run.ignored and not worker.answers:
            with self._changed:
                self._note_failure(f"{worker} {run.failure}")
        self._end(worker, grace, hurry, at_once=True)

    def _keep(self, worker: Worker, grace: float, hurry: Latch | None) -> None:
        """It has answered, and waits for the next request, if it may have another."""
        full = self._max_requests is not None and worker.requests >= self._max_requests
        if full or worker.generation != self._generation:
            self._retire(worker, grace, hurry)
            return
        worker.rest()
        with self._changed:
            self._idle.append(worker)
            self._changed.notify()
        if worker.generation != self._generation and self._keeper is not None:
            self._keeper.ring()  # the order to replace it came in between

    def _note_failure(self, reason: str) -> None:
        """One has failed before it read anything: the second in a row, and all then, cost a pause.

        One that has read its request may have failed because of it. That is no reason to let
        other requests wait.
        """
        self._failed += 1
        self._reason = reason
        if self._failures:
            pause = min(_MAX_DELAY, _FIRST_DELAY * 2 ** min(self._failures - 1, 20))
            self._not_before = monotonic() + pause
        self._failures += 1

    # -- the end of a worker -----------------------------------------------------------------

    def _remove_idle(self, worker: Worker, surplus: str) -> None:
        """One that waited for a request has done something else."""
        tell = self._log.detail if surplus == "ended: exit status 0" else self._log.problem
        tell(f"{worker} {surplus}, while it had no request: it is replaced")
        self._end(worker, self._grace, None, at_once=True)

    def _retire(self, worker: Worker, grace: float, hurry: Latch | None) -> None:
        self._log.detail(f"{worker} has answered {worker.answers} requests and is replaced")
        self._end(worker, grace, hurry, at_once=False)

    def _end(self, worker: Worker, grace: float, hurry: Latch | None, *, at_once: bool) -> None:
        """End it, and only then let another have its number. Raises SipcError."""
        if self._keeper is not None:
            self._keeper.forget(worker.process)
        try:
            if at_once:
                worker.stop(grace, hurry)
            else:
                worker.retire(grace, hurry)
        finally:
            with self._changed:
                self._ended += 1
                self._give_number_back(worker.number)

    def _give_number_back(self, number: int) -> None:
        """Under the lock."""
        self._free.append(number)
        self._free.sort(reverse=True)
        self._changed.notify()

    # -- while nothing is asked --------------------------------------------------------------

    def _ready_keeper(self) -> Keeper | None:
        """Who looks after the idle; without one, their end is noticed when they are needed."""
        if self._keeper is None:
            try:
                self._keeper = Keeper(self._tend)
                self._keeper.start()
            except SipcError as error:
                self._log.problem(error.text)
        return self._keeper

    def _tend(self) -> float | None:
        """End those idle ones that have ended, or are of an older generation."""
        while (worker := self._unfit()) is not None:
            hurry = self._keeper.hurry if self._keeper is not None else None
            try:
                if worker.process.status() is None:
                    self._retire(worker, self._grace, hurry)
                else:
                    self._remove_idle(worker, worker.surplus() or "ended")
            except SipcError as error:
                self._log.problem(error.text)
        return None

    def _unfit(self) -> Worker | None:
        with self._changed:
            for worker in self._idle:
                old = worker.generation != self._generation
                if old or worker.process.status() is not None:
                    self._idle.remove(worker)
                    return worker
        return None

    def end(self, grace: float, hurry: Latch) -> None:
        """See Handler. All at once, so that it takes no longer than the slowest of them."""
        if self._keeper is not None:
            self._keeper.close(hurry)
            self._keeper = None
        with self._changed:
            idle, self._idle = self._idle, []
        threads = [Thread(target=self._end_idle, args=(each, grace, hurry)) for each in idle]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        numbers = (f"{value} {name}" for name, value in self.counts().items())
        self._log.detail(", ".join(numbers).replace("_", " "))

    def _end_idle(self, worker: Worker, grace: float, hurry: Latch) -> None:
        try:
            self._end(worker, grace, hurry, at_once=False)
        except SipcError as error:
            self._log.problem(error.text)
