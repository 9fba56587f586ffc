"""A server in the background: the process that was started waits until its child listens.

The child leads a session of its own, so that neither a lost terminal nor Ctrl-C reaches it,
and holds nothing of whoever started it: standard input and output are /dev/null (a `$(...)`
around us must end), other descriptors that were passed to us are closed. Standard error
stays until the server listens, so that its error gets to where people look.

The child says that it listens by one byte through a pipe, which ends without it when the
child ends. Signals that end the parent take the child along as long as that has not come,
and wait while something is half done.
"""

from __future__ import annotations

import os
import signal
import stat
from time import monotonic

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, TimedOut
from simpleipc_cli.system.fd_limit import inheritable_fds
from simpleipc_cli.transport import READ, new_poller

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 2.0  # seconds between what ends a child: twice SIGTERM, then SIGKILL; at will
STDIN, STDOUT, STDERR = 0, 1, 2


class ReadyPipe:
    """The child's half: what it has to say to whoever started it."""

    def __init__(self, pipe: int) -> None:
        """Takes over the writing end."""
        self._pipe = pipe

    def listening(self) -> None:
        """The server listens, and is on its own from now on.

        Standard error is let go of, too, unless it is a file: somebody wants to keep that.
        """
        if not stat.S_ISREG(os.fstat(STDERR).st_mode):
            os.dup2(STDIN, STDERR)  # which is /dev/null by now, and needs no new descriptor
        try:
            os.write(self._pipe, b"!")
        except BrokenPipeError:
            pass  # whoever started us was killed
        os.close(self._pipe)


class Starting:
    """The parent's half: a child that has been started, and should listen."""

    def __init__(self, pid: int, pipe: int, mask: set[int | signal.Signals]) -> None:
        """Takes over the reading end; `mask` is of signals, as it was before they were held."""
        self._pid = pid
        self._pipe = pipe
        self._mask = mask

    def wait(self, max_wait: float | None) -> int | None:
        """Wait until it listens: None. If it ended before: its status, or minus a signal.

        Raises TimedOut after `max_wait` seconds; it has been ended then, as it has when a
        signal's handler raises anything. Signals stay held once it listens, for whoever
        started it gets to know that it does.
        """
        try:
            if not self._is_readable(Deadline(max_wait)):
                raise TimedOut(
                    f"the server did not listen within {max_wait:g} s, and was ended",
                    "see what keeps it, or allow more time with --max-wait",
                )
        except BaseException:
            self._end()
            raise
        if os.read(self._pipe, 1):
            return None
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _is_readable(self, deadline: Deadline) -> bool:
        """Wait until the child has spoken or ended; signals are let in meanwhile."""
        poller = new_poller()
        poller.register(self._pipe, READ)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            while not (found := poller.wait(deadline.remaining())) and not deadline.passed():
                pass
            return bool(found)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    def _end(self) -> None:
        """End the child: the first SIGTERM lets it answer who is connected, a second hurries."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            os.kill(self._pid, number)
            if self._has_ended(_GRACE):
                return

    def _has_ended(self, seconds: float) -> bool:
        """Wait so long for the child's end, of which the pipe tells only before it listens."""
        end = monotonic() + seconds
        watching = os.pidfd_open(self._pid)
        try:
            poller = new_poller()
            poller.register(watching, READ)
            while (left := end - monotonic()) > 0:
                if poller.wait(left):
                    os.waitpid(self._pid, 0)
                    return True
        finally:
            os.close(watching)
        return False


def daemonize(_command: object, _environment: object) -> Starting | ReadyPipe:
    """Fork. The parent gets a Starting, the child an Announcement. Call it before any thread.

    Where nothing can be forked, the command is started once more: here it need not be known.
    Raises SipcError if there can be no child.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        reader, writer = os.pipe()
        pid = os.fork()
    except OSError as error:
        raise SipcError(
            f"cannot go into the background: {error.strerror}",
            "look at the limits that ulimit -a shows",
        ) from error
    if pid:
        os.close(writer)
        return Starting(pid, reader, mask)
    os.close(reader)
    _detach()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return ReadyPipe(writer)


def _detach() -> None:
    """Leave the terminal, and what was passed to us. Working directory and umask stay."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # no terminal, and nothing to read anew yet
    try:
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SipcError(f"cannot open {os.devnull}: {error.strerror}", "see what it is") from error
    for number in (STDIN, STDOUT):
        os.dup2(nowhere, number)  # for what we start, too
    os.close(nowhere)
    for number in inheritable_fds():
        os.close(number)
