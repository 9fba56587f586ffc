"""A server in the background, on Windows: see posix.daemonize.

Windows cannot fork, so the same command is started again, with a console of its own. A variable
with the handle of the ready pipe marks it as the server. Until the server listens, it has the
standard error of its parent.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, TimedOut
from simpleipc_cli.process.windows.create_process import (
    KILLED,
    NO_WINDOW,
    anonymous_pipe,
    create_process,
    duplicate_stderr,
    open_null,
    wait_for_exit,
)
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.transport.windows import win32

_VARIABLE = "SIPC_READY_PIPE"
_POLL_INTERVAL = 0.02  # seconds; no event reports that a pipe can be read (tunable)
_KILL_TIMEOUT = 1.0  # seconds to wait for a killed process (tunable)
STDIN, STDERR = 0, 2


class ReadyPipe:
    """Reports to the parent that the server listens."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def notify(self) -> None:
        if not stat.S_ISREG(os.fstat(STDERR).st_mode):
            os.dup2(STDIN, STDERR)  # NUL
        try:
            win32.api.WriteFile(self._pipe, b"!")
            win32.api.CloseHandle(self._pipe)
        except OSError:
            pass  # the parent was killed


class PendingDaemon:
    """A server that does not listen yet, seen from its parent."""

    def __init__(self, process: int, pipe: int, signals: BlockedSignals) -> None:
        """Take over the process's handle and the pipe's reading end; `signals` are blocked."""
        self._process = process
        self._pipe = pipe
        self._signals = signals

    def wait(self, max_wait: float | None) -> int | None:
        deadline = Deadline(max_wait)
        try:
            while True:
                with self._signals.unblocked():
                    delay = deadline.capped(_POLL_INTERVAL).remaining() or 0.0
                    status = wait_for_exit(self._process, delay)
                if self._is_ready():
                    return None
                if status is not None:
                    return status
                if deadline.expired():
                    raise TimedOut(
                        f"the server did not listen within {max_wait:g} s, and was terminated",
                        "find out what delays it, or allow more time with --max-wait",
                    )
        except BaseException:
            self._kill()
            raise

    def _is_ready(self) -> bool:
        try:
            return bool(win32.api.PeekNamedPipe(self._pipe, 0)[0])
        except OSError:
            return False  # it has exited, or is about to

    def _kill(self) -> None:
        """Kill it: Ctrl-Break does not reach another console, and it has no clients yet."""
        try:
            win32.api.TerminateProcess(self._process, KILLED)
        except OSError:
            pass  # it has exited
        wait_for_exit(self._process, _KILL_TIMEOUT)


def daemonize(
    command: Sequence[str], environment: MutableMapping[str, str]
) -> PendingDaemon | ReadyPipe:
    """Start our own `command` again, unless this process was started that way.

    Return the parent's half, or the server's half. The variable is removed from the environment.
    Raises SipcError.
    """
    pipe = environment.pop(_VARIABLE, "")
    if pipe.isdecimal():
        return ReadyPipe(int(pipe))
    signals = BlockedSignals().__enter__()  # held until exit: no signal may change the status
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
                {**environment, _VARIABLE: str(writer)},
                (null, null, stderr),
                extra=(writer,),
                flags=NO_WINDOW,
            )
    except OSError as error:
        raise SipcError(
            f"cannot go into the background: {win32.strerror(error)}", "end some programs"
        ) from error
    return PendingDaemon(process, reader, signals)
