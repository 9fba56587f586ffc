"""The git that the tests in this folder use, and repositories made with it."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from helpers.git import WANTED, Repository, is_new_enough

NEW_ENOUGH = ".".join(map(str, WANTED))


def unpacked_git() -> Path:
    """The folder into which `get-git` installs git."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "sipc-tests/git/git")


@pytest.fixture(scope="session")
def git_program() -> str:
    """A git with a daemon: $SIPC_GIT, else the one on PATH, else that of `get-git`."""
    if asked_for := os.environ.get("SIPC_GIT"):
        assert is_new_enough(asked_for), (
            f"SIPC_GIT={asked_for} is no git {NEW_ENOUGH} with a daemon"
        )
        return asked_for
    for program in (shutil.which("git"), str(unpacked_git())):
        if program and is_new_enough(program):
            return program
    return pytest.skip(
        f"no git {NEW_ENOUGH} or later with a daemon: run tests/interop/get-git, or set SIPC_GIT"
    )


@pytest.fixture
def seed() -> int:
    """The seed of all random choices; SIPC_SEED repeats it."""
    chosen = int(os.environ.get("SIPC_SEED") or random.randrange(1 << 32))
    print(f"SIPC_SEED={chosen}")  # noqa: T201 - shown when the test fails
    return chosen


@pytest.fixture
def repository(git_program, folder):
    """A small repository; a daemon that still runs is an error, and is killed."""
    made = Repository(git_program, folder)
    try:
        yield made
        made.wait_until_alone()
    finally:
        made.kill_all()
