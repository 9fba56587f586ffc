"""What child processes offer on every operating system, and what all systems do alike."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import AddressInUse, SipcError, TimedOut
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import READ, WakeupEvent, new_poller

_MAX_READS = 16  # for the content of a pipe of the maximum size (pipe(7): 1 MiB)
_MAX_STDERR = 4096  # bytes of standard error that are kept (tunable)
_MAX_LINES, _MAX_CHARACTERS = 5, 500  # of standard error that are shown (tunable)
_MAX_PID_FILE = 32  # bytes (tunable)


class Command:
    """A shell command line. The line and its PATH decide which program it runs."""

    def __init__(self, line: str, search_path: str) -> None:  # noqa: ARG002 - for subclasses
        self.line = line

    def is_missing(self) -> bool:
        """Return whether the command certainly names no program."""
        return False


class ChildProcess(ABC):
    """A child, with all processes that it starts."""

    pid: int
    descriptor: int
    """READ once the child has exited, until it is stopped."""

    @abstractmethod
    def status(self) -> int | None:
        """Return the exit status, or minus the signal that killed it; None while it runs.

        Raises SipcError.
        """

    @abstractmethod
    def stop(self, grace_period: float, kill_now: WakeupEvent | None) -> None:
        """Terminate all its processes, and kill them after `grace_period` seconds.

        `kill_now`, if any, cuts that short. Returns when none is left. Raises SipcError if the
        child cannot be killed.
        """

    @abstractmethod
    def kill(self) -> None:
        """Kill all its processes without waiting for their exit. Raises OSError."""

    def stop_nowait(self) -> bool:
        """Stop it if that does not block; False if stop() must be called, without delay."""
        return False

    def wait(self, seconds: float, kill_now: WakeupEvent | None) -> bool:
        """Wait until the child exits; False if it did not in time, or before `kill_now` is set.

        Raises SipcError.
        """
        if self.status() is not None:
            return True
        end = monotonic() + seconds
        poller = new_poller()
        try:
            poller.register(self.descriptor, READ)
            if kill_now is not None:
                poller.register(kill_now.fileno(), READ)
            while self.status() is None:
                left = end - monotonic()
                if left <= 0 or (kill_now is not None and kill_now.is_set()):
                    return False
                poller.wait(left)
        except OSError as error:
            raise self._wait_error(error) from error
        finally:
            poller.close()
        return True

    def _wait_error(self, error: OSError) -> SipcError:
        return SipcError(f"cannot wait for process {self.pid}: {error.strerror}")


class StdioPipes(ABC):
    """Our ends of the pipes to a child's standard input and from its standard output.

    Made from the file to use as standard input, or None for a pipe. Raises SipcError then.
    """

    accepts_file: bool
    """Whether the child's standard input may be a file."""
    input: int
    """Descriptor to poll; -1 if there is none, or once it is closed."""
    output: int

    @abstractmethod
    def spawn(
        self,
        command: Any,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        variables: Mapping[str, str],
    ) -> ChildProcess:
        """Start a command with the child's ends, and none of our other descriptors.

        `environment` must never change; `variables` are added to it, and have other names. On
        failure, closes all pipes and raises SipcError.
        """

    def write_whole(self, payload: Sequence[Buffer]) -> bool:  # noqa: ARG002
        """Write a small request and end the input; return False if that is not possible.

        To be called before spawn(): whatever happens to the server then, the child gets it whole.
        """
        return False

    def guard_input(self, guardian: Any) -> None:  # noqa: B027 - see Guardian
        """Have the child killed before its input ends because the server is killed.

        To be called before spawn(), for a child that takes the end of its input for the end of a
        request.
        """

    @abstractmethod
    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:
        """Write some of `payload`; return how many bytes.

        After BlockingIOError the same bytes must be offered again. Raises PeerClosed.
        """

    @abstractmethod
    def end_input(self) -> None:
        """Close the pipe to the child."""

    def abandon_input(self) -> None:  # noqa: B027 - nothing to do
        """Write no more, and leave the pipe open.

        A process that the child has started may still read it, and must not take half a request
        for a whole one.
        """

    @abstractmethod
    def unread(self) -> int:
        """Return how many bytes the child has not read."""

    @abstractmethod
    def read(self, buffer: memoryview) -> list[memoryview]:
        """Read from the child; empty at the end. Raises BlockingIOError."""

    @abstractmethod
    def has_output(self) -> bool:
        """Return whether read() would return data."""

    @abstractmethod
    def close(self) -> None:
        """Close what is still open."""


class Detached(ABC):
    """A process that outlives us, unless it is stopped. Call stop() or detach() in the end."""

    def __init__(self, ours: ExitStack) -> None:
        """`ours` closes everything."""
        self._ours = ours
        self._stderr_tail = b""  # most likely why it exited

    @abstractmethod
    def status(self) -> int | None:
        """Return the exit status, or minus the signal that killed it; None while it runs."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait that long, the first time at most until it exits."""

    def detach(self) -> None:
        """Let it run on its own."""
        self._ours.close()

    def stop(self) -> str:
        """Terminate it with all that it has started; return the end of its standard error.

        As one line, which may hold any characters. Raises SipcError if it cannot be killed.
        """
        try:
            self._stop()
            for _ in range(_MAX_READS):  # a process that cannot be killed may write without end
                if not self._read_stderr():
                    break
        finally:
            self._ours.close()
        lines = self._stderr_tail.decode("utf-8", "backslashreplace").splitlines()
        text = " | ".join([line.strip() for line in lines if line.strip()][-_MAX_LINES:])
        return text if len(text) <= _MAX_CHARACTERS else f"...{text[-_MAX_CHARACTERS:]}"

    def _read_stderr(self) -> bool:
        """Read without blocking; False if there is nothing."""
        data = self._stderr_data()
        self._stderr_tail = (self._stderr_tail + data)[-_MAX_STDERR:]
        return bool(data)

    @abstractmethod
    def _stderr_data(self) -> bytes:
        """Return what its standard error holds, without blocking."""

    @abstractmethod
    def _stop(self) -> None:
        """Terminate all its processes. Raises SipcError."""


class PendingDaemon(ABC):
    """The parent's half of daemonize(): a server that does not listen yet."""

    def __init__(self, pipe: int, signals: BlockedSignals) -> None:
        """Take over the reading end of the pipe from ReadyPipe; `signals` are blocked."""
        self._pipe = pipe
        self._signals = signals

    def wait(self, max_wait: float | None) -> int | None:
        """Wait until it listens, and return None; if it exits before, return its status.

        Raises TimedOut after `max_wait` seconds. Terminates it then, and if a signal handler
        raises an exception. Signals stay blocked once it listens, so that the caller reports it.
        """
        try:
            with self._signals.unblocked():
                has_reported = self._wait(Deadline(max_wait))
            if not has_reported:
                raise TimedOut(
                    f"the server did not listen within {max_wait:g} s, and was terminated",
                    "find out what delays it, or allow more time with --max-wait",
                )
        except BaseException:
            self._terminate()
            raise
        return self._outcome()

    @abstractmethod
    def _wait(self, deadline: Deadline) -> bool:
        """Wait until it listens or exits; False if the deadline expires first."""

    @abstractmethod
    def _outcome(self) -> int | None:
        """Return its exit status, None if it listens."""

    @abstractmethod
    def _terminate(self) -> None:
        """End it."""


class ReadyPipe:
    """The server's half of daemonize()."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def notify(self) -> None:
        """Report that the server listens, and leave standard error unless that is a file."""
        if not stat.S_ISREG(os.fstat(2).st_mode):
            os.dup2(0, 2)  # the null device by now; needs no new descriptor
        try:
            os.write(self._pipe, b"!")
        except OSError:
            pass  # the parent was killed
        os.close(self._pipe)


class PidFile(ABC):
    """A server's pid file, in a `with`: exists only in there, and belongs to one server.

    Only a file that holds a number is taken for a pid file: any other file is left alone.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        """Create it. Raises AddressInUse if a running server has it, SipcError."""
        if not os.path.basename(self._path) or "\0" in self._path:
            raise SipcError(f"{self._path!r} cannot be the name of a pid file", "choose another")
        try:
            self._create()
        except OSError as error:
            raise self._explained(error) from error

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Remove it, unless it belongs to another server by now."""

    @abstractmethod
    def _create(self) -> None:
        """Create or replace it, and keep it open. Raises OSError, AddressInUse, SipcError."""

    @abstractmethod
    def _explained(self, error: OSError) -> SipcError:
        """Return the error to report for one of the system."""

    def _pid_in(self, descriptor: int) -> int:
        """Return the number in a pid file, 0 if it is empty. Raises SipcError."""
        content = os.read(descriptor, _MAX_PID_FILE + 1)
        if not content:
            return 0
        if len(content) > _MAX_PID_FILE or not content.strip().isdigit():
            raise self._in_the_way("not a pid file")
        return int(content)

    def _in_the_way(self, what: str) -> SipcError:
        return SipcError(f"{self._path} is in the way: it is {what}", "choose another pid file")

    def _in_use(self, pid: int) -> AddressInUse:
        process = f", process {pid}," if pid else ""
        return AddressInUse(
            f"a running server{process} has the pid file {self._path}",
            "stop that server first, or choose another pid file",
        )

    def _not_written(self, why: str, hint: str) -> SipcError:
        return SipcError(f"cannot write the pid file {self._path}: {why}", hint)

    def _no_folder(self) -> SipcError:
        folder = os.path.dirname(self._path) or "."
        return self._not_written(f"there is no folder {folder}", "create it first")
