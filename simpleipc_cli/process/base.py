"""What the modules of each operating system offer; mypy holds both to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from simpleipc_cli.pktline import Buffer
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import Latch


class Command(Protocol):
    """A shell command line. The line and its PATH decide which program it runs."""

    line: str

    def is_missing(self) -> bool:
        """Return whether the command certainly names no program."""


class ChildProcess(Protocol):
    """A child, with all processes that it starts."""

    pid: int
    descriptor: int
    """READ once the child has exited, until it is stopped."""

    def status(self) -> int | None:
        """Return the exit status, or minus the signal that killed it; None while it runs."""

    def wait(self, seconds: float, kill_now: Latch | None) -> bool:
        """Wait until the child exits; False if it did not in time, or before `kill_now` is set."""

    def stop(self, grace_period: float, kill_now: Latch | None) -> None:
        """Terminate all its processes, and kill them after `grace_period` seconds.

        `kill_now`, if any, cuts that short. Returns when none is left. Raises SipcError if the
        child cannot be killed.
        """

    def stop_nowait(self) -> bool:
        """Stop it if that does not block; False if stop() must be called, without delay."""


class StdioPipes(Protocol):
    """Our ends of the pipes to a child's standard input and from its standard output.

    Made from the file to use as standard input, or None for a pipe. Raises SipcError then.
    """

    accepts_file: bool
    """Whether the child's standard input may be a file."""
    input: int
    """Descriptor to poll; -1 if there is none, or once it is closed."""
    output: int

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

    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:
        """Write some of `payload`; return how many bytes.

        After BlockingIOError the same bytes must be offered again. Raises PeerClosed.
        """

    def end_input(self) -> None:
        """Close the pipe to the child."""

    def abandon_input(self) -> None:
        """Write no more, and leave the pipe open."""

    def unread(self) -> int:
        """Return how many bytes the child has not read."""

    def read(self, buffer: memoryview) -> list[memoryview]:
        """Read from the child; empty at the end. Raises BlockingIOError."""

    def has_output(self) -> bool:
        """Return whether read() would return data."""

    def end_output(self) -> None:
        """Read no more."""

    def close(self) -> None:
        """Close what is still open."""


class Detached(Protocol):
    """A process that outlives us, unless it is stopped. Call stop() or detach() in the end."""

    def status(self) -> int | None:
        """Return the exit status, or minus the signal that killed it; None while it runs."""

    def wait(self, seconds: float) -> None:
        """Wait that long, the first time at most until it exits."""

    def stop(self) -> str:
        """Terminate it with all that it has started; return the end of its standard error.

        Raises SipcError if it cannot be killed.
        """

    def detach(self) -> None:
        """Let it run on its own."""


class PendingDaemon(Protocol):
    """The parent's half of daemonize(): a server that does not listen yet."""

    def wait(self, max_wait: float | None) -> int | None:
        """Wait until it listens, and return None; if it exits before, return its status.

        Raises TimedOut after `max_wait` seconds. Terminates it then, and if a signal handler
        raises an exception. Signals stay blocked once it listens, so that the caller reports it.
        """


class ReadyPipe(Protocol):
    """The server's half of daemonize()."""

    def notify(self) -> None:
        """Report that the server listens, and leave standard error unless that is a file."""


class PidFile(Protocol):
    """A server's pid file, in a `with`: exists only in there, and belongs to one server."""

    def __enter__(self) -> None:
        """Create it. Raises AddressInUse if a running server has it, SipcError."""

    def __exit__(self, *_: object) -> None:
        """Remove it, unless it belongs to another server by now."""
