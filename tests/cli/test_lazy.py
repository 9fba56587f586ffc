"""What most calls do without is not loaded: start-up time is a feature."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import Server, environment

LOADED_LATER = (
    *("watch", "spool", "rich", "mmap"),
    *(f"cli.{name}" for name in ("tracing", "sight", "progress", "expect", "question")),
)


def loaded_by(*arguments) -> set[str]:
    command = [sys.executable, "-X", "importtime", "-m", "simpleipc_cli", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment())
    assert done.returncode == 0
    names = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    return {name.removeprefix("simpleipc_cli.") for name in names}


@pytest.mark.parametrize("verb", ["send", "probe"])
def test_who_asks_for_none_of_this_loads_none_of_it(endpoint, verb):
    with Server(endpoint, "cat"):
        plain = loaded_by(verb, endpoint, *(["-d", "x"] if verb == "send" else []))
    assert {"client", "cli.extras"} <= plain
    assert [name for name in plain if name.startswith(LOADED_LATER)] == []


def test_who_asks_for_some_of_it_loads_that_alone(endpoint):
    with Server(endpoint, "cat"):
        loaded = loaded_by("send", endpoint, "-d", "x", "--trace-file", "/dev/null")
    assert {"watch.trace", "cli.tracing"} <= loaded
    assert not {"rich", "mmap", "cli.expect"} & loaded
