"""What the server tells whoever runs it; how that looks is decided elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic

from simpleipc_cli.transport import Peer


class Outcome(Enum):
    """How a request ended."""

    ANSWERED = "answered"
    FAILED = "handler failed"
    TIMED_OUT = "handler timed out"
    NOT_STARTED = "handler not started"
    HUNG_UP = "client hung up"
    CUT_OFF = "request cut off"
    MALFORMED = "malformed request"
    TOO_LARGE = "request too large"
    SILENT = "client too slow to write"
    STUCK = "client too slow to read"
    STOPPED = "server stopped"
    BROKEN = "server error"

    @property
    def key(self) -> str:
        """For programs: one word."""
        return self.name.lower()

    @property
    def is_error(self) -> bool:
        """Whether somebody should look at it; a client may hang up as it likes."""
        return self not in (Outcome.ANSWERED, Outcome.HUNG_UP, Outcome.CUT_OFF)


@dataclass(slots=True)
class Record:
    """One request, from its first byte to its end."""

    id: str
    peer: Peer
    outcome: Outcome = Outcome.ANSWERED
    detail: str = ""
    """What exactly went wrong; may quote the client's bytes, escaped."""
    status: str = "-"
    """How the handler ended, "-" if none did by itself."""
    bytes_in: int = 0
    bytes_out: int = 0
    notes: list[str] = field(default_factory=list)
    """For people who debug."""
    warnings: list[str] = field(default_factory=list)
    """For the person in charge, also of a request that was answered."""
    waited: float = 0.0
    """Seconds from its first byte until its turn came."""
    began: float = field(default_factory=monotonic)
    quits: bool = False
    """Whether it asked the server to stop."""


class Log(ABC):
    """Where the server says things. Called from many threads; never raises, never waits long."""

    @abstractmethod
    def request(self, record: Record) -> None:
        """A request has ended."""

    @abstractmethod
    def problem(self, text: str) -> None:
        """Something the person in charge should know."""

    @abstractmethod
    def news(self, text: str) -> None:
        """Something that ordinarily happens, once."""

    @abstractmethod
    def detail(self, text: str) -> None:
        """Something for people who debug."""

    @abstractmethod
    def counters(self, figures: Mapping[str, int]) -> None:
        """What the server has done so far; somebody asked."""

    @abstractmethod
    def reopen(self) -> None:
        """Somebody may have taken away the file that is written to."""
