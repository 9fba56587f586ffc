"""Measure a row of the table: both sides in turn, several times."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Measure = Callable[[], float]
"""Takes one sample of one side."""


class Missing(Exception):
    """A row lacks a program; the text names it, and how to get it."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    against: str
    unit: str
    goal: float
    """The minimum or maximum of sipc's figure divided by the other's."""
    at_most: bool
    sides: Callable[[Path, Scale], AbstractContextManager[tuple[Measure, Measure]]]
    """Sets up in a separate folder, and yields two measures: sipc's and the other's."""
    turns: int = 1
    """How many times as many samples as other rows; for measures that take little time."""


@dataclass(frozen=True)
class Scale:
    """The number of samples and requests."""

    rounds: int
    small: bool

    def __call__(self, full: int, small: int) -> int:
        """Return the full or the small number."""
        return small if self.small else full


FULL, SMALL = Scale(5, False), Scale(2, True)


def measured(row: Row, scale: Scale) -> str:
    """Return the row's figures as text."""
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
