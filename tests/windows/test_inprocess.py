"""Tests for both systems, run under Wine."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.waiting import TIMEOUT
from helpers.wine import HERE, windows_path

BOTH = HERE.parent / "inprocess"


@pytest.mark.timeout(8 * TIMEOUT)  # many tests, and Wine is slow
@pytest.mark.parametrize("name", sorted(path.name for path in BOTH.glob("test_*.py")))
def test_tests_for_both_systems_pass_under_wine(wine, name):
    ran = wine.run(
        "run_pytest.py", "-q", "-m", "not soak", windows_path(BOTH / name), timeout=7 * TIMEOUT
    )
    assert ran.status == 0, ran.out + ran.err
    assert "skipped" not in ran.out


def test_all_python_files_in_the_folder_inprocess_are_tests():
    assert [
        path.name for path in Path(BOTH).glob("*.py") if not path.name.startswith("test_")
    ] == []
