"""A test with a server that waits for a file."""

from __future__ import annotations

from helpers import leftovers
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask


def test_waits(endpoint):
    with Server(endpoint, "cat") as server:
        (leftovers.folder() / "ready").touch()
        wait_until((leftovers.folder() / "go").exists, "the go-ahead")
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.stop() == 0
