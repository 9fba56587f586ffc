"""Fixtures for the tests of `sipc serve`."""

from __future__ import annotations

import pytest
from helpers.gate import Gate
from helpers.shared_server import SharedServers


@pytest.fixture(scope="module")
def _shared_servers(tmp_path_factory):
    with SharedServers(tmp_path_factory.mktemp("shared")) as servers:
        yield servers


@pytest.fixture
def shared_server(_shared_servers):
    """Return a server that answers with a command; it is started once for a module and options.

    Call it with the command and the server's options. A test must not end the server.
    """
    yield _shared_servers.get
    _shared_servers.end_test()


@pytest.fixture
def gate(folder):
    """Return a gate at which handlers wait."""
    gate = Gate(folder / "gate")
    yield gate
    gate.close()
