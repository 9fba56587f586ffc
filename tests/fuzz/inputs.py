"""The inputs of a run, and how to repeat a single one.

The number of an input is its seed. A round has 16,004 inputs: 9,800 conversations with servers,
6,204 responses to clients. SIPC_SOAK=300 makes a hundred rounds, 1,600,400 inputs.
"""

from __future__ import annotations

import os

import pytest
from helpers.soak import SOAK

ROUNDS = max(1, SOAK // 3)


def rounds(size: int) -> list[object]:
    """Divide the numbers of all inputs into tests; SIPC_SEED stands for one number."""
    if chosen := os.environ.get("SIPC_SEED"):
        return [pytest.param(range(int(chosen), int(chosen) + 1), id=chosen)]
    return [
        pytest.param(range(at * size, (at + 1) * size), id=f"{at * size}-{(at + 1) * size - 1}")
        for at in range(ROUNDS)
    ]


def hint(number: int) -> str:
    """Return the command that repeats one input."""
    test = os.environ["PYTEST_CURRENT_TEST"].split(" ")[0].rpartition("[")[0]
    return f"to repeat this input alone: SIPC_SEED={number} pytest {test!r}"
