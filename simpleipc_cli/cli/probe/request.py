"""What `sipc probe` asks whoever listens, and what became of it: connected is not yet ready."""

from __future__ import annotations

from time import monotonic

from simpleipc_cli.cli.expect import Expectation
from simpleipc_cli.client import exchange
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import (
    ExpectationFailed,
    IncompleteMessage,
    ProtocolError,
    SipcError,
    TimedOut,
)
from simpleipc_cli.transport import Stream

_WORDS = (
    (ExpectationFailed, "not answered as expected"),
    (TimedOut, "not answered in time"),
    (IncompleteMessage, "answer cut off"),
    (ProtocolError, "answer malformed"),
)


class ProbeRequest:
    """One request, and what its answer has to be."""

    def __init__(self, request: bytes, expected: Expectation | None) -> None:
        """Without `expected` any answer will do that is complete."""
        self._request = request
        self._expected = expected
        self.asked = False
        self.error: SipcError | None = None
        """Why the answer is not good enough; None if it is, or if nobody was asked."""
        self.bytes = 0
        self.seconds: float | None = None
        """From the connection to the end of the answer, or to where it failed."""

    def ask(self, stream: Stream, deadline: Deadline) -> None:
        """Ask over a connection, which is closed. Keeps errors to itself."""
        self.asked = True
        began = monotonic()
        try:
            exchange(stream, self._request, None, self._take, deadline)
            if self._expected is not None:
                self._expected.check(deadline)
        except SipcError as error:
            self.error = error
        finally:
            self.seconds = monotonic() - began
            if self._expected is not None:
                self._expected.close()

    def _take(self, payload: memoryview) -> None:
        self.bytes += len(payload)
        if self._expected is not None:
            self._expected.feed(payload)

    @property
    def outcome(self) -> str | None:
        """In words; None if nobody was asked."""
        if not self.asked:
            return None
        if self.error is None:
            return "answered" if self._expected is None else "answered as expected"
        return next((words for kind, words in _WORDS if isinstance(self.error, kind)), "no answer")

    def details(self) -> dict[str, object]:
        """For --json; null is what did not happen."""
        return {
            "answer": self.outcome,
            "answer_bytes": self.bytes if self.asked else None,
            "answer_seconds": None if self.seconds is None else round(self.seconds, 6),
        }
