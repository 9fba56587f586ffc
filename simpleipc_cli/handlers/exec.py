"""A process for each request: the payload is its standard input, the response its output.

The process starts when the request arrives, or earlier (--prestart), so that the request need not
wait for the start. For each prestarted process that gets a request, the supervisor's thread starts
another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from simpleipc_cli.errors import SipcError
from simpleipc_cli.handlers.base import SUPERVISOR_FDS, Program, SupervisedHandler
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process import ChildProcess, Guardian, StdioPipes, describe
from simpleipc_cli.server.handler import Handler, HandlerRun, RequestInfo, Result
from simpleipc_cli.spool import Spool
from simpleipc_cli.system import HAS_OWNERSHIP
from simpleipc_cli.transport import Poller, WakeupEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.handlers.stderr import LoggedStderr

_QUICK = 0.003  # seconds; a start that took less is quick, see run_nowait() (tunable)
_QUICK_FOR = 10.0  # seconds after a quick start in which the next is expected quick (tunable)


class ProcessHandler(Handler):
    """Starts a process for every request."""

    accepts_spooled = StdioPipes.accepts_file
    has_quick_runs = ChildProcess.may_stop_nowait

    def __init__(self, program: Program) -> None:
        """Raises SipcError if the system forbids what every process needs."""
        self._program = program
        self.run_fds = program.run_fds()
        self._quick_until = 0.0
        self.guardian = Guardian()

    def start(self, poller: Poller, wake: Callable[[], object]) -> None:
        self._program.start(poller, wake)

    def run_nowait(
        self, request: RequestInfo, payload: Sequence[Buffer] | None
    ) -> ProcessRun | None:
        """Start a process if the last one was started quickly.

        A start returns when the child has had a processor and has read the program's file. Beside
        busy processes the child waits for a processor, and a file system may hang: then starts in
        worker threads overlap.
        """
        if monotonic() >= self._quick_until:
            return None
        return self.run(request, None, payload)

    def run(
        self, request: RequestInfo, spooled: Spool | None, payload: Sequence[Buffer] | None
    ) -> ProcessRun:
        variables = {"UNIXREMOTEPID": str(request.peer.pid), "SIPC_REQUEST_ID": request.id}
        if HAS_OWNERSHIP:
            variables["UNIXREMOTEEUID"] = str(request.peer.uid)
            variables["UNIXREMOTEEGID"] = str(request.peer.gid)
        if "-1" in variables.values():  # unknown
            variables = {name: value for name, value in variables.items() if value != "-1"}
        began = monotonic()
        run = _start_process(self._program, variables, self.guardian, spooled, payload, request.id)
        now = monotonic()
        self._quick_until = now + _QUICK_FOR if now < began + _QUICK else 0.0
        return run

    def close(self, kill_now: WakeupEvent) -> None:  # noqa: ARG002 - no process is idle
        self.guardian.close()


class ProcessRun(StdioPipes, HandlerRun):
    """A handler process and the server's ends of its pipes. Created by _start_process()."""

    process: ChildProcess
    grace_period: float
    stderr: LoggedStderr | None = None
    on_stopped: Callable[[], None] | None = None
    """Called after the process has been stopped."""
    generation = 0
    """Number of reloads before the start, for a prestarted process."""
    is_rejected = False
    """Whether a request has found it unusable."""

    def can_answer(self) -> bool:
        """Return whether the process runs, or has already written output and exited with status 0.

        Exit status 0 without output may mean that the process timed out while waiting for input.
        """
        status = self.process.status()
        return status is None or (status == 0 and self.has_output())

    def result(self) -> Result | None:
        status = self.process.status()
        return None if status is None else Result(status == 0, *describe(status))

    def stop(self, kill_now: WakeupEvent | None) -> None:
        """Stop the process and its children. Without `kill_now` they get the whole grace period."""
        try:
            self.process.stop(self.grace_period, kill_now)
        finally:
            self._on_end()

    def kill(self) -> None:
        self.process.kill()

    def stop_nowait(self) -> bool:
        is_over = True
        try:
            is_over = self.process.stop_nowait()
        finally:
            if is_over:
                self._on_end()
        return is_over

    def _on_end(self) -> None:
        if self.stderr is not None:
            self.stderr.close()
        self.close()
        if self.on_stopped is not None:
            self.on_stopped()


def _start_process(
    program: Program,
    variables: Mapping[str, str],
    guardian: Guardian,
    spooled: Spool | None = None,
    payload: Sequence[Buffer] | None = None,
    request_id: str = "",
) -> ProcessRun:
    """Start a process. Its standard input is a pipe or the spooled request.

    `payload` is the whole request, if it has arrived. `variables` are added to the environment.
    Raises SipcError.
    """
    errors = program.stderr
    run = ProcessRun(
        None if spooled is None else spooled.descriptor(),
        None if errors is None else errors.of_child,
    )
    if spooled is None and (payload is None or not run.write_whole(payload)):
        run.guard_input(guardian)
    run.process = run.spawn(program.command, program.environment, program.limit, variables)
    run.exit = run.process.descriptor
    if errors is not None:
        run.stderr = errors.watch(run.errors, run.process.pid, request_id)
    run.grace_period = program.grace_period
    if spooled is not None:
        spooled.close()
    return run


class PrestartHandler(SupervisedHandler[ProcessRun]):
    """Answers requests with idle processes, or with new ones if none is idle."""

    has_quick_runs = ChildProcess.may_stop_nowait

    def __init__(self, program: Program, *, count: int) -> None:
        """Keep `count` processes idle from start() on."""
        super().__init__(program)
        self._on_demand = ProcessHandler(program)
        self._count = count
        self.min_fds = self.held_fds = count * self._process_fds + SUPERVISOR_FDS

    def start(self, poller: Poller, wake: Callable[[], object]) -> None:
        super().start(poller, wake)
        self._start_supervisor()

    def close(self, kill_now: WakeupEvent) -> None:
        super().close(kill_now)
        self._on_demand.close(kill_now)

    def run_nowait(
        self, request: RequestInfo, payload: Sequence[Buffer] | None
    ) -> ProcessRun | None:
        run = self._take_idle() or self._on_demand.run_nowait(request, payload)
        return None if run is None else self._assign(run, request)

    def run(
        self, request: RequestInfo, spooled: Spool | None, payload: Sequence[Buffer] | None
    ) -> ProcessRun:
        run = self._take_idle() or self._on_demand.run(request, spooled, payload)
        return self._assign(run, request)

    def _assign(self, run: ProcessRun, request: RequestInfo) -> ProcessRun:
        if run.stderr is not None:
            run.stderr.set_request(request.id)
        run.on_stopped = self._wake_supervisor
        return run

    def _take_idle(self) -> ProcessRun | None:
        """Return the oldest process that can answer. The supervisor replaces unusable ones."""
        with self._lock:
            for idle in self._idle:
                if not self._is_replaced(idle) and idle.can_answer():
                    self._remove(idle)
                    if self._has_failed:
                        self._reset_backoff()
                    return idle
                idle.is_rejected = True
        return None

    def _maintain(self, kill_now: WakeupEvent) -> float | None:
        """Stop unusable processes, and start missing ones."""
        while (idle := self._take_unusable()) is not None:
            if status := idle.process.status():
                self._record_failure(describe(status)[1])
            self._stop_logged(idle, kill_now)
        while len(self._idle) < self._count:
            left = self._retry_at - monotonic()
            if left > 0:
                return left
            generation = self._generation  # before the start: the process may read old files
            try:
                run = _start_process(self._program, {}, self._on_demand.guardian)
            except SipcError as error:
                self._record_failure(str(error))
                continue
            run.generation = generation
            with self._lock:
                self._idle.append(run)
                if self._supervisor is not None:
                    self._supervisor.add(run.process)
        return None

    def _is_replaced(self, idle: ProcessRun) -> bool:
        return idle.generation != self._generation or idle.is_rejected

    def _is_unusable(self, idle: ProcessRun) -> bool:
        return self._is_replaced(idle) or bool(idle.process.status())

    def _remove(self, idle: ProcessRun) -> None:
        self._idle.remove(idle)
        if self._supervisor is not None:
            self._supervisor.remove(idle.process)

    def _record_failure(self, reason: str) -> None:
        """Log the first of consecutive failures, and back off."""
        if not self._has_failed:
            self._log.warning(f"a prestarted handler ended before its request: {reason}")
        with self._lock:
            self._has_failed = True
            self._delay_next_start()

    def _stop(self, idle: ProcessRun, kill_now: WakeupEvent | None) -> None:
        """Stop a process without closing its input, which would look like an empty request."""
        idle.stop(kill_now)
