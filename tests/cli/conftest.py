"""Fixtures for the tests of the installed command."""

from __future__ import annotations

import pytest
from helpers.background import Background
from helpers.socket_activation import SocketManager
from helpers.spawning import Spawning


@pytest.fixture
def spawning(endpoint):
    """Return clients that start servers at the endpoint."""
    with Spawning(endpoint) as clients:
        yield clients


@pytest.fixture
def background(endpoint):
    """Return servers in the background at the endpoint."""
    with Background(endpoint) as servers:
        yield servers


@pytest.fixture
def manager(endpoint):
    """Return a socket that clients can connect to before there is a server."""
    with SocketManager(str(endpoint)) as manager:
        yield manager
