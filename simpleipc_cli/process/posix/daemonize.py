"""A server in the background: the process that was started waits until its child listens.

The child leads a session of its own, so that neither a lost terminal nor Ctrl-C reaches it. It
keeps nothing of its caller: standard input and output are /dev/null (a `$(...)` around us must
end), other descriptors that were passed to us are closed. It keeps standard error until it
listens, so that its error is shown there.

The child reports that it listens by one byte through a pipe, which ends without it when the child
exits. Until then a signal that ends the parent also ends the child.
"""

from __future__ import annotations

import os
import signal
import stat
from time import monotonic

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, TimedOut
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.system.fd_limit import inheritable_fds
from simpleipc_cli.transport import READ, new_poller

_GRACE_PERIOD = 2.0  # seconds after each signal of _terminate() (tunable)
STDIN, STDOUT, STDERR = 0, 1, 2


class ReadyPipe:
    """Reports to the parent that the server listens."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def notify(self) -> None:
        if not stat.S_ISREG(os.fstat(STDERR).st_mode):
            os.dup2(STDIN, STDERR)  # /dev/null by now; needs no new descriptor
        try:
            os.write(self._pipe, b"!")
        except BrokenPipeError:
            pass  # the parent was killed
        os.close(self._pipe)


class PendingDaemon:
    """A server that does not listen yet, seen from its parent."""

    def __init__(self, pid: int, pipe: int, signals: BlockedSignals) -> None:
        """Take over the pipe's reading end; `signals` are blocked."""
        self._pid = pid
        self._pipe = pipe
        self._signals = signals

    def wait(self, max_wait: float | None) -> int | None:
        try:
            if not self._wait_for_pipe(Deadline(max_wait)):
                raise TimedOut(
                    f"the server did not listen within {max_wait:g} s, and was terminated",
                    "find out what delays it, or allow more time with --max-wait",
                )
        except BaseException:
            self._terminate()
            raise
        if os.read(self._pipe, 1):
            return None
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _wait_for_pipe(self, deadline: Deadline) -> bool:
        """Wait until the child has reported or exited, with signals unblocked."""
        poller = new_poller()
        poller.register(self._pipe, READ)
        with self._signals.unblocked():
            while not (ready := poller.wait(deadline.remaining())) and not deadline.expired():
                pass
        return bool(ready)

    def _terminate(self) -> None:
        """End the child: it drains at the first SIGTERM, and aborts at the second."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            os.kill(self._pid, number)
            if self._wait_for_exit(_GRACE_PERIOD):
                return

    def _wait_for_exit(self, seconds: float) -> bool:
        """Wait for the child's exit, which the pipe reports only before it listens."""
        end = monotonic() + seconds
        pidfd = os.pidfd_open(self._pid)
        try:
            poller = new_poller()
            poller.register(pidfd, READ)
            while (left := end - monotonic()) > 0:
                if poller.wait(left):
                    os.waitpid(self._pid, 0)
                    return True
        finally:
            os.close(pidfd)
        return False


def daemonize(_command: object, _environment: object) -> PendingDaemon | ReadyPipe:
    """Fork; return the parent's half and the child's half. Call it before any thread starts.

    Systems without fork need the command to start it again. Raises SipcError.
    """
    signals = BlockedSignals().__enter__()
    try:
        reader, writer = os.pipe()
        pid = os.fork()
    except OSError as error:
        raise SipcError(
            f"cannot go into the background: {error.strerror}", "check the limits (ulimit -a)"
        ) from error
    if pid:
        os.close(writer)
        return PendingDaemon(pid, reader, signals)
    os.close(reader)
    _detach()
    signals.__exit__()
    return ReadyPipe(writer)


def _detach() -> None:
    """Detach from the terminal, and close inherited descriptors. Keep the directory and umask."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # no terminal is left; reload is enabled later
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SipcError(
            f"cannot open {os.devnull}: {error.strerror}", "check that it is the null device"
        ) from error
    for number in (STDIN, STDOUT):
        os.dup2(null, number)  # inheritable
    os.close(null)
    for number in inheritable_fds():
        os.close(number)
