"""A process per request: the payload is its standard input, its output is the response."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from simpleipc_cli.errors import PeerClosed, SipcError
from simpleipc_cli.handlers.variables import PER_REQUEST
from simpleipc_cli.message import MAX_BUFFERS
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process.posix.child import Process, describe, spawn
from simpleipc_cli.process.posix.command import Command
from simpleipc_cli.process.posix.posix_spawn import NOTHING, best_spawn
from simpleipc_cli.process.posix.stdio_pipes import Pipes, unread
from simpleipc_cli.server.handler import Handler, Request, Result, Run
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.system.pipes import grow_pipe
from simpleipc_cli.transport import Latch

_QUICK = 0.05  # seconds for a start that others may have to wait for, at will
_QUICK_FOR = 10.0  # seconds from such a start in which others are taken to be as quick, at will

_OF_A_REQUEST = {"UNIXLOCALPATH", *PER_REQUEST}

_MUCH = 32 * 1024
"""Bytes moved at once that show a stream: half of what a pipe holds unless told otherwise."""


class ProcessHandler(Handler):
    """Starts a command for every request."""

    def __init__(
        self, command: Command, environment: Mapping[str, str], limit: DescriptorLimit
    ) -> None:
        """`environment` is what every handler gets; each request adds its own."""
        self._command = command
        kept = {name: value for name, value in environment.items() if name not in _OF_A_REQUEST}
        self._environment = {**kept, "PROTO": "UNIX"}
        self._limit = limit
        self._quick_until = 0.0

    def begin(self) -> None:
        """See Handler. What starts handlers is loaded before there is a request to wait for it."""
        best_spawn()

    def start_now(self, request: Request) -> ProcessRun:
        """See Handler. If starting was quick lately: it waits for the program's file to be read,
        and where a file system hangs only threads shall.
        """
        if monotonic() >= self._quick_until:
            raise BlockingIOError
        return self.start(request, None)

    def start(self, request: Request, stored: Spool | None) -> ProcessRun:
        """See Handler."""
        more = {
            "UNIXLOCALPATH": request.path,
            "UNIXREMOTEPID": str(request.peer.pid),
            "UNIXREMOTEEUID": str(request.peer.uid),
            "UNIXREMOTEEGID": str(request.peer.gid),
            "SIPC_REQUEST_ID": request.id,
        }
        began = monotonic()
        run = start_process(self._command, self._environment, self._limit, stored, more)
        now = monotonic()
        self._quick_until = now + _QUICK_FOR if now < began + _QUICK else 0.0
        return run


def start_process(
    command: Command,
    environment: Mapping[str, str],
    limit: DescriptorLimit,
    stored: Spool | None,
    more: Mapping[str, str] = NOTHING,
) -> ProcessRun:
    """Start a handler, its standard input a pipe or the stored request. Raises SipcError.

    For `environment` and `more` see Start.
    """
    pipes = Pipes()
    try:
        stdin = pipes.to_child() if stored is None else stored.descriptor()
        stdout = pipes.from_child()
        process = spawn(command, environment, [(stdin, 0), (stdout, 1)], limit, more)
    except OSError as error:
        pipes.close()
        raise SipcError(f"no pipe for the handler: {error.strerror}") from error
    except BaseException:
        pipes.close()
        raise
    pipes.close_theirs()
    if stored is not None:
        stored.close()
    return ProcessRun(process, pipes.writer, pipes.reader)


def start_worker(
    command: Command, environment: Mapping[str, str], limit: DescriptorLimit
) -> tuple[Process, Pipes]:
    """Start a process that stays, and pipes to and from it. Raises OSError, SipcError."""
    pipes = Pipes()
    try:
        files = [(pipes.to_child(), 0), (pipes.from_child(), 1)]
        process = spawn(command, environment, files, limit)
    except BaseException:
        pipes.close()
        raise
    pipes.close_theirs()
    return process, pipes


class ProcessRun(Run):
    """A running handler process."""

    def __init__(self, process: Process, writer: int, reader: int) -> None:
        """Takes over the process and our ends of its pipes; -1 for no writer."""
        self.process = process
        self.on_stopped: Callable[[], None] | None = None
        """Called when it has been stopped and nothing of it is left."""
        self.input = writer
        self.output = reader
        self.exit = process.descriptor
        self._writes_much = False
        self._reads_much = False

    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:  # noqa: ARG002
        """See Run."""
        try:
            count = os.writev(self.input, payload[:MAX_BUFFERS])
            if not self._writes_much and count >= _MUCH:
                self._writes_much = True
                grow_pipe(self.input)
            return count
        except BrokenPipeError:
            raise PeerClosed("the handler has closed its standard input") from None

    def end_input(self) -> None:
        """See Run."""
        descriptor, self.input = self.input, -1
        if descriptor >= 0:
            os.close(descriptor)

    def lose_input(self) -> None:
        """See Run. It stays open: something that the handler left behind may still read it,
        and must not take half a request for a whole one.
        """

    def read(self, buffer: memoryview) -> list[memoryview]:
        """See Run."""
        count = os.readv(self.output, [buffer])
        if not self._reads_much and count >= _MUCH:
            self._reads_much = True
            grow_pipe(self.output)
        return [buffer[:count]] if count else []

    def has_output(self) -> bool:
        """Whether some of the response is there to be read."""
        return unread(self.output) > 0

    def end_output(self) -> None:
        """See Run."""
        descriptor, self.output = self.output, -1
        if descriptor >= 0:
            os.close(descriptor)

    def result(self) -> Result | None:
        """See Run."""
        status = self.process.status()
        return None if status is None else Result(status == 0, *describe(status))

    def stop(self, grace: float, hurry: Latch | None) -> None:
        """See Run. Without `hurry` nothing cuts the grace short."""
        try:
            self.process.stop(grace, hurry)
        finally:
            self._end()

    def stop_now(self) -> None:
        """See Run."""
        self.process.stop_now()
        self._end()

    def _end(self) -> None:
        self.end_input()
        self.end_output()
        if self.on_stopped is not None:
            self.on_stopped()
