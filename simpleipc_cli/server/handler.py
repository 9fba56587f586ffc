"""The interface between the server and its handlers.

A handler starts a run for each request. The server polls the run's three descriptors, writes the
request's payload, reads the response's payload, and stops the run. This is the same for a process,
a worker and a callback.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simpleipc_cli.pktline import Buffer
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import Peer, Poller, WakeupEvent


@dataclass(slots=True)  # not frozen, as that takes longer to create; so, too, below
class RequestInfo:
    """A request whose payload has not been read yet. It never changes."""

    id: str
    peer: Peer
    """Without a process number if neither handler nor log needs it."""


@dataclass(slots=True)
class Result:
    """How a run ended that the server did not stop. It never changes."""

    succeeded: bool
    status: str
    """One word: "0", "3", "SIGKILL"."""
    text: str
    """As text: "exit status 3", "killed by SIGKILL"."""
    request_unread: bool = False
    """Whether the run has read no byte of the request, so that another run may answer it."""


class HandlerRun(ABC):
    """Answers one request. Only stop() may block.

    The server may poll the descriptors until it calls stop(), and `input` until end_input().
    """

    is_persistent: bool = False
    """Whether the process answers several requests. Such a run gets the whole request even if it
    has already responded, and may respond even if it has stopped reading."""
    input: int
    """Descriptor to write the request to; -1 if closed. HANGUP: the run has closed its input."""
    output: int
    """Descriptor to read the response from; -1 at end of file. Set it to -1 to stop reading."""
    exit: int
    """Descriptor that is readable, and stays so, from when the run has exited; -1 for a run that
    has exited when its output has ended."""
    call: Callable[[], None] | None = None
    """What the thread of the event loop must call next, as this run then has an `output`. It may
    take long, never raises, and no step of the exchange is on its stack."""

    @abstractmethod
    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:
        """Write a part of the request; return its number of bytes.

        With `last` no bytes follow: the run may write the end of the request, too. The caller must
        pass the unwritten bytes again. Raises BlockingIOError if the run accepts no byte now,
        PeerClosed if it has closed its input.
        """

    @abstractmethod
    def end_input(self) -> None:
        """End the request. If `input` is not -1 after the call, call it again later."""

    @abstractmethod
    def abandon_input(self) -> None:
        """Stop writing, but do not end the request. May be called again."""

    @abstractmethod
    def read(self, buffer: memoryview) -> list[memoryview]:
        """Read a part of the response; return pieces that are views of `buffer`.

        Set `output` to -1 if no more pieces follow. Raises BlockingIOError if there is no data.
        """

    @abstractmethod
    def result(self) -> Result | None:
        """Return how the run ended; None while it is running."""

    @abstractmethod
    def stop(self, kill_now: WakeupEvent) -> None:
        """Terminate the run and its children, and kill them after the grace period.

        `kill_now` ends the grace period early. Blocks until all have ended. Keeps the run's input
        open until then, so that no process takes a truncated request for complete. Call it once for
        every run, even if it has exited. Raises SipcError if a process cannot be killed.
        """

    @abstractmethod
    def kill(self) -> None:
        """Kill the run and its children without waiting for their exit. Raises OSError.

        Used if the server ends while the thread that should stop the run hangs.
        """

    def make_pollable(self) -> bool:
        """Open `output` during the call, as it takes long; return False if that fails now."""
        return False

    def stop_nowait(self) -> bool:
        """Stop the run if that does not block; return False if stop() must be called instead."""
        return False


Call = tuple[HandlerRun, Callable[[], None]]
"""A run with a `call`, and what to call after it, or once its `output` is open."""


class Handler(ABC):
    """Answers requests. Its methods may be called from any thread."""

    has_calls = False
    """Whether it has runs with a `call`."""
    has_quick_runs = False
    """Whether most runs may respond soon, and with little data."""
    needs_peer = True
    """Whether runs need the peer of their request."""
    needs_whole_request = False
    """Whether run() must wait until the request is complete."""
    stuck = 0
    """Runs that were stopped and go on nevertheless: they count as busy."""
    on_unstuck: Callable[[], None] = staticmethod(lambda: None)
    """Called by any thread when such a run has ended."""
    accepts_spooled = True
    """Whether run() accepts a spooled request; otherwise the server writes it to the run."""
    min_fds = 0
    """Minimum number of descriptors that the handler needs, without those of runs."""
    run_fds = 0
    """Number of descriptors that each run needs besides two pipes and a pidfd."""
    held_fds = 0
    """Number of descriptors that the handler has open now, without those of runs."""

    @abstractmethod
    def run(
        self, request: RequestInfo, spooled: Spool | None, payload: Sequence[Buffer] | None
    ) -> HandlerRun:
        """Start a run. `spooled` is the whole request, if the server has spooled it.

        `payload` is the whole request, if it has arrived and is in memory. If the run uses one of
        them, its `input` is -1 from the start. Raises SipcError; after a Shortage it may be called
        again.
        """

    def run_nowait(
        self,
        request: RequestInfo,  # noqa: ARG002
        payload: Sequence[Buffer] | None,  # noqa: ARG002
    ) -> HandlerRun | None:
        """Start a run if that does not block; return None if run() must be called instead.

        Raises the errors of run().
        """
        return None

    def start(self, poller: Poller, wake: Callable[[], object]) -> None:  # noqa: B027
        """Prepare for requests. The server calls this when it starts to serve.

        It may start threads, and poll descriptors with `poller`, that of the event loop, whose wait
        `wake` ends.
        """

    def reload(self) -> None:  # noqa: B027 - most have no idle processes
        """Replace idle processes now, and busy ones when they finish.

        Can be called from a signal handler.
        """

    def stats(self) -> dict[str, int]:
        """Return its counters by name."""
        return {}

    def close(self, kill_now: WakeupEvent) -> None:  # noqa: B027
        """End all idle processes as HandlerRun.stop() does, after all runs have been stopped."""
