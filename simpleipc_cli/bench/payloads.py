"""The payloads of a load that sends a different one with each request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from random import Random

IN_ORDER, SHUFFLED = "in order", "shuffled"

_SEED = 10  # fixed, so that runs can be compared; it changes the order of two payloads, too


@dataclass(frozen=True)
class Payloads:
    """Payloads that requests send in turn; after the last one, the first one follows again."""

    source: str
    """The name of their file, for reports."""
    data: tuple[bytes, ...]
    """At least one."""
    expected: tuple[bytes, ...] | None = None
    """For each payload the expected response, without a newline at its end."""
    order: str = IN_ORDER
    first: int = 0
    """Number of the first payload in this process."""
    step: int = 1
    """One of `step` payloads is sent by this process."""

    def shuffled(self) -> Payloads:
        """Return the payloads in a random order, which depends only on their number.

        Random.shuffle() may differ between versions of Python, random() does not.
        """
        chance = Random(_SEED)  # noqa: S311 - no secret
        keys = [chance.random() for _ in self.data]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        expected = self.expected
        return replace(
            self,
            data=tuple(self.data[at] for at in order),
            expected=None if expected is None else tuple(expected[at] for at in order),
            order=SHUFFLED,
        )

    def share(self, number: int, processes: int) -> Payloads:
        """Return the payloads of one of several processes: together they send all in turn."""
        return replace(self, first=number, step=processes)

    def in_turn(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield payloads and expected responses without end."""
        for number in count(self.first, self.step):
            at = number % len(self.data)
            yield self.data[at], None if self.expected is None else self.expected[at]

    @property
    def size(self) -> int:
        """Bytes of all payloads together."""
        return sum(map(len, self.data))


def split_records(data: bytes, separator: bytes) -> tuple[bytes, ...]:
    """Split data into records as batch.RecordSplitter does: a separator ends each, or the end."""
    records = data.split(separator)
    if not records[-1]:
        records.pop()
    return tuple(records)
