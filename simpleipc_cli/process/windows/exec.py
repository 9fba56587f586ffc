"""A process per request on Windows: see handlers/process.py, and spawn_windows.py for how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from simpleipc_cli.errors import SipcError
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process.windows.child import Files, WinProcess
from simpleipc_cli.server.handler import Handler, HandlerRun, Request, Result
from simpleipc_cli.spool import Spool
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import Latch
from simpleipc_cli.transport.windows import win32

_CRASHED = 0x80000000  # from here on, statuses are the system's own, best known in hexadecimal


@cache
def _own_user_only() -> win32.SecurityDescriptor:
    """Who may open a handler's pipes. One a process. Raises OSError."""
    return win32.SecurityDescriptor(f"D:P(A;;GA;;;{win32.own_user()})")


class WinCommand:
    """A command line for the system's shell."""

    def __init__(self, line: str, search_path: str) -> None:  # noqa: ARG002 - the shell looks
        """See handlers.command.Command."""
        self.line = line

    def is_missing(self) -> bool:
        """Whether there surely is no such command: only the shell knows."""
        return False

    def shell_argv(self, shell: str) -> str:
        """The command line that starts it. /s: the shell removes our quotes, and no others."""
        return f'"{shell}" /d /s /c "{self.line}"'


class WinProcessHandler(Handler):
    """Starts a command for every request."""

    accepts_spooled = False

    def __init__(
        self,
        command: WinCommand,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
    ) -> None:
        """Every handler gets `environment`, and the variables of its request."""
        self._command = command
        self._environment = {**environment, "PROTO": "UNIX"}
        self._limit = limit

    def run(self, request: Request, spooled: Spool | None) -> WinProcessRun:
        environment = {
            **self._environment,
            "UNIXLOCALPATH": request.path,
            "UNIXREMOTEPID": str(request.peer.pid),
            "SIPC_REQUEST_ID": request.id,
        }
        return start_process(self._command, environment, self._limit, spooled)


def start_process(
    command: WinCommand,
    environment: Mapping[str, str],
    limit: DescriptorLimit,  # noqa: ARG001 - there is none
    spooled: Spool | None,  # noqa: ARG001 - see WinProcessHandler.accepts_spooled
) -> WinProcessRun:
    """Start a handler, its standard input a pipe. Raises SipcError."""
    try:
        files = Files(_own_user_only())
    except OSError as error:
        raise SipcError(f"no pipe for the handler: {win32.words(error)}") from error
    try:
        return WinProcessRun(_started(command, environment, files), files)
    except OSError as error:
        raise SipcError(f"cannot start {command.line!r}: {win32.words(error)}") from error


def start_worker(
    command: WinCommand,
    environment: Mapping[str, str],
    limit: DescriptorLimit,  # noqa: ARG001 - there is none
) -> tuple[WinProcess, WinPipes]:
    """See process.start_worker(). Raises OSError."""
    files = Files(_own_user_only(), kept=0)  # see WinPipes
    return _started(command, environment, files), WinPipes(files)


def _started(command: WinCommand, environment: Mapping[str, str], files: Files) -> WinProcess:
    """A process that has `files`, which are closed if it cannot be started. Raises OSError."""
    line = command.shell_argv(environment.get("COMSPEC", "cmd.exe"))
    try:
        process = WinProcess(line, environment, files)
    except BaseException:
        files.close()
        raise
    files.close_theirs()
    return process


class WinPipes:
    """Our ends of the pipes to and from a worker: see pipes.Pipes.

    Windows does not report how much of a pipe's content its reader has read: the other end's count
    may be queried only while no process reads there, and an idle worker reads. So nothing is left
    in the pipe, and each write is one packet's length, or what follows it: what is written has been
    read, and a worker that has not read a packet's length has read nothing of its payload.
    """

    def __init__(self, files: Files) -> None:
        """Take over the files."""
        self.writer = files.writer.descriptor
        self.reader = files.reader.descriptor
        self._files = files

    def write(self, buffers: list[Buffer]) -> int:
        """See Pipes. The first buffer alone, if there is anything in it: a packet's length.

        Behind BlockingIOError the same bytes must be offered again.
        """
        return self._files.writer.write_nowait(buffers[:1] if buffers[0] else buffers)

    def read(self, buffer: memoryview) -> int:
        """See Pipes."""
        return self._files.reader.read_nowait(buffer)

    def unread(self) -> int:
        """Return the unread bytes; negative if the worker has read more than write() returned."""
        return -self._files.writer.unreported

    def close_writer(self) -> None:
        """See Pipes."""
        self._files.writer.close()

    def close(self) -> None:
        """See Pipes."""
        self._files.close()


def describe(status: int) -> tuple[str, str]:
    """How a process ended: in one word, and for people."""
    word = str(status) if status < _CRASHED else f"0x{status:08X}"
    return word, f"exit status {word}"


class WinProcessRun(HandlerRun):
    """A running handler process."""

    def __init__(self, process: WinProcess, files: Files) -> None:
        """Takes over the process and our ends of its pipes."""
        self.process = process
        self.on_stopped: Callable[[], None] | None = None
        """Called after the process has been stopped."""
        self._writer = files.writer
        self._reader = files.reader
        self.input = files.writer.descriptor
        self.output = files.reader.descriptor
        self.exit = process.descriptor

    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:  # noqa: ARG002
        return self._writer.write_nowait(payload)

    def end_input(self) -> None:
        self.input = -1
        self._writer.close()

    def abandon_input(self) -> None:
        """Leave the pipe open, as ProcessRun does."""

    def read(self, buffer: memoryview) -> list[memoryview]:
        count = self._reader.read_nowait(buffer)
        if not count:
            self.output = -1
            return []
        return [buffer[:count]]

    def has_output(self) -> bool:
        """Return whether some of the response can be read."""
        try:
            return self._reader.peek_nowait()
        except BlockingIOError:
            return False

    def end_output(self) -> None:
        self.output = -1

    def result(self) -> Result | None:
        status = self.process.status()
        return None if status is None else Result(status == 0, *describe(status))

    def stop(self, grace_period: float, kill_now: Latch | None) -> None:
        try:
            self.process.stop(grace_period, kill_now)
        finally:
            self.end_input()
            self.end_output()
            self._reader.close()
            if self.on_stopped is not None:
                self.on_stopped()
