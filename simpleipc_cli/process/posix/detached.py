"""A process that is started to stay: it outlives whoever started it, and the terminal.

It leads a session of its own, so that neither a lost terminal nor Ctrl-C reaches it, and
holds nothing of ours: standard input and output are /dev/null (a `$(...)` around us must
end), other descriptors are closed, signals have their defaults.

Its standard error is a pipe, which we read to tell why it did not start. Once it is let go
there must still be a reader, else its next line would kill it, and one that never lags,
else that line would hold it up; a file would grow unseen. So a second process, `cat`, holds
the pipe from the start, waits until we let go or end, however we end, and from then on
reads and drops; it ends when nobody can write any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic

from simpleipc_cli.errors import SpawnFailed
from simpleipc_cli.process.posix.child import Process
from simpleipc_cli.process.posix.command import SHELL, Command
from simpleipc_cli.process.posix.posix_spawn import ALL_SIGNALS
from simpleipc_cli.process.stderr_tail import StderrTail
from simpleipc_cli.system.fd_limit import inheritable_fds
from simpleipc_cli.transport import HANGUP, READ, new_poller

_GRACE = 2.0  # seconds from SIGTERM to SIGKILL, for what never became of use; at will
_CHUNK = 1 << 16
_MOST_READS = 16  # as many as a pipe that is as large as it can be holds (pipe(7): 1 MiB)

# Standard output is the pipe to drain, standard error one that ends when we let go: these
# numbers, as those above 2 may be ours, and as a shell gives what it starts in the
# background a standard input of its own. In the background, so that it is nobody's child.
_DRAIN = "{ cd /; read -r end <&2; exec cat <&1 >/dev/null 2>&1; } &"


class Detached:
    """A process that was started to stay. Call stop() or let_go() in the end."""

    def __init__(self, process: Process, errors: int, ours: ExitStack) -> None:
        """`errors` can be read for what it writes to standard error; `ours` closes that."""
        self._process = process
        self._errors = errors
        self._ours = ours
        self._words = StderrTail()
        self._poller = new_poller()
        self._poller.register(process.descriptor, READ)
        self._poller.register(errors, READ)
        # Asked before each read. O_NONBLOCK would be set for the drain, too, which must wait.
        self._listener = new_poller()
        self._listener.register(errors, READ)

    def status(self) -> int | None:
        """Exit status, or minus the signal that killed it; None while it runs."""
        return self._process.status()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it ends; only the first time does its end cut that short."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            for descriptor, found in self._poller.wait(left):
                if descriptor == self._process.descriptor:
                    self._poller.unregister(descriptor)
                    end = 0.0
                elif not self._listen() and found & HANGUP:
                    self._poller.unregister(descriptor)

    def last_words(self) -> str:
        """The last lines that it wrote to standard error, as one; may hold any characters."""
        for _ in range(_MOST_READS):  # one that we cannot end may write for ever
            if not self._listen():
                break
        return self._words.text()

    def stop(self) -> str:
        """End it and its process group, also what is left of that; its last words.

        Raises SipcError if it cannot be ended.
        """
        try:
            self._process.stop(_GRACE, None)
            return self.last_words()
        finally:
            self._ours.close()

    def let_go(self) -> None:
        """It is on its own from now on."""
        self._ours.close()
        self._process.let_go()

    def _listen(self) -> bool:
        """Take what it wrote, without waiting; False if there is nothing."""
        if not self._listener.wait(0.0):
            return False
        piece = os.read(self._errors, _CHUNK)
        self._words.add(piece)
        return bool(piece)


def start_detached(command: Command, environment: Mapping[str, str]) -> Detached:
    """Start a command so that it can stay. Raises SpawnFailed, SipcError."""
    with _explained(command), ExitStack() as theirs, ExitStack() as ours:
        errors, its_errors = os.pipe()
        ours.callback(os.close, errors)
        theirs.callback(os.close, its_errors)
        released, hold = os.pipe()
        theirs.callback(os.close, released)
        ours.callback(os.close, hold)
        _start_drain(errors, released, environment)
        pid = _start_command(command, environment, its_errors)
        return Detached(Process(pid), errors, ours.pop_all())


def _start_command(command: Command, environment: Mapping[str, str], errors: int) -> int:
    """Start it, without a shell that would stay as long as it does where none is needed."""
    files = [(errors, 2)]
    direct = command.direct_argv()
    if direct is not None:
        try:
            return _start(*direct, environment, files)
        except OSError:
            pass  # what the system cannot start, the shell may
    return _start(SHELL, command.shell_argv(), environment, files)


def _start_drain(errors: int, released: int, environment: Mapping[str, str]) -> None:
    """Start what reads `errors` once nobody can write to the other end of `released`."""
    pid = _start(SHELL, [SHELL, "-c", _DRAIN], environment, [(errors, 1), (released, 2)])
    if os.waitpid(pid, 0)[1]:
        raise SpawnFailed("nothing can be started", "allow more processes with ulimit -u")


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
def _explained(command: Command) -> Iterator[None]:
    """What the system says, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise SpawnFailed(
            f"cannot start {command.line[:60]!r}: {error.strerror}",
            "look at the limits that ulimit -a shows",
        ) from error
