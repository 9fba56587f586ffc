"""Properties are tried with few fixed examples in the ordinary run, and with many under soak."""

from __future__ import annotations

import pytest
from helpers import subrun


@pytest.mark.parametrize(("expression", "count"), [("not soak", 30), ("soak", 500)])
def test_how_many(expression, count):
    sample = subrun.SAMPLES / "examples.py"
    status, output = subrun.run(sample, "-m", expression, "--hypothesis-show-statistics")
    assert status == 0, output
    assert f"- {count} passing" in output
