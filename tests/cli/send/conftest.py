"""Fixtures for the tests of `sipc send`."""

from __future__ import annotations

import pytest
from helpers.sending import ControlledDeadline, EchoServer

from simpleipc_cli.cli import output, stdio
from simpleipc_cli.cli.send import records, run
from simpleipc_cli.cli.stdio import open_in_time
from simpleipc_cli.deadline import Deadline


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server for a whole module; it listens on `server.path`."""
    path = tmp_path_factory.mktemp("server") / "sock"
    with EchoServer(path) as running:
        running.path = path
        yield running


@pytest.fixture
def max_time(monkeypatch):
    """The deadline of `-m 1h` in this process: it expires when `max_time.is_over()` holds.

    It does not limit the opening of files, which waits once, and not in small steps.
    """
    deadline = ControlledDeadline()
    for module in (stdio, output):
        monkeypatch.setattr(
            module, "open_in_time", lambda path, flags, _: open_in_time(path, flags, Deadline(None))
        )
    for module in (run, records):
        monkeypatch.setattr(
            module, "Deadline", lambda limit: deadline if limit == 3600 else Deadline(limit)
        )
    return deadline
