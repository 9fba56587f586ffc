"""The pool of workers. Workers start when needed, at most one per concurrent request, and stay.

A worker gets one request at a time. It is replaced if a request or response was not completed, or
if it writes anything outside of a response: so no client gets data of another client.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from simpleipc_cli.errors import Shortage, SipcError
from simpleipc_cli.handlers.base import SUPERVISOR_FDS, Program, SupervisedHandler
from simpleipc_cli.handlers.worker import Worker, WorkerRun
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.server.handler import RequestInfo
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import WakeupEvent


class WorkerPool(SupervisedHandler[Worker]):
    """Answers requests with persistent processes."""

    accepts_spooled = False
    has_quick_runs = True
    needs_peer = False

    def __init__(self, program: Program, *, max_workers: int, max_requests: int | None) -> None:
        """Start at most `max_workers`, each for at most `max_requests` requests."""
        super().__init__(program)
        self._max_requests = max_requests
        self.min_fds = self._process_fds + SUPERVISOR_FDS
        self.held_fds = SUPERVISOR_FDS
        # All guarded by the lock. A worker's slot becomes free only after its process has ended.
        self._free_slots = list(range(max_workers, 0, -1))  # the smallest at the end
        self._failure = ""  # why the last worker failed to start
        self._started = self._failed = self._ended = 0

    def stats(self) -> dict[str, int]:
        """Return the counters; `started` is the sum of `running` and `ended`.

        `failed_to_start` counts workers that exited without reading any input, and failures of the
        system to start one, except a Shortage.
        """
        with self._lock:
            return {
                "workers_running": self._started - self._ended,
                "workers_started": self._started,
                "workers_failed_to_start": self._failed,
                "workers_ended": self._ended,
            }

    # -- one request -----------------------------------------------------------------------

    def run_nowait(
        self,
        request: RequestInfo,
        payload: Sequence[Buffer] | None,  # noqa: ARG002 - the server writes the request
    ) -> WorkerRun | None:
        """Use an idle worker; return None if there is none, as starting one may block."""
        with self._lock:
            if not self._idle:
                return None
            worker = self._idle[-1]  # the last one used: its caches are warm
            if worker.generation != self._generation or not worker.is_ready():
                return None
            self._remove(worker)
        return self._new_run(worker, request)

    def run(
        self,
        request: RequestInfo,
        spooled: Spool | None,  # noqa: ARG002
        payload: Sequence[Buffer] | None,  # noqa: ARG002
    ) -> WorkerRun:
        return self._new_run(self._take_worker(request), request)

    def _new_run(self, worker: Worker, request: RequestInfo) -> WorkerRun:
        if worker.stderr is not None:
            worker.stderr.set_request(request.id)
        return WorkerRun(worker, self._can_keep, self._on_stopped)

    def _take_worker(self, request: RequestInfo) -> Worker:
        """Return an idle worker, or a new one. Raises SipcError."""
        while True:
            with self._lock:
                while not self._idle and not self._free_slots:
                    self._lock.wait()  # until a worker that is being replaced has exited
                if not self._idle:
                    slot = self._take_slot()
                    break
                worker = self._idle[-1]
                self._remove(worker)
            is_current = worker.generation == self._generation
            text = worker.unexpected_output() if is_current else None
            if is_current and text is None:
                return worker
            self._replace(worker, text, None)
        return self._start_worker(slot, request)

    def _take_slot(self) -> int:
        """Return a free slot. Raises SipcError during a backoff. Hold the lock."""
        left = self._retry_at - monotonic()
        if left > 0:
            raise SipcError(
                f"workers fail to start ({self._failure}); next attempt in {left:.1f} s",
                "check their standard error",
            )
        return self._free_slots.pop()

    def _release_slot(self, slot: int) -> None:
        """Make the slot free again. Hold the lock."""
        self._free_slots.append(slot)
        self._free_slots.sort(reverse=True)
        self._lock.notify()

    def _start_worker(self, slot: int, request: RequestInfo) -> Worker:
        generation = self._generation  # before the start: the worker may read old files
        try:
            worker = Worker(self._program, slot, generation, request.id)
        except Exception as error:
            with self._lock:
                if not isinstance(error, Shortage):
                    self._record_failure(str(error))
                self._release_slot(slot)
            if isinstance(error, SipcError):
                raise type(error)(f"cannot start a worker: {error}", error.hint) from error
            raise  # internal error, or no memory
        with self._lock:
            self._started += 1
            if self._supervisor is None:
                self._start_supervisor()
            supervisor = self._supervisor
        if supervisor is not None:  # else its exit is noticed when a request needs the worker
            supervisor.add(worker.process)
        self._log.debug(f"started {worker}")
        return worker

    def _record_failure(self, reason: str) -> None:
        """Back off after the second consecutive worker that failed before it read any input.

        A worker that has read its request may have failed because of it: do not delay other
        requests then. Hold the lock.
        """
        self._failed += 1
        self._failure = reason
        if self._has_failed:
            self._delay_next_start()
        self._has_failed = True

    def _can_keep(self, worker: Worker) -> bool:
        """Return whether the worker may answer another request after its current one."""
        return worker.generation == self._generation and worker.requests + 1 != self._max_requests

    def _on_stopped(self, run: WorkerRun, kill_now: WakeupEvent | None) -> None:
        """Keep or stop the worker of a run that has ended. Raises SipcError."""
        worker = run.worker
        if run.is_complete and self._has_failed:
            with self._lock:
                self._reset_backoff()
        if run.unexpected_output:
            self._log.warning(
                f"{worker} wrote past the end of its response ({run.unexpected_output}); "
                "replacing it"
            )
        elif run.is_reusable:
            self._keep(worker, kill_now)
            return
        elif run.request_unread and not worker.responses:
            with self._lock:
                self._record_failure(f"{worker} {run.failure}")
        self._stop(worker, kill_now, end_input=False)

    def _keep(self, worker: Worker, kill_now: WakeupEvent | None) -> None:
        """Make a worker that has answered idle, or replace it."""
        is_used_up = self._max_requests is not None and worker.requests >= self._max_requests
        if is_used_up or worker.generation != self._generation:
            self._replace(worker, None, kill_now)
            return
        worker.mark_idle()
        if worker.stderr is not None:
            worker.stderr.set_request("")
        with self._lock:
            self._idle.append(worker)
            self.held_fds += self._process_fds
            self._lock.notify()
            # The supervisor replaces only idle workers: it has not replaced this one if it has
            # exited, or is of an older generation.
            supervisor = self._supervisor
        if supervisor is not None and not (
            worker.generation == self._generation and supervisor.is_watching(worker.process)
        ):
            supervisor.wake()

    # -- idle workers ----------------------------------------------------------------------

    def _maintain(self, kill_now: WakeupEvent) -> float | None:
        """Replace idle workers that have exited or are of an older generation."""
        while (worker := self._take_unusable()) is not None:
            has_exited = worker.process.status() is not None
            text = worker.unexpected_output() or "ended" if has_exited else None
            self._replace(worker, text, kill_now)
        return None

    def _is_unusable(self, idle: Worker) -> bool:
        return idle.generation != self._generation or idle.process.status() is not None

    def _remove(self, idle: Worker) -> None:
        self._idle.remove(idle)
        self.held_fds -= self._process_fds

    # -- stopping --------------------------------------------------------------------------

    def _replace(self, worker: Worker, text: str | None, kill_now: WakeupEvent | None) -> None:
        """Stop an idle worker. `text` describes its output or exit, if there was one."""
        if text is None:
            self._log.debug(f"replacing {worker} after {worker.responses} responses")
        else:
            log = self._log.debug if text == "ended: exit status 0" else self._log.warning
            log(f"{worker} {text} while idle; replacing it")
        try:
            self._stop(worker, kill_now, end_input=text is None)
        except SipcError as error:
            self._log.warning(error.text)

    def _stop(self, idle: Worker, kill_now: WakeupEvent | None, *, end_input: bool = True) -> None:
        """Stop a worker and release its slot. With `end_input` it must be idle."""
        if self._supervisor is not None:
            self._supervisor.remove(idle.process)
        try:
            idle.stop(kill_now, end_input=end_input)
        finally:
            with self._lock:
                self._ended += 1
                self._release_slot(idle.slot)

    def close(self, kill_now: WakeupEvent) -> None:
        super().close(kill_now)
        numbers = (f"{value} {name}" for name, value in self.stats().items())
        self._log.debug(", ".join(numbers).replace("_", " "))
