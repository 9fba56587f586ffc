"""Properties are tried with few fixed examples in the ordinary run, and with many under soak."""

from __future__ import annotations

import pytest
from helpers import subrun


@pytest.mark.parametrize(("expression", "count"), [("not soak", 30), ("soak", 500)])
def test_the_number_of_examples_depends_on_the_marker(expression, count):
    sample = subrun.SAMPLES / "examples.py"
    status, output = subrun.run(sample, "-m", expression, "--hypothesis-show-statistics")
    assert status == 0, output
    assert f"- {count} passing" in output
