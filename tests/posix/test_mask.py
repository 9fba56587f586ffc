"""The mask with which tests/posix/run runs the tests as on other systems."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from helpers.command import environment
from helpers.masked import LEFT_OUT, MASK
from helpers.paths import ROOT, TESTS

SHOW = "import os, select, sys; "
SHOW += "print(sys.platform, hasattr(select, 'epoll'), os.path.exists('/proc/self/stat'))"
EXPECTED = {
    "macos": "darwin False False",
    "freebsd": "freebsd14 False False",
    "gvisor": "linux True True",
    "noproc": "linux True False",
}


def shown(system: str, program: str) -> str:
    env = environment(PYTHONPATH=str(MASK), SIPC_TEST_LIKE=system)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("system", EXPECTED)
def test_a_program_that_uses_the_package_lacks_what_the_system_lacks(system):
    assert shown(system, f"import simpleipc_cli; {SHOW}") == EXPECTED[system]


@pytest.mark.parametrize("system", EXPECTED)
def test_another_program_lacks_nothing(system):
    assert shown(system, SHOW) == "linux True True"


def test_each_line_of_the_tests_left_out_names_systems_a_test_and_a_reason():
    texts = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    for line in LEFT_OUT.read_text().splitlines():
        if not line.startswith("#"):
            systems, test, reason = line.split(" | ")
            assert set(systems.split(",")) <= set(EXPECTED)
            part = max(re.split(r"[][]", test), key=len).rstrip("-")
            assert part in texts or (ROOT / test).exists(), test
            assert reason
