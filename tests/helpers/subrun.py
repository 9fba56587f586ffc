"""Run pytest as a program, on a sample of tests that are made to fail, to hang or to report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.command import Program, environment
from helpers.guardian import MARK
from helpers.paths import ROOT, TESTS
from helpers.procfs import children
from helpers.waiting import wait_until

SAMPLES = TESTS / "suite/samples"


def command(*arguments: object) -> list[str]:
    """Return the command line of a run that says what has failed, and how."""
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
    """Run to the end; return the status and all output."""
    with start(*arguments, **options) as program:
        output, _ = program.communicate()
    return program.returncode, output


def plain_environment(**more: str) -> dict[str, str]:
    """Return an environment without what pytest's own workers have in theirs."""
    kept = {name: value for name, value in environment().items() if name[:7] != "PYTEST_"}
    return {**kept, **more}


def mark_of(pid: int) -> str:
    """Wait for the guardian that a run starts; return the run's mark."""

    def found() -> str | None:
        for child in children(pid):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if len(words) > 3 and words[2].endswith(b"guardian.py"):
                return words[3].decode()
        return None

    return wait_until(found, "the guardian of the run")


def processes_of(mark: str) -> list[str]:
    """Return the command lines of all processes that carry the mark."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            pass
    return found


def folder_of(mark: str) -> Path:
    return Path(f"/tmp/sipc-test-{mark}")


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_nothing_is_left(mark: str, *pids: int) -> None:
    wait_until(
        lambda: (
            not (
                processes_of(mark) or os.path.exists(folder_of(mark)) or any(map(is_running, pids))
            )
        ),
        f"nothing of the run {mark} to be left",
    )
