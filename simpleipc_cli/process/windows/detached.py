"""A process that outlives the process that started it, on Windows: see posix.detached.

It has a hidden console of its own, so that neither Ctrl-C nor the end of ours reaches it, and its
children open no windows. Standard input and output are NUL, and nothing else of ours is passed on.
A job, which does not end with us, allows to stop it together with its children.

Its standard error is a pipe, as on POSIX. A second process holds it from the start, waits until we
detach or exit, and from then on discards what it reads.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep

from simpleipc_cli.errors import SipcError, SpawnFailed
from simpleipc_cli.process.stderr_tail import StderrTail
from simpleipc_cli.process.windows.command import Command
from simpleipc_cli.process.windows.create_process import (
    NO_WINDOW,
    JobObject,
    anonymous_pipe,
    create_process,
    open_null,
    wait_for_exit,
)
from simpleipc_cli.transport.windows import win32

_CHUNK = 1 << 16
_MAX_READS = 16  # pipes hold much less (tunable)
_POLL_INTERVAL = 0.05  # seconds between reads of its standard error (tunable)
_KILL_TIMEOUT = 1.0  # seconds to wait for a killed process (tunable)

# Its standard input ends when we detach; its argument is the handle of the pipe to drain.
_DRAIN = """
import msvcrt, os, sys
os.read(0, 1)
errors = msvcrt.open_osfhandle(int(sys.argv[1]), 0)
while os.read(errors, 65536):
    pass
"""


class Detached:
    """A process that outlives us, unless it is stopped."""

    def __init__(self, process: int, job: JobObject, stderr: int, ours: ExitStack) -> None:
        """`stderr` is our end of the pipe from its standard error; `ours` closes all."""
        self._process = process
        self._job = job
        self._stderr = stderr
        self._ours = ours
        self._tail = StderrTail()
        self._exit_seen = False  # its exit has ended a wait

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

    def stop(self) -> str:
        try:
            self._job.kill()
            if wait_for_exit(self._process, _KILL_TIMEOUT) is None:
                raise SipcError(
                    "the command to start a server cannot be ended", "check what it waits for"
                )
            self._job.wait_until_empty()
            for _ in range(_MAX_READS):
                if not self._read_stderr():
                    break
            return self._tail.text()
        finally:
            self._ours.close()

    def detach(self) -> None:
        self._ours.close()

    def _read_stderr(self) -> bool:
        """Read without blocking; False if there is nothing."""
        try:
            size, _ = win32.api.PeekNamedPipe(self._stderr, 0)
            if size:
                data, _ = win32.api.ReadFile(self._stderr, min(size, _CHUNK))
                self._tail.feed(data)
        except OSError:  # all writers have closed it
            return False
        return bool(size)


def start_detached(command: Command, environment: Mapping[str, str]) -> Detached:
    """Start a command that may outlive us. Raises SpawnFailed."""
    with _spawn_errors(command), ExitStack() as theirs, ExitStack() as ours:
        stderr, its_stderr = anonymous_pipe()
        ours.callback(win32.api.CloseHandle, stderr)
        theirs.callback(win32.api.CloseHandle, its_stderr)
        null = open_null()
        theirs.callback(win32.api.CloseHandle, null)
        _start_drain(stderr, null, environment, theirs, ours)
        job = JobObject(kill_on_close=False)
        ours.callback(job.close)
        line = command.shell_argv(environment.get("COMSPEC", "cmd.exe"))
        streams = (null, null, its_stderr)
        process, _ = create_process(line, environment, streams, job=job, flags=NO_WINDOW)
        ours.callback(win32.api.CloseHandle, process)
        return Detached(process, job, stderr, ours.pop_all())


def _start_drain(
    stderr: int, null: int, environment: Mapping[str, str], theirs: ExitStack, ours: ExitStack
) -> None:
    """Start a process that reads `stderr` after `ours` is closed."""
    released, hold = anonymous_pipe()
    theirs.callback(win32.api.CloseHandle, released)
    ours.callback(win32.api.CloseHandle, hold)
    line = subprocess.list2cmdline([sys.executable, "-I", "-S", "-c", _DRAIN, str(stderr)])
    streams = (released, null, null)
    process, _ = create_process(line, environment, streams, extra=(stderr,), flags=NO_WINDOW)
    win32.api.CloseHandle(process)


@contextmanager
def _spawn_errors(command: Command) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpawnFailed(
            f"cannot start {command.line[:60]!r}: {win32.strerror(error)}", "end some programs"
        ) from error
