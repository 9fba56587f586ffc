"""Run pytest as a program, on a sample of tests that are made to fail, to hang or to report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.command import Program, environment
from helpers.guardian import MARK
from helpers.paths import ROOT, TESTS
from helpers.procfs import arguments, children, is_running, processes
from helpers.waiting import wait_until

SAMPLES = TESTS / "suite/samples"


def command(*arguments: object) -> list[str]:
    """Return the command line of a pytest run with a detailed report of failures."""
    fixed = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-vv"]
    return [*fixed, *map(str, arguments)]


def start(*arguments: object, shell: str | None = None, **options) -> Program:
    """Start a run. In `shell`, a command of bash, "$@" is the run's command line."""
    words = command(*arguments)
    if shell is not None:
        words = ["bash", "-c", shell, "bash", *words]
    options.setdefault("env", plain_environment())
    return Program(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def run(*arguments: object, **options) -> tuple[int, str]:
    """Run pytest to its end; return the status and all output."""
    with start(*arguments, **options) as program:
        output, _ = program.communicate()
    return program.returncode, output


def plain_environment(**more: str) -> dict[str, str]:
    """Return the environment without pytest's own variables."""
    kept = {name: value for name, value in environment().items() if name[:7] != "PYTEST_"}
    return {**kept, **more}


def mark_of(pid: int) -> str:
    """Wait for the guardian that a run starts; return the run's mark."""

    def found() -> str | None:
        for child in children(pid):
            words = arguments(child)
            if len(words) > 3 and words[2].endswith("guardian.py"):
                return words[3]
        return None

    return wait_until(found, "the guardian of the run")


def processes_of(mark: str) -> dict[int, str]:
    """Find all processes that carry the mark."""
    return processes(mark, MARK)


def folder_of(mark: str) -> Path:
    return Path(f"/tmp/sipc-test-{mark}")


def wait_until_nothing_is_left(mark: str, *pids: int) -> None:
    wait_until(
        lambda: (
            not (
                processes_of(mark) or os.path.exists(folder_of(mark)) or any(map(is_running, pids))
            )
        ),
        f"nothing of the run {mark} to be left",
    )
