"""A server in the background, on Windows: see background.py.

Nothing can be forked there, so the same command is started once more, apart from us, and told
by a variable that it is the one to stay: the variable holds the handle of the pipe through
which it says that it listens. Its standard error is ours until then.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from math import ceil

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, TimedOut
from simpleipc_cli.process.windows.child import own_standard_error
from simpleipc_cli.process.windows.console import anonymous_pipe, open_nowhere, start_apart
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.transport.windows import win32

_VARIABLE = "SIPC_TELL_LISTENING"
_LOOK_EVERY = 0.02  # seconds; nothing tells that a pipe can be read, but a look; at will
_TIMEOUT = 1.0  # seconds; who has been killed and is still there is not waited for, at will
_KILLED = 1  # exit status of what is ended by force
STDIN, STDERR = 0, 2


class WinReadyPipe:
    """See Announcement."""

    def __init__(self, pipe: int) -> None:
        """Takes over the writing end."""
        self._pipe = pipe

    def listening(self) -> None:
        """See Announcement."""
        if not stat.S_ISREG(os.fstat(STDERR).st_mode):
            os.dup2(STDIN, STDERR)  # which is NUL
        try:
            win32.api.WriteFile(self._pipe, b"!")
            win32.api.CloseHandle(self._pipe)
        except OSError:
            pass  # whoever started us was killed


class WinStarting:
    """See Starting."""

    def __init__(self, process: int, pipe: int, signals: BlockedSignals) -> None:
        """Takes over a handle of the process, and the reading end; `signals` are held."""
        self._process = process
        self._pipe = pipe
        self._signals = signals

    def wait(self, max_wait: float | None) -> int | None:
        """See Starting."""
        deadline = Deadline(max_wait)
        try:
            while True:
                with self._signals.unblocked():
                    status = self._look(deadline.sooner(_LOOK_EVERY).remaining() or 0.0)
                if self._was_told():
                    return None
                if status is not None:
                    return status
                if deadline.passed():
                    raise TimedOut(
                        f"the server did not listen within {max_wait:g} s, and was ended",
                        "see what keeps it, or allow more time with --max-wait",
                    )
        except BaseException:
            self._end()
            raise

    def _look(self, seconds: float) -> int | None:
        """Wait so long for its end; its status then. Ctrl-C cuts that short."""
        api = win32.api
        try:
            found = api.WaitForMultipleObjects([self._process], False, ceil(seconds * 1000))
        except InterruptedError:
            return None
        ended = found == api.WAIT_OBJECT_0
        return int(api.GetExitCodeProcess(self._process)) if ended else None

    def _was_told(self) -> bool:
        try:
            return bool(win32.api.PeekNamedPipe(self._pipe, 0)[0])
        except OSError:
            return False  # it has ended, or is about to

    def _end(self) -> None:
        """There is no way to ask it: it has no console of ours, and nobody is connected."""
        try:
            win32.api.TerminateProcess(self._process, _KILLED)
        except OSError:
            pass  # it has ended by itself
        self._look(_TIMEOUT)


def daemonize(
    command: Sequence[str], environment: MutableMapping[str, str]
) -> WinStarting | WinReadyPipe:
    """Start `command`, which is ours, once more, if we are not what was started so.

    Who started it gets a WinStarting, the other a WinAnnouncement. The variable that tells is
    taken out of the environment. Raises SipcError.
    """
    pipe = environment.pop(_VARIABLE, "")
    if pipe.isdecimal():
        return WinReadyPipe(int(pipe))
    signals = BlockedSignals()
    signals.__enter__()  # to our end: whoever started us gets to know that it listens
    try:
        with ExitStack() as theirs:
            reader, writer = anonymous_pipe()
            theirs.callback(win32.api.CloseHandle, writer)
            nowhere = open_nowhere()
            theirs.callback(win32.api.CloseHandle, nowhere)
            errors = own_standard_error()
            theirs.callback(win32.api.CloseHandle, errors)
            process = start_apart(
                subprocess.list2cmdline(command),
                {**environment, _VARIABLE: str(writer)},
                (nowhere, nowhere, errors),
                (writer,),
            )
    except OSError as error:
        raise SipcError(
            f"cannot go into the background: {win32.words(error)}", "end some programs"
        ) from error
    return WinStarting(process, reader, signals)
