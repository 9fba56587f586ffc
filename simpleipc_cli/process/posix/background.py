"""Processes that outlive their parent: a server in the background, and Detached.

Each leads a new session, or at least a new process group, so that neither Ctrl-C nor the end of a
terminal signals it. It keeps no descriptors of its caller: standard input and output are /dev/null
(a shell's `$(...)` around the command must end), other inherited descriptors are closed.

A server in the background is forked. It keeps standard error until it listens, to print its errors
there. When it listens, it writes one byte to a pipe. If it exits before, the pipe ends without that
byte. Until then a signal that ends the parent also ends the server.

The standard error of a Detached is a pipe. This process reads it, to report why the command failed.
After detach() the pipe still needs a reader: without one, the next write would kill or block the
command. A file would grow without limit. So a second process, the drain, has the pipe open from the
start, waits until this process detaches or exits, and then discards all data that it reads. It
exits with the last writer.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from time import monotonic

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, SpawnFailed, errno_hint
from simpleipc_cli.process import base
from simpleipc_cli.process.posix.child import ChildProcess, start_child
from simpleipc_cli.process.posix.spawn import ALL_SIGNALS, SHELL, Command, session_options
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.transport import HANGUP, READ, new_poller

_GRACE_PERIOD = 2.0  # seconds after a signal that ends a process (tunable)
_CHUNK = 1 << 16
_MAX_FDS = 1 << 16  # descriptors to check without a folder of them; the limit may be 10**9

# Lists the open descriptors. /dev/fd of the BSDs may have only the standard streams.
_FD_FOLDER = "/dev/fd" if sys.platform == "darwin" else "/proc/self/fd"

# Standard output is the pipe to drain. Standard error is a pipe that ends when this process
# detaches: a shell redirects the standard input of background jobs, and descriptors above 2 may be
# in use. The drain runs in the background so that init adopts it.
_DRAIN = "{ cd /; read -r end <&2; exec cat <&1 >/dev/null 2>&1; } &"


def inheritable_fds() -> list[int]:
    """Return the descriptors above 2 that this process inherited and its children would inherit.

    The process that opened them may wait until every duplicate is closed: `flock 9` does, or a test
    that reads a program's output to the end.
    """
    try:
        numbers = [int(name) for name in os.listdir(_FD_FOLDER)]
    except OSError:
        numbers = list(range(min(os.sysconf("SC_OPEN_MAX"), _MAX_FDS)))
    return [number for number in numbers if number > 2 and _is_inheritable(number)]


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False  # listdir()'s own, which is closed


class PendingDaemon(base.PendingDaemon):
    """A server that does not listen yet, for the parent that started it."""

    def __init__(self, pid: int, pipe: int, signals: BlockedSignals) -> None:
        super().__init__(pipe, signals)
        self._pid = pid

    def _wait(self, deadline: Deadline) -> bool:
        poller = new_poller()
        poller.register(self._pipe, READ)
        while not (ready := poller.wait(deadline.remaining())) and not deadline.expired():
            pass
        return bool(ready)

    def _outcome(self) -> int | None:
        if os.read(self._pipe, 1):
            return None
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _terminate(self) -> None:
        """Stop the server: it drains after the first SIGTERM, and aborts after the second."""
        server = ChildProcess(self._pid)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            os.kill(self._pid, number)
            os.kill(self._pid, signal.SIGCONT)  # a stopped process does not get SIGTERM
            if server.wait(_GRACE_PERIOD, None):
                os.waitpid(self._pid, 0)
                return


def daemonize(_command: object, _environment: object) -> PendingDaemon | base.ReadyPipe:
    """Fork; return PendingDaemon in the parent, ReadyPipe in the server. Call it without threads.

    The arguments are for systems without fork, which start the command again. Raises SipcError.
    """
    signals = BlockedSignals().__enter__()
    try:
        reader, writer = os.pipe()
        pid = os.fork()
    except OSError as error:
        raise SipcError(
            f"cannot go into the background: {error.strerror}",
            errno_hint(error, "check the limits"),
        ) from error
    if pid:
        os.close(writer)
        return PendingDaemon(pid, reader, signals)
    os.close(reader)
    _leave_caller()
    signals.__exit__()
    return base.ReadyPipe(writer)


def _leave_caller() -> None:
    """Detach from the terminal, and close inherited descriptors. Keep the directory and umask."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the handler for reload is installed
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SipcError(
            f"cannot open {os.devnull}: {error.strerror}",
            errno_hint(error, "check that it is the null device"),
        ) from error
    for number in (0, 1):
        os.dup2(null, number)  # inheritable
    os.close(null)
    for number in inheritable_fds():
        os.close(number)


class Detached(base.Detached):
    """A process in a new session."""

    def __init__(self, process: ChildProcess, stderr: int, ours: ExitStack) -> None:
        """`stderr` is the read end of the pipe from its standard error; `ours` closes that."""
        super().__init__(ours)
        self._process = process
        self._stderr = stderr
        self._poller = new_poller()
        self._poller.register(process.descriptor, READ)
        self._poller.register(stderr, READ)
        # Poll before each read: O_NONBLOCK would also apply to the drain, which must block.
        self._stderr_poller = new_poller()
        self._stderr_poller.register(stderr, READ)

    def status(self) -> int | None:
        return self._process.status()

    def wait(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            for descriptor, events in self._poller.wait(left):
                if descriptor == self._process.descriptor:
                    self._poller.unregister(descriptor)
                    end = 0.0
                elif not self._read_stderr() and events & HANGUP:
                    self._poller.unregister(descriptor)

    def detach(self) -> None:
        super().detach()
        self._process.detach()

    def _stop(self) -> None:
        self._process.stop(_GRACE_PERIOD, None)

    def _stderr_data(self) -> bytes:
        return os.read(self._stderr, _CHUNK) if self._stderr_poller.wait(0.0) else b""


def start_detached(command: Command, environment: Mapping[str, str]) -> Detached:
    """Start a command that may outlive this process. Raises SpawnFailed, SipcError."""
    try:
        with ExitStack() as theirs, ExitStack() as ours:
            stderr, its_stderr = _pipe()
            ours.callback(os.close, stderr)
            theirs.callback(os.close, its_stderr)
            released, hold = _pipe()
            theirs.callback(os.close, released)
            ours.callback(os.close, hold)
            _start_drain(stderr, released, environment)

            def start(path: str, arguments: list[str]) -> int:
                pid = _start(environment, [(its_stderr, 2)], path, arguments)
                theirs.close()  # at once: a pidfd needs a free descriptor
                return pid

            return Detached(start_child(command, start), stderr, ours.pop_all())
    except OSError as error:
        raise SpawnFailed(
            f"cannot start {command.line[:60]!r}: {error.strerror}",
            errno_hint(error, "check the command"),
        ) from error


def _pipe() -> tuple[int, int]:
    """Make a pipe whose numbers are not those of standard streams: a program may have none."""
    ends = os.pipe()
    if min(ends) > 2:
        return ends
    try:
        return _pipe()
    finally:
        os.close(ends[0])
        os.close(ends[1])


def _start_drain(stderr: int, released: int, environment: Mapping[str, str]) -> None:
    """Start a process that drains `stderr` after the other end of `released` is closed."""
    files = [(stderr, 1), (released, 2)]
    pid = _start(environment, files, SHELL, [SHELL, "-c", _DRAIN])
    if os.waitpid(pid, 0)[1]:
        raise SpawnFailed("no process can be started", "raise the limit of processes")


def _start(
    environment: Mapping[str, str],
    files: Sequence[tuple[int, int]],
    path: str,
    arguments: list[str],
) -> int:
    """Start a program in a new session; `files` are pairs of this process's and its descriptors."""
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        *((os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in files),
        *((os.POSIX_SPAWN_CLOSE, number) for number in inheritable_fds()),
    ]
    return os.posix_spawnp(
        path,
        arguments,
        environment,
        file_actions=actions,
        setsigmask=(),
        setsigdef=ALL_SIGNALS,
        **session_options(),
    )
