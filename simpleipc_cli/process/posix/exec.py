"""A process per request: the payload is its standard input, its output is the response."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from simpleipc_cli.errors import PeerClosed, SipcError
from simpleipc_cli.message import MAX_BUFFERS
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process.environment import PER_REQUEST
from simpleipc_cli.process.posix.child import Process, describe, spawn
from simpleipc_cli.process.posix.command import Command
from simpleipc_cli.process.posix.posix_spawn import NOTHING, best_spawn
from simpleipc_cli.process.posix.stdio_pipes import Pipes, unread
from simpleipc_cli.server.handler import Handler, HandlerRun, Request, Result
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.system.pipes import grow_pipe
from simpleipc_cli.transport import Latch

_QUICK = 0.05  # seconds that a start on the event loop may take (tunable)
_QUICK_FOR = 10.0  # seconds after a quick start in which others are expected to be (tunable)

_OF_A_REQUEST = {"UNIXLOCALPATH", *PER_REQUEST}

_BULK = 32 * 1024
"""Bytes moved at once after which a pipe is enlarged: half of what it holds by default."""


class ProcessHandler(Handler):
    """Starts a command for every request."""

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
        best_spawn()  # loads what starts processes before a request waits for it

    def run_nowait(self, request: Request) -> ProcessRun | None:
        """Start a process if the last one was started quickly.

        A start waits for the program's file to be read, and a file system may hang.
        """
        if monotonic() >= self._quick_until:
            return None
        return self.run(request, None)

    def run(self, request: Request, spooled: Spool | None) -> ProcessRun:
        more = {
            "UNIXLOCALPATH": request.path,
            "UNIXREMOTEPID": str(request.peer.pid),
            "UNIXREMOTEEUID": str(request.peer.uid),
            "UNIXREMOTEEGID": str(request.peer.gid),
            "SIPC_REQUEST_ID": request.id,
        }
        began = monotonic()
        run = start_process(self._command, self._environment, self._limit, spooled, more)
        now = monotonic()
        self._quick_until = now + _QUICK_FOR if now < began + _QUICK else 0.0
        return run


def start_process(
    command: Command,
    environment: Mapping[str, str],
    limit: DescriptorLimit,
    spooled: Spool | None,
    more: Mapping[str, str] = NOTHING,
) -> ProcessRun:
    """Start a handler with a pipe or the spooled request as its standard input. Raises SipcError.

    For `environment` and `more` see Start.
    """
    pipes = Pipes()
    try:
        stdin = pipes.to_child() if spooled is None else spooled.descriptor()
        stdout = pipes.from_child()
        process = spawn(command, environment, [(stdin, 0), (stdout, 1)], limit, more)
    except OSError as error:
        pipes.close()
        raise SipcError(f"no pipe for the handler: {error.strerror}") from error
    except BaseException:
        pipes.close()
        raise
    os.close(stdout)
    if spooled is None:
        os.close(stdin)
    else:
        spooled.close()
    return ProcessRun(process, process.descriptor, pipes.writer, pipes.reader, pipes.reader)


def start_worker(
    command: Command, environment: Mapping[str, str], limit: DescriptorLimit
) -> tuple[Process, Pipes]:
    """Start a persistent process with pipes to and from it. Raises OSError, SipcError."""
    pipes = Pipes()
    try:
        files = [(pipes.to_child(), 0), (pipes.from_child(), 1)]
        process = spawn(command, environment, files, limit)
    except BaseException:
        pipes.close()
        raise
    pipes.close_theirs()
    return process, pipes


@dataclass(eq=False)
class ProcessRun(HandlerRun):
    """A running handler process, and our ends of its pipes."""

    process: Process
    exit: int
    input: int
    """-1 if the process reads a spooled request."""
    output: int
    reader: int
    """The same descriptor as `output`, open until stop()."""
    on_stopped: Callable[[], None] | None = None
    """Called after the process has been stopped."""
    _is_input_enlarged: bool = False
    _is_output_enlarged: bool = False

    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:  # noqa: ARG002
        try:
            count = os.writev(self.input, payload[:MAX_BUFFERS])
        except BrokenPipeError:
            raise PeerClosed("the handler has closed its standard input") from None
        if count >= _BULK and not self._is_input_enlarged:
            self._is_input_enlarged = True
            grow_pipe(self.input)
        return count

    def end_input(self) -> None:
        descriptor, self.input = self.input, -1
        if descriptor >= 0:
            os.close(descriptor)

    def abandon_input(self) -> None:
        """Leave the pipe open.

        A process that the handler left behind may still read it, and must not take half a
        request for a whole one.
        """

    def read(self, buffer: memoryview) -> list[memoryview]:
        count = os.readv(self.output, [buffer])
        if count >= _BULK and not self._is_output_enlarged:
            self._is_output_enlarged = True
            grow_pipe(self.output)
        if not count:
            self.output = -1
            return []
        return [buffer[:count]]

    def has_output(self) -> bool:
        """Return whether some of the response can be read."""
        return unread(self.reader) > 0

    def end_output(self) -> None:
        self.output = -1

    def result(self) -> Result | None:
        status = self.process.status()
        return None if status is None else Result(status == 0, *describe(status))

    def stop(self, grace_period: float, kill_now: Latch | None) -> None:
        """Stop the process and its group. Without `kill_now` it gets the whole grace period."""
        try:
            self.process.stop(grace_period, kill_now)
        finally:
            self._on_stopped()

    def stop_nowait(self) -> bool:
        try:
            self.process.stop_now()
        except BlockingIOError:
            return False
        self._on_stopped()
        return True

    def _on_stopped(self) -> None:
        self.end_input()
        self.end_output()
        os.close(self.reader)
        if self.on_stopped is not None:
            self.on_stopped()
