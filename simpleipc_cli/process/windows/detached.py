"""A process that is started to stay, on Windows: see detached.py.

It has a console of its own that nobody sees, so neither Ctrl-C nor the end of ours reaches
it, and what it starts opens no window. Standard input and output are NUL, and nothing else of
ours is passed on. While it starts it is in a job, so that it can be ended with what it started;
that job does not end it when we do.

Its standard error is a pipe, which we read to tell why it did not start. Once it is let go
there must still be a reader, else every line of a handler would be an error. So a second process
holds the pipe from the start, waits until we let go or end, and from then on reads and drops.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import ceil
from time import monotonic, sleep

from simpleipc_cli.errors import SipcError, SpawnFailed
from simpleipc_cli.process.stderr_tail import StderrTail
from simpleipc_cli.process.windows.child import Job
from simpleipc_cli.process.windows.console import anonymous_pipe, open_nowhere, start_apart
from simpleipc_cli.process.windows.exec import WinCommand
from simpleipc_cli.transport.windows import win32

_CHUNK = 1 << 16
_MOST_READS = 16  # pipes hold much less, at will
_LONGEST_WAIT = 0.05  # seconds between looks at what it writes, at will
_TIMEOUT = 1.0  # seconds; who has been killed and is still there is not waited for, at will

# Its standard input ends when we let go; the pipe to drain is the handle that it is told of.
_DRAIN = """
import msvcrt, os, sys
os.read(0, 1)
errors = msvcrt.open_osfhandle(int(sys.argv[1]), 0)
while os.read(errors, 65536):
    pass
"""


class WinDetached:
    """A process that was started to stay. Call stop() or let_go() in the end."""

    def __init__(self, process: int, job: Job, errors: int, ours: ExitStack) -> None:
        """`errors` can be read for what it writes to standard error; `ours` closes all."""
        self._process = process
        self._job = job
        self._errors = errors
        self._ours = ours
        self._words = StderrTail()
        self._told = False  # of its end, which cuts a wait short once

    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return int(win32.api.GetExitCodeProcess(self._process)) if self._has_ended(0.0) else None

    def wait(self, seconds: float) -> None:
        """See Detached."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if self._told:
                sleep(left)
            elif self._has_ended(min(left, _LONGEST_WAIT)):
                self._told = True
                return
            self._listen()

    def last_words(self) -> str:
        """See Detached."""
        for _ in range(_MOST_READS):
            if not self._listen():
                break
        return self._words.text()

    def stop(self) -> str:
        """End it, and what it started, at once; its last words. Raises SipcError if that fails."""
        try:
            self._job.kill()
            if not self._has_ended(_TIMEOUT):
                raise SipcError("the command to start a server cannot be ended", "see what it is")
            self._job.wait_until_empty()
            return self.last_words()
        finally:
            self._ours.close()

    def let_go(self) -> None:
        """It is on its own from now on."""
        self._ours.close()

    def _has_ended(self, seconds: float) -> bool:
        """Wait so long for its end. In the main thread Ctrl-C cuts that short."""
        try:
            found = win32.api.WaitForMultipleObjects([self._process], False, ceil(seconds * 1000))
        except InterruptedError:
            return False
        return bool(found == win32.api.WAIT_OBJECT_0)

    def _listen(self) -> bool:
        """Take what it wrote, without waiting; False if there is nothing."""
        try:
            size, _ = win32.api.PeekNamedPipe(self._errors, 0)
            if size:
                piece, _ = win32.api.ReadFile(self._errors, min(size, _CHUNK))
                self._words.add(piece)
        except OSError:  # nobody can write any more
            return False
        return bool(size)


def start_detached(command: WinCommand, environment: Mapping[str, str]) -> WinDetached:
    """Start a command so that it can stay. Raises SpawnFailed."""
    with _explained(command), ExitStack() as theirs, ExitStack() as ours:
        errors, its_errors = anonymous_pipe()
        ours.callback(win32.api.CloseHandle, errors)
        theirs.callback(win32.api.CloseHandle, its_errors)
        nowhere = open_nowhere()
        theirs.callback(win32.api.CloseHandle, nowhere)
        _start_drain(errors, nowhere, environment, theirs, ours)
        job = Job(stays=True)
        ours.callback(job.close)
        line = command.shell_argv(environment.get("COMSPEC", "cmd.exe"))
        process = start_apart(line, environment, (nowhere, nowhere, its_errors), (), job)
        ours.callback(win32.api.CloseHandle, process)
        return WinDetached(process, job, errors, ours.pop_all())


def _start_drain(
    errors: int, nowhere: int, environment: Mapping[str, str], theirs: ExitStack, ours: ExitStack
) -> None:
    """Start what reads `errors` once `ours` is closed."""
    released, hold = anonymous_pipe()
    theirs.callback(win32.api.CloseHandle, released)
    ours.callback(win32.api.CloseHandle, hold)
    line = subprocess.list2cmdline([sys.executable, "-I", "-S", "-c", _DRAIN, str(errors)])
    process = start_apart(line, environment, (released, nowhere, nowhere), (errors,), None)
    win32.api.CloseHandle(process)


@contextmanager
def _explained(command: WinCommand) -> Iterator[None]:
    """What the system says, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise SpawnFailed(
            f"cannot start {command.line[:60]!r}: {win32.words(error)}", "end some programs"
        ) from error
