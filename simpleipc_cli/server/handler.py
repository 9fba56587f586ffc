"""What the server knows of whatever answers a request: a handler starts runs.

A run is one request being answered. The server polls its three descriptors, hands it the
request's payload, takes the response's payload, and ends it. It never learns whether a
process, a worker or something else is behind them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from simpleipc_cli.buffers import Buffer
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


class Run(ABC):
    """One request being answered. Nothing here waits, but for stop()."""

    input: int
    """Descriptor to write the request to, -1 once that has ended. HANGUP: reads no more."""
    output: int
    """Descriptor to read the response from, -1 once that has ended."""
    exit: int
    """Descriptor that can be read (and read again) from when the run has ended by itself."""

    @abstractmethod
    def write(self, payload: Sequence[Buffer]) -> int:
        """Hand over some of the request; returns how many bytes.

        Raises BlockingIOError if nothing is taken now, PeerGone if nothing ever will be.
        """

    @abstractmethod
    def end_input(self) -> None:
        """The request is complete, or nobody wants the rest of it. May be called again."""

    @abstractmethod
    def read(self, buffer: Buffer) -> int:
        """Take some of the response; 0 at its end. Raises BlockingIOError if none is there."""

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


class Handler(ABC):
    """What answers requests."""

    @abstractmethod
    def start(self, request: Request, stored: Spool | None) -> Run:
        """Begin to answer. `stored` is the whole request, if it was waited for.

        A run with a stored request has its input ended from the start. Raises SipcError.
        """

    def renew(self) -> None:  # noqa: B027 - most keep nothing
        """Let what is kept between requests be replaced as soon as it is free."""

    def counts(self) -> dict[str, int]:
        """What has become of what is kept between requests, in numbers by name."""
        return {}
