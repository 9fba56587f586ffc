"""The common code of handlers: their program, and the supervision of idle processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Condition, Event, Lock, Thread, get_ident
from time import monotonic
from typing import Generic, Protocol, TypeVar

from simpleipc_cli.deadline import Backoff, Deadline
from simpleipc_cli.errors import SipcError
from simpleipc_cli.process import Command, exit_watch_fds, prepare_spawn
from simpleipc_cli.server.context import Log
from simpleipc_cli.server.handler import Handler
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import (
    READ,
    Poller,
    WakeupEvent,
    new_scalable_poller,
    new_wakeup_event,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.handlers.stderr import HandlerStderr, LoggedStderr
    from simpleipc_cli.process import ChildProcess

_OF_A_REQUEST = {"UNIXREMOTEPID", "UNIXREMOTEEUID", "UNIXREMOTEEGID", "SIPC_REQUEST_ID"}

_POLL_INTERVAL = 0.05  # seconds between checks of `kill_now` (tunable)
_KILL_TIMEOUT = 0.5  # seconds to wait for threads after `kill_now` (tunable)
_MAX_STOP = 5.0  # seconds to wait for threads after the grace period
_START_DELAYS = (0.1, 10.0)  # seconds after failed starts: first and longest (tunable)

SUPERVISOR_FDS = 4
"""Descriptors of a supervisor: epoll, two wakeup events, one spare."""


class IdleProcess(Protocol):
    """A process that waits for a request."""

    stderr: LoggedStderr | None


_Idle = TypeVar("_Idle", bound=IdleProcess)


@dataclass(frozen=True, slots=True)
class Program:
    """The program of a handler, and its settings."""

    command: Command
    environment: Mapping[str, str]
    """Environment of each process, from handler_environment(). It must never change."""
    limit: DescriptorLimit
    log: Log
    grace_period: float
    """Seconds from SIGTERM to SIGKILL."""
    stderr: HandlerStderr | None = None
    """None: the processes inherit standard error."""

    def process_fds(self) -> int:
        """Return the number of descriptors of an idle process: its pipes, and what watches it.

        Raises SipcError if the system forbids what every process needs.
        """
        return 2 + exit_watch_fds() + (0 if self.stderr is None else self.stderr.fds)

    def run_fds(self) -> int:
        """Return the descriptors of Handler.run_fds. Raises SipcError as process_fds()."""
        # Both ends of the pipe for standard error. The server counts one of those that watch.
        return exit_watch_fds() - 1 + (0 if self.stderr is None else 2 * self.stderr.fds)

    def start(self, poller: Poller, wake: Callable[[], object]) -> None:
        """Prepare to start processes; see Handler.start()."""
        prepare_spawn()
        if self.stderr is not None:
            self.stderr.start(poller, wake)


def handler_environment(environment: Mapping[str, str], path: str) -> dict[str, str]:
    """Return the environment of all processes, without variables that describe one request.

    `environment` is the server's, `path` the endpoint's absolute path; "" if it is unknown.
    """
    kept = {name: value for name, value in environment.items() if name not in _OF_A_REQUEST}
    variables = {"PROTO": "UNIX", "UNIXLOCALPATH": path}
    if not path:
        del variables["UNIXLOCALPATH"]
    return {**kept, **variables}


class Supervisor:
    """Calls `maintain` in a thread: when a process has exited, after wake(), and when due."""

    def __init__(self, maintain: Callable[[WakeupEvent], float | None], log: Log) -> None:
        """`maintain` returns the seconds until its next call is due, or None.

        Its argument is an event that is set when processes must be killed. Call start() next.
        Raises OSError without free descriptors.
        """
        self._maintain = maintain
        self._log = log
        self._lock = Lock()
        self._processes: dict[int, ChildProcess] = {}
        self._closing = Event()
        self._kill_now: WakeupEvent = new_wakeup_event()
        self._wakeup = new_wakeup_event()
        self._poller = new_scalable_poller()
        self._poller.register(self._wakeup.fileno(), READ, self._on_wakeup)
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system has no more threads."""
        self._thread.start()

    def add(self, process: ChildProcess) -> None:
        """Watch for the exit of this process."""
        number = process.descriptor
        with self._lock:
            try:
                self._poller.register(number, READ, partial(self._on_exit, number))
            except OSError:
                return  # no memory: its exit is noticed when a request needs it
            self._processes[number] = process
        if get_ident() != self._thread.ident:
            self.wake()  # see Poller

    def remove(self, process: ChildProcess) -> None:
        """Stop watching a process. Call this before the process is stopped."""
        with self._lock:
            if self._processes.get(process.descriptor) is process:
                self._remove(process.descriptor)

    def is_watching(self, process: ChildProcess) -> bool:
        """Return whether remove() has not been called, and no exit was noticed."""
        return process.descriptor in self._processes

    def wake(self) -> None:
        """Make the thread call `maintain`. A signal handler may call this."""
        self._wakeup.set()

    def close(self, seconds: float, kill_now: WakeupEvent) -> None:
        """End the thread after `maintain` returns; `kill_now` shortens the wait.

        If the thread hangs, give it up after some seconds, with its resources.
        """
        self._closing.set()
        self._wakeup.set()
        if not _join(self._thread, seconds, kill_now, self._kill_now.set):
            return
        self._poller.close()
        self._wakeup.close()
        self._kill_now.close()

    def _run(self) -> None:
        timeout: float | None = 0.0
        backoff = Backoff(*_START_DELAYS)
        while not self._closing.is_set():
            try:
                self._poller.dispatch(timeout)
                if not self._closing.is_set():
                    timeout = self._maintain(self._kill_now)
                backoff.reset()
            except Exception as error:  # internal error: idle processes still need the thread
                self._log.warning(f"unexpected {type(error).__name__} in a thread: {error}")
                self._closing.wait(backoff.next())
                timeout = 0.0

    def _on_wakeup(self, _events: int) -> None:
        self._wakeup.clear()

    def _on_exit(self, number: int, _events: int) -> None:
        """Stop watching a process that has exited.

        Do nothing if the descriptor has been closed and its number reused for another process.
        """
        with self._lock:
            process = self._processes.get(number)
            if process is not None and process.status() is not None:
                self._remove(number)

    def _remove(self, number: int) -> None:
        del self._processes[number]
        self._poller.unregister(number)


def _join(
    thread: Thread,
    seconds: float,
    kill_now: WakeupEvent,
    on_kill: Callable[[], object] = bool,
    on_poll: Callable[[], object] = bool,
) -> bool:
    """Wait for a thread, only a short time after `kill_now`; return whether it has ended.

    `on_kill` is called when `kill_now` is set, `on_poll` repeatedly.
    """
    deadline = Deadline(seconds)
    is_killing = False
    while thread.is_alive() and not deadline.expired():
        thread.join(_POLL_INTERVAL)
        on_poll()
        if kill_now.is_set() and not is_killing:
            is_killing = True
            on_kill()
            deadline = Deadline(_KILL_TIMEOUT)
    return not thread.is_alive()


class SupervisedHandler(Handler, Generic[_Idle]):
    """A handler with idle processes that a supervisor maintains."""

    def __init__(self, program: Program) -> None:
        """Raises SipcError if the system forbids what every process needs."""
        self._program = program
        self._log = program.log
        self.run_fds = program.run_fds()
        self._process_fds = program.process_fds()
        self._supervisor: Supervisor | None = None
        self._generation = 0  # number of reloads, set by a signal handler; new processes get it
        self._lock = Condition(Lock())
        self._idle: list[_Idle] = []  # guarded by the lock
        self._backoff = Backoff(*_START_DELAYS)
        self._has_failed = False  # whether the last started process has failed
        self._retry_at = 0.0  # earliest time of the next start

    def start(self, poller: Poller, wake: Callable[[], object]) -> None:
        self._program.start(poller, wake)

    def reload(self) -> None:
        self._generation += 1
        self._wake_supervisor()

    def close(self, kill_now: WakeupEvent) -> None:
        """Stop all idle processes at the same time."""
        seconds = self._program.grace_period + _MAX_STOP
        if self._supervisor is not None:
            self._supervisor.close(seconds, kill_now)
            self._supervisor = None
        with self._lock:
            idle, self._idle = self._idle, []
        threads = []

        def read_stderr() -> None:
            for each in idle:
                if each.stderr is not None:
                    each.stderr.read_available()

        for each in idle:
            thread = Thread(target=self._stop_logged, args=(each, kill_now), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads: stop the processes one after the other
                self._stop_logged(each, kill_now)
            else:
                threads.append(thread)
        for thread in threads:
            _join(thread, seconds, kill_now, on_poll=read_stderr)

    @abstractmethod
    def _maintain(self, kill_now: WakeupEvent) -> float | None:
        """Replace idle processes as needed; see Supervisor."""

    @abstractmethod
    def _is_unusable(self, idle: _Idle) -> bool:
        """Return whether an idle process must be replaced."""

    @abstractmethod
    def _remove(self, idle: _Idle) -> None:
        """Remove a process from the list. Hold the lock."""

    @abstractmethod
    def _stop(self, idle: _Idle, kill_now: WakeupEvent | None) -> None:
        """Stop a process that is no longer in the list. Raises SipcError."""

    def _take_unusable(self) -> _Idle | None:
        with self._lock:
            for idle in self._idle:
                if self._is_unusable(idle):
                    self._remove(idle)
                    return idle
        return None

    def _stop_logged(self, idle: _Idle, kill_now: WakeupEvent | None) -> None:
        try:
            self._stop(idle, kill_now)
        except SipcError as error:
            self._log.warning(error.text)

    def _start_supervisor(self) -> None:
        """Start the supervisor; log a warning if that fails."""
        try:
            # Set the attribute before its thread, which needs it, starts.
            self._supervisor = Supervisor(self._maintain, self._log)
            self._supervisor.start()
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            self._log.warning(f"cannot supervise idle handlers: {reason}")

    def _wake_supervisor(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wake()

    def _delay_next_start(self) -> None:
        self._retry_at = monotonic() + self._backoff.next()

    def _reset_backoff(self) -> None:
        self._has_failed = False
        self._retry_at = 0.0
        self._backoff.reset()
