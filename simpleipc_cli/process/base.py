"""The interface of child processes, and the code that all operating systems share."""

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

PIPE = -1
"""In place of a descriptor: make a pipe."""

_MAX_READS = 16  # empties a pipe of the maximum size (pipe(7): 1 MiB)
_MAX_STDERR = 4096  # bytes of standard error to keep (tunable)
_MAX_LINES, _MAX_CHARACTERS = 5, 500  # of standard error to show (tunable)
_MAX_PID_FILE = 32  # bytes (tunable)


class Command:
    """A shell command line. The line and its PATH decide which program it runs."""

    def __init__(self, line: str, search_path: str) -> None:  # noqa: ARG002 - for subclasses
        self.line = line

    def is_missing(self) -> bool:
        """Return whether the line certainly names no existing program."""
        return False


class ChildProcess(ABC):
    """A child process and all processes that it starts."""

    pid: int
    descriptor: int
    """Descriptor to poll: READ after the child has exited, until it is stopped."""
    may_stop_nowait = False
    """Whether stop_nowait() mostly stops a child that has exited."""

    @abstractmethod
    def status(self) -> int | None:
        """Return the exit status, or the negative signal number; None while it runs.

        Raises SipcError.
        """

    @abstractmethod
    def stop(self, grace_period: float, kill_now: WakeupEvent | None) -> None:
        """Terminate all processes, and kill them after `grace_period` seconds.

        `kill_now`, if given, ends the grace period early. Return when no process is left. Raises
        SipcError if the child cannot be killed.
        """

    @abstractmethod
    def kill(self) -> None:
        """Kill all processes without waiting for their exit. Raises OSError."""

    def stop_nowait(self) -> bool:
        """Stop it without blocking; return False if that is impossible: then call stop()."""
        return False

    def wait(self, seconds: float, kill_now: WakeupEvent | None) -> bool:
        """Wait until the child exits; return False after `seconds`, or if `kill_now` is set before.

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
    """The parent's ends of the pipes to a child's standard input and from its standard output.

    The constructor takes a file for the standard input, or None for a pipe; and a file or PIPE for
    the standard error, or None to inherit it. Raises SipcError.
    """

    accepts_file: bool
    """Whether the child's standard input may be a file."""
    input: int
    """Descriptor to poll; -1 if there is no pipe or it is closed."""
    output: int
    errors: int = -1
    """Descriptor of the pipe from the standard error, until close(); -1 if there is none."""

    @abstractmethod
    def spawn(
        self,
        command: Any,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        variables: Mapping[str, str],
    ) -> ChildProcess:
        """Start a command; it inherits the child's ends of the pipes and no other descriptors.

        `environment` must never change; `variables` are added to it and must have other names. On
        failure, close all pipes and raise SipcError.
        """

    @abstractmethod
    def take_child_ends(self) -> tuple[int, int]:
        """Return descriptors of a child's standard input and output, for a thread to use and close.

        To be called in place of spawn(). They block. Raises SipcError.
        """

    def write_whole(self, payload: Sequence[Buffer]) -> bool:  # noqa: ARG002
        """Write a small request and close the input; return False if that is not possible.

        Call it before spawn(): then the child gets the whole request even if the server is killed.
        """
        return False

    def guard_input(self, guardian: Any) -> None:  # noqa: B027 - see Guardian
        """Make the guardian kill the child if the server is killed.

        Otherwise the child would see the end of its input, and take the request for complete. Call
        it before spawn().
        """

    @abstractmethod
    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:
        """Write a part of `payload`; return its number of bytes.

        After BlockingIOError, pass the same bytes again. Raises PeerClosed.
        """

    @abstractmethod
    def end_input(self) -> None:
        """Close the pipe to the child."""

    def abandon_input(self) -> None:  # noqa: B027 - nothing to do
        """Stop writing, but leave the pipe open.

        Another process may still read it, and must not take a truncated request for complete.
        """

    @abstractmethod
    def unread(self) -> int:
        """Return the number of bytes that the child has not read."""

    @abstractmethod
    def read(self, buffer: memoryview) -> list[memoryview]:
        """Read from the child; return an empty list at the end. Raises BlockingIOError."""

    @abstractmethod
    def has_output(self) -> bool:
        """Return whether read() would return data."""

    @abstractmethod
    def close(self) -> None:
        """Close all pipes."""


class Detached(ABC):
    """A process that may outlive this process. Call stop() or detach() at the end."""

    def __init__(self, ours: ExitStack) -> None:
        """`ours` closes all resources of this process."""
        self._ours = ours
        self._stderr_tail = b""  # probably an error message

    @abstractmethod
    def status(self) -> int | None:
        """Return the exit status, or the negative signal number; None while it runs."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait `seconds`; the first call returns early if the process exits."""

    def detach(self) -> None:
        """Let it run without this process."""
        self._ours.close()

    def stop(self) -> str:
        """Terminate it and all processes that it started; return the end of its standard error.

        The text is one line of any characters. Raises SipcError if a process cannot be killed.
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
        """Read without blocking; return False if there is no data."""
        data = self._stderr_data()
        self._stderr_tail = (self._stderr_tail + data)[-_MAX_STDERR:]
        return bool(data)

    @abstractmethod
    def _stderr_data(self) -> bytes:
        """Return the available bytes of its standard error, without blocking."""

    @abstractmethod
    def _stop(self) -> None:
        """Terminate all processes. Raises SipcError."""


class PendingDaemon(ABC):
    """A server in the background that does not listen yet, for the parent that started it."""

    def __init__(self, pipe: int, signals: BlockedSignals) -> None:
        """Own the read end of the pipe from ReadyPipe; `signals` are blocked."""
        self._pipe = pipe
        self._signals = signals

    def wait(self, max_wait: float | None) -> int | None:
        """Wait until it listens, and return None; if it exits first, return its status.

        Raises TimedOut after `max_wait` seconds. Terminates the server after that, or if a signal
        handler raises an exception. When the server listens, signals stay blocked, so that the
        caller can report it.
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
        """Wait until it listens or exits; return False if the deadline expires first."""

    @abstractmethod
    def _outcome(self) -> int | None:
        """Return its exit status; None if it listens."""

    @abstractmethod
    def _terminate(self) -> None:
        """Stop the server."""


class ReadyPipe:
    """The pipe by which a server in the background reports to its parent that it listens."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def notify(self) -> None:
        """Report that the server listens; close standard error, unless it is a file."""
        if not stat.S_ISREG(os.fstat(2).st_mode):
            os.dup2(0, 2)  # standard input is the null device; dup2 needs no new descriptor
        try:
            os.write(self._pipe, b"!")
        except OSError:
            pass  # the parent was killed
        os.close(self._pipe)


class PidFile(ABC):
    """A server's pid file. It exists only within a `with`, and belongs to one server.

    Only a file that contains a number counts as a pid file: other files are not changed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        """Create it. Raises AddressInUse if it belongs to a running server, SipcError."""
        if not os.path.basename(self._path) or "\0" in self._path:
            raise SipcError(f"{self._path!r} cannot be the name of a pid file", "choose another")
        try:
            self._create()
        except OSError as error:
            raise self._explained(error) from error

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Remove it, unless it now belongs to another server."""

    @abstractmethod
    def _create(self) -> None:
        """Create or replace the file, and keep it open. Raises OSError, AddressInUse, SipcError."""

    @abstractmethod
    def _explained(self, error: OSError) -> SipcError:
        """Convert an operating system error to the error to report."""

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
