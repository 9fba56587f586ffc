"""The table of performance can be printed; with small counts its figures mean nothing."""

from __future__ import annotations

import pytest
from performance.measuring import SMALL
from performance.rows import ROWS
from performance.table import lines

pytestmark = pytest.mark.performance


def test_the_table_of_performance_is_printed():
    assert len({row.what for row in ROWS}) == len(ROWS)
    assert [len(line.split(" | ")) for line in lines([], SMALL)] == [4, 4]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_each_row_of_the_table_is_measured(row):
    *_, line = lines([row], SMALL)
    assert line.startswith(f"| {row.what} | {row.against} | ")
    if "not measured: " not in line:
        assert line.endswith((": met |", ": MISSED |"))
