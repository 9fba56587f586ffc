"""A process that outlives the process that started it, and the terminal.

It leads a session of its own, so that neither a lost terminal nor Ctrl-C reaches it, and keeps
nothing of ours: standard input and output are /dev/null (a `$(...)` around us must end), other
descriptors are closed, signals have their defaults.

Its standard error is a pipe, which we read to report why it did not start. After we detach it, the
pipe still needs a reader that never lags: without one its next write would kill it, or block. A
file would grow without limit. So a second process, `cat`, holds the pipe from the start, waits
until we detach or exit, and from then on discards what it reads. It exits with the last writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic

from simpleipc_cli.errors import SpawnFailed
from simpleipc_cli.process.posix.child import ChildProcess
from simpleipc_cli.process.posix.command import SHELL, Command
from simpleipc_cli.process.posix.posix_spawn import ALL_SIGNALS
from simpleipc_cli.process.stderr_tail import StderrTail
from simpleipc_cli.system.fd_limit import inheritable_fds
from simpleipc_cli.transport import HANGUP, READ, new_poller

_GRACE_PERIOD = 2.0  # seconds from SIGTERM to SIGKILL (tunable)
_CHUNK = 1 << 16
_MAX_READS = 16  # for the content of a pipe of the maximum size (pipe(7): 1 MiB)

# Standard output is the pipe to drain, standard error one that ends when we detach: descriptors
# above 2 may be ours, and a shell redirects the standard input of background jobs. It runs in the
# background so that init adopts it.
_DRAIN = "{ cd /; read -r end <&2; exec cat <&1 >/dev/null 2>&1; } &"


class Detached:
    """A process that outlives us, unless it is stopped."""

    def __init__(self, process: ChildProcess, stderr: int, ours: ExitStack) -> None:
        """`stderr` is our end of the pipe from its standard error; `ours` closes that."""
        self._process = process
        self._stderr = stderr
        self._ours = ours
        self._tail = StderrTail()
        self._poller = new_poller()
        self._poller.register(process.descriptor, READ)
        self._poller.register(stderr, READ)
        # Polled before each read. O_NONBLOCK would apply to the drain, too, which must block.
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

    def stop(self) -> str:
        try:
            self._process.stop(_GRACE_PERIOD, None)
            for _ in range(_MAX_READS):  # a process that cannot be killed may write without end
                if not self._read_stderr():
                    break
            return self._tail.text()
        finally:
            self._ours.close()

    def detach(self) -> None:
        self._ours.close()
        self._process.detach()

    def _read_stderr(self) -> bool:
        """Read without blocking; False if there is nothing."""
        if not self._stderr_poller.wait(0.0):
            return False
        data = os.read(self._stderr, _CHUNK)
        self._tail.feed(data)
        return bool(data)


def start_detached(command: Command, environment: Mapping[str, str]) -> Detached:
    """Start a command that may outlive us. Raises SpawnFailed, SipcError."""
    with _spawn_errors(command), ExitStack() as theirs, ExitStack() as ours:
        stderr, its_stderr = os.pipe()
        ours.callback(os.close, stderr)
        theirs.callback(os.close, its_stderr)
        released, hold = os.pipe()
        theirs.callback(os.close, released)
        ours.callback(os.close, hold)
        _start_drain(stderr, released, environment)
        pid = _start_command(command, environment, its_stderr)
        return Detached(ChildProcess(pid), stderr, ours.pop_all())


def _start_command(command: Command, environment: Mapping[str, str], stderr: int) -> int:
    """Start it, if possible without a shell that would live as long as it does."""
    files = [(stderr, 2)]
    direct = command.direct_argv()
    if direct is not None:
        try:
            return _start(*direct, environment, files)
        except OSError:
            pass  # the system cannot start it, but a shell may
    return _start(SHELL, command.shell_argv(), environment, files)


def _start_drain(stderr: int, released: int, environment: Mapping[str, str]) -> None:
    """Start a process that reads `stderr` after the other end of `released` is closed."""
    pid = _start(SHELL, [SHELL, "-c", _DRAIN], environment, [(stderr, 1), (released, 2)])
    if os.waitpid(pid, 0)[1]:
        raise SpawnFailed("no process can be started", "allow more processes (ulimit -u)")


def _start(
    program: str,
    arguments: list[str],
    environment: Mapping[str, str],
    files: list[tuple[int, int]],
) -> int:
    """Start a program in a session of its own; `files` pairs our descriptors with its."""
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        *((os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in files),
        *((os.POSIX_SPAWN_CLOSE, number) for number in inheritable_fds()),
    ]
    return os.posix_spawn(
        program,
        arguments,
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=ALL_SIGNALS,
    )


@contextmanager
def _spawn_errors(command: Command) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpawnFailed(
            f"cannot start {command.line[:60]!r}: {error.strerror}", "check the limits (ulimit -a)"
        ) from error
