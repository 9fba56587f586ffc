"""A process per request: the payload is its standard input, its output is the response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic

from simpleipc_cli.process import (
    ChildProcess,
    Command,
    StdioPipes,
    WorkerPipes,
    describe,
    prepare_spawn,
)
from simpleipc_cli.server.handler import Handler, HandlerRun, Request, Result
from simpleipc_cli.spool import Spool
from simpleipc_cli.system import HAS_OWNERSHIP
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import WakeupEvent

PER_REQUEST = (
    "UNIXREMOTEPID",
    "UNIXREMOTEEUID",
    "UNIXREMOTEEGID",
    "SIPC_REQUEST_ID",
)
"""Environment variables of one request: not for processes that are started before it."""

_OF_A_REQUEST = {"UNIXLOCALPATH", *PER_REQUEST}

_QUICK = 0.05  # seconds that a start on the event loop may take (tunable)
_QUICK_FOR = 10.0  # seconds after a quick start in which others are expected to be (tunable)


class ProcessHandler(Handler):
    """Starts a command for every request."""

    accepts_spooled = StdioPipes.accepts_file

    def __init__(
        self, command: Command, environment: Mapping[str, str], limit: DescriptorLimit
    ) -> None:
        """Every handler gets `environment`, and the variables of its request."""
        self._command = command
        kept = {name: value for name, value in environment.items() if name not in _OF_A_REQUEST}
        self._environment = {**kept, "PROTO": "UNIX"}
        self._limit = limit
        self._quick_until = 0.0

    def start(self) -> None:
        prepare_spawn()

    def run_nowait(self, request: Request) -> ProcessRun | None:
        """Start a process if the last one was started quickly.

        A start waits for the program's file to be read, and a file system may hang.
        """
        if monotonic() >= self._quick_until:
            return None
        return self.run(request, None)

    def run(self, request: Request, spooled: Spool | None) -> ProcessRun:
        variables = {
            "UNIXLOCALPATH": request.path,
            "UNIXREMOTEPID": str(request.peer.pid),
            "SIPC_REQUEST_ID": request.id,
        }
        if HAS_OWNERSHIP:
            variables["UNIXREMOTEEUID"] = str(request.peer.uid)
            variables["UNIXREMOTEEGID"] = str(request.peer.gid)
        began = monotonic()
        run = start_process(self._command, self._environment, self._limit, spooled, variables)
        now = monotonic()
        self._quick_until = now + _QUICK_FOR if now < began + _QUICK else 0.0
        return run


class ProcessRun(StdioPipes, HandlerRun):
    """A running handler process, and our ends of its pipes. Made by start_process()."""

    process: ChildProcess
    on_stopped: Callable[[], None] | None = None
    """Called after the process has been stopped."""

    def result(self) -> Result | None:
        status = self.process.status()
        return None if status is None else Result(status == 0, *describe(status))

    def stop(self, grace_period: float, kill_now: WakeupEvent | None) -> None:
        """Stop the process and its children. Without `kill_now` it gets the whole grace period."""
        try:
            self.process.stop(grace_period, kill_now)
        finally:
            self.close()
            if self.on_stopped is not None:
                self.on_stopped()

    def stop_nowait(self) -> bool:
        if not self.process.stop_nowait():
            return False
        self.close()
        if self.on_stopped is not None:
            self.on_stopped()
        return True


def start_process(
    command: Command,
    environment: Mapping[str, str],
    limit: DescriptorLimit,
    spooled: Spool | None,
    variables: Mapping[str, str],
) -> ProcessRun:
    """Start a handler with a pipe or the spooled request as its standard input. Raises SipcError.

    `environment` must never change; `variables` are added to it.
    """
    run = ProcessRun(None if spooled is None else spooled.descriptor())
    run.process = run.spawn(command, environment, limit, variables)
    run.exit = run.process.descriptor
    if spooled is not None:
        spooled.close()
    return run


def start_worker(
    command: Command, environment: Mapping[str, str], limit: DescriptorLimit
) -> tuple[ChildProcess, StdioPipes]:
    """Start a persistent process with pipes to and from it. Raises SipcError."""
    pipes = WorkerPipes()
    return pipes.spawn(command, environment, limit, {}), pipes
