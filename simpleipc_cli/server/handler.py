"""What the server knows of whatever answers a request: a handler starts runs.

A run is one request being answered. The server polls its three descriptors, hands it the
request's payload, takes the response's payload, and ends it. It never learns whether a
process, a worker or something else is behind them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from simpleipc_cli.pktline import Buffer
from simpleipc_cli.spool import Spool
from simpleipc_cli.transport import Latch, Peer


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler may know of a request before its first byte."""

    id: str
    path: str
    """The endpoint's absolute path."""
    peer: Peer


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended by itself."""

    succeeded: bool
    status: str
    """One word: "0", "3", "SIGKILL"."""
    text: str
    """For people: "exit status 3", "killed by SIGKILL"."""
    untouched: bool = False
    """Whether nothing of the request was looked at: another run may answer it."""


class Run(ABC):
    """One request being answered. Nothing here waits, but stop()."""

    kept: bool = False
    """Whether what answers stays for other requests: then it is given the whole of this one,
    also behind its answer, and that it reads no more is not the end of it."""
    input: int
    """Descriptor to write the request to, -1 once that has ended. HANGUP: reads no more."""
    output: int
    """Descriptor to read the response from, -1 once that has ended."""
    exit: int
    """Descriptor that can be read (and read again) from when the run has ended by itself."""

    @abstractmethod
    def write(self, payload: Sequence[Buffer], *, last: bool) -> int:
        """Hand over some of the request; returns how many bytes.

        With `last` these are all that is left, and its end may go with them. What was not
        taken must be offered again. Raises BlockingIOError if nothing is taken now, PeerGone
        if nothing ever will be.
        """

    @abstractmethod
    def end_input(self) -> None:
        """The request is complete. `input` stays until that could be told: then call again."""

    @abstractmethod
    def lose_input(self) -> None:
        """Nothing more can be written, or is to be. May be called again."""

    @abstractmethod
    def read(self, buffer: memoryview) -> list[memoryview]:
        """Take some of the response: pieces that look into `buffer`, none at its end.

        May end `output`, if these are the last. Raises BlockingIOError if none is there.
        """

    @abstractmethod
    def end_output(self) -> None:
        """Read no more of the response. May be called again."""

    @abstractmethod
    def result(self) -> Result | None:
        """How the run ended, None while it goes on."""

    @abstractmethod
    def stop(self, grace: float, hurry: Latch) -> None:
        """End the run and all that it started: ask, and after `grace` seconds force.

        `hurry` cuts the grace short. Waits until it is done. The run's input is not ended
        before: whoever still reads it must not take its end for the request's. Must be
        called once for every run, also for one that has ended by itself. Raises SipcError
        if something cannot be ended.
        """

    def stop_now(self) -> None:
        """The same, if that is done without waiting; what has ended by itself, say.

        Else BlockingIOError: stop() must be called.
        """
        raise BlockingIOError


class Handler(ABC):
    """What answers requests. Its methods may be called from any thread."""

    takes_stored = True
    """Whether start() can do with a stored request; else it is written to the run."""

    @abstractmethod
    def start(self, request: Request, stored: Spool | None) -> Run:
        """Begin to answer. `stored` is the whole request, if it was waited for.

        A run with a stored request has its input ended from the start. Raises SipcError.
        """

    def start_now(self, request: Request) -> Run:  # noqa: ARG002
        """The same, if nothing has to be waited for, and no request was stored.

        Else BlockingIOError: start() must be called. Raises SipcError.
        """
        raise BlockingIOError

    def begin(self) -> None:  # noqa: B027
        """The server begins to serve: from now on, threads may be started."""

    def descriptors(self) -> int:
        """How many descriptors it holds now, those of runs not counted."""
        return 0

    def least_descriptors(self) -> int:
        """With how many it can do, those of runs not counted; less, and nobody is accepted."""
        return 0

    def renew(self) -> None:  # noqa: B027 - most have nothing that waits
        """Let what waits for requests be replaced; what answers one is, when it is done.

        Can be called from a signal handler.
        """

    def counts(self) -> dict[str, int]:
        """What it has done so far, in numbers with names."""
        return {}

    def end(self, grace: float, hurry: Latch) -> None:  # noqa: B027
        """End all that waits for requests: see Run.stop(). All runs must have been stopped."""
