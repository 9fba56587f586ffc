"""Run the tests once more as on another system: see tests/posix/.

SIPC_TEST_LIKE names the system. The programs that use the package, and this process, then lack what
it lacks.
"""

from __future__ import annotations

import os
import runpy
import selectors
import tempfile

from helpers.paths import TESTS

SYSTEM = os.environ.get("SIPC_TEST_LIKE", "")
HAS_EPOLL = SYSTEM not in {"macos", "freebsd"}

MASK = TESTS / "posix" / "mask"
LEFT_OUT = TESTS / "posix" / "left_out.txt"


def begin() -> None:
    """Change this process. Call it before the package is imported."""
    if SYSTEM:
        # These modules have found out before what the system has.
        tempfile._O_TMPFILE_WORKS = HAS_EPOLL
        if not HAS_EPOLL:
            selectors.DefaultSelector = selectors.PollSelector
        runpy.run_path(str(MASK / "sitecustomize.py"))["apply"](SYSTEM, is_test=True)


def set_environment() -> None:
    """Change the programs that this process starts."""
    if SYSTEM:
        os.environ["PYTHONPATH"] = str(MASK)


def left_out() -> list[str]:
    """Return parts of the names of the tests that do not apply to this system."""
    rows = [line.split(" | ") for line in LEFT_OUT.read_text().splitlines() if line[0] != "#"]
    return [name for systems, name, _ in rows if SYSTEM in systems.split(",")]


def deselect(config, items) -> None:
    """Leave out these tests, which would be skipped."""
    names = left_out() if SYSTEM else []
    out = [item for item in items if any(name in item.nodeid for name in names)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]
