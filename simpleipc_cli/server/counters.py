"""What a server has done since it started, in numbers."""

from __future__ import annotations

from collections import Counter

from simpleipc_cli.server.log import Outcome, Record


class Counters:
    """Numbers of connections, requests and bytes. Not safe for threads by itself."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.accepted = 0
        """Connections."""
        self.looked = 0
        """Connections that their client closed without a byte."""
        self.refused = 0
        """Connections of users who are not allowed."""
        self.closed_silent = 0
        """Connections that we closed without having heard a byte."""
        self.requests = 0
        """Connections that have sent a byte."""
        self.bytes_in = 0
        """Payload of requests that have ended, however they ended."""
        self.bytes_out = 0
        """Payload of their responses."""
        self.outcomes: Counter[Outcome] = Counter()
        """Requests that have ended."""

    def count(self, record: Record) -> None:
        """A request has ended."""
        self.outcomes[record.outcome] += 1
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out

    def figures(self, *, in_flight: int, waiting: int, silent: int) -> dict[str, int]:
        """Everything by name; what went wrong by its kind, as far as it did.

        `accepted` is the sum of `requests`, `looked`, `refused`, `closed_silent` and
        `silent`; `requests` of `answered`, the failures, `in_flight` and `waiting`.
        """
        failed = {
            outcome.key: number
            for outcome, number in self.outcomes.items()
            if outcome is not Outcome.ANSWERED and number
        }
        return {
            "accepted": self.accepted,
            "looked": self.looked,
            "refused": self.refused,
            "closed_silent": self.closed_silent,
            "silent": silent,
            "requests": self.requests,
            "answered": self.outcomes[Outcome.ANSWERED],
            "failed": sum(failed.values()),
            **{f"failed_{key}": failed[key] for key in sorted(failed)},
            "in_flight": in_flight,
            "waiting": waiting,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
