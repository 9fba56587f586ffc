"""How a row of the table is measured: both sides in turn, several times."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Measure = Callable[[], float]
"""One sample of one side."""


class Missing(Exception):
    """What a row needs is not there; the text says what, and how to get it."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    against: str
    unit: str
    goal: float
    """What ours divided by theirs may be, at least or at most."""
    at_most: bool
    sides: Callable[[Path, Scale], AbstractContextManager[tuple[Measure, Measure]]]
    """Sets up in a folder of its own, and gives two measures: ours and theirs."""
    turns: int = 1
    """How many times as often as other rows; for what takes no time."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    small: bool

    def __call__(self, full: int, small: int) -> int:
        """A count."""
        return small if self.small else full


FULL, SMALL = Scale(5, False), Scale(2, True)


def measured(row: Row, scale: Scale) -> str:
    """The row's figures, in words."""
    with tempfile.TemporaryDirectory(prefix="sipc-table-", dir="/tmp") as folder:
        try:
            with row.sides(Path(folder), scale) as sides:
                samples = [[side() for side in sides] for _ in range(scale.rounds * row.turns)]
        except Missing as missing:
            return f"not measured: {missing}"
    ours, theirs = zip(*samples, strict=True)
    ratio = median(ours) / median(theirs)
    met = ratio <= row.goal if row.at_most else ratio >= row.goal
    limit = f"at {'most' if row.at_most else 'least'} {row.goal:g}"
    return (
        f"{_told(ours)} against {_told(theirs)} {row.unit} | {ratio:.2f}, {limit}:"
        f" {'met' if met else 'MISSED'}"
    )


def _told(samples: tuple[float, ...]) -> str:
    return f"{median(samples):.4g} ({min(samples):.4g} to {max(samples):.4g})"
