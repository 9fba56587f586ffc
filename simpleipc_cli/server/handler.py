"""The interface between the server and its handlers.

A handler starts a run for each request. The server polls the run's three descriptors, writes
the request's payload to it, reads the response's payload from it, and stops it. It does not know
whether a process, a worker or a callback answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from simpleipc_cli.pktline import Buffer
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import Peer, WakeupEvent


@dataclass(frozen=True, slots=True)
class Request:
    """A request before its first byte."""

    id: str
    peer: Peer


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended without the server's help."""

    succeeded: bool
    status: str
    """One word: "0", "3", "SIGKILL"."""
    text: str
    """How it ended, as text: "exit status 3", "killed by SIGKILL"."""
    request_unread: bool = False
    """Whether nothing of the request was read, so that another run may answer it."""


class HandlerRun(ABC):
    """One request being answered. Only stop() may block.

    The server may poll the descriptors until it calls stop(), and `input` until end_input().
    """

    is_persistent: bool = False
    """Whether its process stays for other requests. Then it gets the whole request, even after its
    response, and may answer after it stopped reading."""
    input: int
    """Descriptor to write the request to; -1 once it is closed. HANGUP: the run reads no more."""
    output: int
    """Descriptor to read the response from; -1 at end of file. Set to -1 to read no more."""
    exit: int
    """Descriptor that is readable, and stays so, from when the run has exited."""

    @abstractmethod
    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:
        """Write some of the request; return how many bytes.

        With `last` no bytes follow, and the end of the request may be written with these. The
        caller must offer the unwritten bytes again. Raises BlockingIOError if the run accepts none
        now, PeerClosed if it never will.
        """

    @abstractmethod
    def end_input(self) -> None:
        """End the request. Until it succeeds, `input` keeps its value: call it again."""

    @abstractmethod
    def abandon_input(self) -> None:
        """Write no more, but do not end the request. May be called again."""

    @abstractmethod
    def read(self, buffer: memoryview) -> list[memoryview]:
        """Read some of the response; return pieces that are views of `buffer`.

        Sets `output` to -1 if no more pieces follow. Raises BlockingIOError without data.
        """

    @abstractmethod
    def result(self) -> Result | None:
        """Return how the run ended; None while it is running."""

    @abstractmethod
    def stop(self, kill_now: WakeupEvent) -> None:
        """Terminate the run and its children, and kill them after the grace period.

        `kill_now` cuts that short. Blocks until it is done. The run's input is not ended before
        that: its reader must not take that for the end of the request. Must be called once for
        every run, even if it has exited. Raises SipcError if something cannot be killed.
        """

    @abstractmethod
    def kill(self) -> None:
        """Kill the run and its children without waiting for their exit. Raises OSError.

        For a server that ends while the thread hangs that would stop the run.
        """

    def stop_nowait(self) -> bool:
        """Stop the run if that does not block; return False if stop() must be called instead."""
        return False


class Handler(ABC):
    """Answers requests. Its methods may be called from any thread."""

    accepts_spooled = True
    """Whether run() takes a spooled request; else that is written to the run."""
    min_fds = 0
    """How many descriptors it needs at least, not counting those of runs."""
    held_fds = 0
    """How many it holds now, not counting those of runs."""

    @abstractmethod
    def run(
        self, request: Request, spooled: Spool | None, payload: Sequence[Buffer] | None
    ) -> HandlerRun:
        """Start a run. `spooled` is the whole request, if the server has waited for it.

        `payload` is the whole request, if it has arrived and is in memory. If the run takes one of
        them, its `input` is -1 from the start. Raises SipcError.
        """

    def run_nowait(
        self,
        request: Request,  # noqa: ARG002
        payload: Sequence[Buffer] | None,  # noqa: ARG002
    ) -> HandlerRun | None:
        """Start a run if that does not block; return None if run() must be called instead.

        Raises SipcError.
        """
        return None

    def start(self) -> None:  # noqa: B027
        """Prepare for requests: the server begins to serve, and threads may be started."""

    def reload(self) -> None:  # noqa: B027 - most keep nothing
        """Replace idle processes now, and busy ones when they finish.

        Can be called from a signal handler.
        """

    def stats(self) -> dict[str, int]:
        """Return its counters by name."""
        return {}

    def close(self, kill_now: WakeupEvent) -> None:  # noqa: B027
        """End all idle processes as HandlerRun.stop() does, after all runs have been stopped."""
