"""Whatever system call fails: no traceback, no hang, no half message, nothing left behind.

A sample that is always the same. With `SIPC_SOAK=N`, N above 3, also N cases of each scenario,
and all of them where it has fewer; `faults.hunt` runs them by hand.
"""

from __future__ import annotations

import os
import random

import pytest
from faults.hunt import SCENARIOS, hunt
from helpers.injection import Fault, needs_strace

SOAK = int(os.environ.get("SIPC_SOAK", "3"))

pytestmark = [pytest.mark.soak, *needs_strace]

SAMPLE = """
exec accept4:EMFILE:1:main
"""


def fault_of(text: str) -> Fault:
    call, error, when, where = text.split(":")
    return Fault(call, error, int(when), where)


@pytest.mark.parametrize("row", SAMPLE.strip().splitlines())
def test_a_failing_call_breaks_no_rule(row):
    scenario, text = row.split()
    hunting = hunt(scenario)
    case = hunting.run(fault_of(text))
    assert not case.broken + hunting.end(), case
    assert case.injected


if SOAK > 3:

    @pytest.mark.timeout(7200)
    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_no_failing_call_breaks_a_rule(scenario):
        hunting = hunt(scenario)
        every = hunting.faults(5)
        chosen = random.Random(0).sample(every, min(SOAK, len(every)))
        cases = [hunting.run(fault) for fault in chosen]
        broken = [str(case) for case in cases if case.broken]
        assert not broken + hunting.end(), "\n".join(broken)
