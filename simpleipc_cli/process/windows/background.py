"""Processes that outlive their parent, on Windows: see posix.background.

Each has a new hidden console, so that neither Ctrl-C nor the end of the parent's console ends it,
and its children open no windows. Standard input and output are NUL; it inherits no other handles.

Windows cannot fork, so a server in the background is the same command, started again. An
environment variable with the handle of the ready pipe marks it as the server. Until it listens, it
has the standard error of its parent.

A Detached runs in a job, which makes it possible to stop it with its children, and which does not
end with this process. Its standard error is a pipe, as on POSIX. A second process, the drain, has
the pipe open from the start, waits until this process detaches or exits, and then discards all data
that it reads.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from time import monotonic, sleep
from typing import Any

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, SpawnFailed
from simpleipc_cli.process import base
from simpleipc_cli.process.windows.spawn import (
    KILLED,
    NO_WINDOW,
    Command,
    JobObject,
    anonymous_pipe,
    create_process,
    duplicate_stderr,
    open_null,
    wait_for_exit,
)
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.transport.windows import win32

_READY_PIPE = "SIPC_READY_PIPE"
_CHUNK = 1 << 16
_POLL_INTERVAL = 0.02  # seconds; no event reports that a pipe can be read (tunable)
_KILL_TIMEOUT = 1.0  # seconds to wait for a killed process (tunable)

# The drain. Its standard input ends at detach(); its argument is the handle of the pipe to drain.
_DRAIN = """
import msvcrt, os, sys
os.read(0, 1)
errors = msvcrt.open_osfhandle(int(sys.argv[1]), 0)
while os.read(errors, 65536):
    pass
"""


class PendingDaemon(base.PendingDaemon):
    """A server that does not listen yet, for the parent that started it."""

    def __init__(self, process: int, pipe: int, signals: BlockedSignals) -> None:
        """Own the process's handle."""
        super().__init__(pipe, signals)
        self._process = process

    def _wait(self, deadline: Deadline) -> bool:
        while not _available(self._pipe):
            delay = deadline.capped(_POLL_INTERVAL).remaining() or 0.0
            if wait_for_exit(self._process, delay) is not None:
                return True
            if deadline.expired():
                return False
        return True

    def _outcome(self) -> int | None:
        return None if _available(self._pipe) else wait_for_exit(self._process, 0.0)

    def _terminate(self) -> None:
        """Kill it: Ctrl-Break cannot be sent to another console, and it has no clients yet."""
        try:
            win32.api.TerminateProcess(self._process, KILLED)
        except OSError:
            pass  # it has exited
        wait_for_exit(self._process, _KILL_TIMEOUT)


def daemonize(
    command: Sequence[str], environment: MutableMapping[str, str]
) -> PendingDaemon | base.ReadyPipe:
    """Start this process's `command` again, unless this process was started that way.

    Return PendingDaemon in the parent, ReadyPipe in the server. Remove the variable.
    Raises SipcError.
    """
    pipe = environment.pop(_READY_PIPE, "")
    if pipe.isdecimal():
        runtime: Any = import_module("msvcrt")
        return base.ReadyPipe(runtime.open_osfhandle(int(pipe), 0))
    signals = BlockedSignals().__enter__()  # until exit: no signal may change the status
    try:
        with ExitStack() as theirs:
            reader, writer = anonymous_pipe()
            theirs.callback(win32.api.CloseHandle, writer)
            null = open_null()
            theirs.callback(win32.api.CloseHandle, null)
            stderr = duplicate_stderr()
            theirs.callback(win32.api.CloseHandle, stderr)
            process, _ = create_process(
                subprocess.list2cmdline(command),
                {**environment, _READY_PIPE: str(writer)},
                (null, null, stderr),
                extra=(writer,),
                flags=NO_WINDOW,
            )
    except OSError as error:
        what = f"cannot go into the background: {win32.strerror(error)}"
        raise SipcError(what, win32.hint(error, "try again later")) from error
    return PendingDaemon(process, reader, signals)


class Detached(base.Detached):
    """A process in a job that does not end with this process."""

    def __init__(self, process: int, job: JobObject, stderr: int, ours: ExitStack) -> None:
        """`stderr` is the read end of the pipe from its standard error; `ours` closes all."""
        super().__init__(ours)
        self._process = process
        self._job = job
        self._stderr = stderr
        self._exit_seen = False  # whether its exit has ended a wait()

    def status(self) -> int | None:
        return wait_for_exit(self._process, 0.0)

    def wait(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if self._exit_seen:
                sleep(left)
            elif wait_for_exit(self._process, min(left, _POLL_INTERVAL)) is not None:
                self._exit_seen = True
                return
            self._read_stderr()

    def _stop(self) -> None:
        self._job.kill()
        if wait_for_exit(self._process, _KILL_TIMEOUT) is None:
            raise SipcError(
                "the command to start a server cannot be killed", "check what it waits for"
            )
        self._job.wait_until_empty()

    def _stderr_data(self) -> bytes:
        size = min(_available(self._stderr), _CHUNK)
        return bytes(win32.api.ReadFile(self._stderr, size)[0]) if size else b""


def _available(pipe: int) -> int:
    """Return the number of bytes in a pipe; also 0 when all writers have closed it."""
    try:
        return int(win32.api.PeekNamedPipe(pipe, 0)[0])
    except OSError:
        return 0


def start_detached(command: Command, environment: Mapping[str, str]) -> Detached:
    """Start a command that may outlive this process. Raises SpawnFailed."""
    try:
        with ExitStack() as theirs, ExitStack() as ours:
            stderr, its_stderr = anonymous_pipe()
            ours.callback(win32.api.CloseHandle, stderr)
            theirs.callback(win32.api.CloseHandle, its_stderr)
            null = open_null()
            theirs.callback(win32.api.CloseHandle, null)
            _start_drain(stderr, null, environment, theirs, ours)
            job = JobObject(kill_on_close=False)
            ours.callback(job.close)
            line = command.shell_line(environment)
            streams = (null, null, its_stderr)
            process, _ = create_process(line, environment, streams, job=job, flags=NO_WINDOW)
            ours.callback(win32.api.CloseHandle, process)
            return Detached(process, job, stderr, ours.pop_all())
    except OSError as error:
        what = f"cannot start {command.line[:60]!r}: {win32.strerror(error)}"
        raise SpawnFailed(what, win32.hint(error, "check COMSPEC")) from error


def _start_drain(
    stderr: int, null: int, environment: Mapping[str, str], theirs: ExitStack, ours: ExitStack
) -> None:
    """Start a process that drains `stderr` after `ours` is closed."""
    released, hold = anonymous_pipe()
    theirs.callback(win32.api.CloseHandle, released)
    ours.callback(win32.api.CloseHandle, hold)
    line = subprocess.list2cmdline([sys.executable, "-I", "-S", "-c", _DRAIN, str(stderr)])
    streams = (released, null, null)
    process, _ = create_process(line, environment, streams, extra=(stderr,), flags=NO_WINDOW)
    win32.api.CloseHandle(process)
