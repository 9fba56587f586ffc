"""Fixtures for the tests of `sipc serve`."""

from __future__ import annotations

import pytest
from helpers.gate import Gate
from helpers.patience import Clock
from helpers.shared_server import (
    SharedServer,
    SharedServers,
    SharedWorkerScripts,
    SharedWorkerServer,
)


@pytest.fixture(scope="module")
def _module_servers(tmp_path_factory):
    with SharedServers(tmp_path_factory.mktemp("shared")) as servers:
        yield servers


@pytest.fixture
def _servers(_module_servers):
    yield _module_servers
    _module_servers.end_test()


@pytest.fixture
def shared_server(_servers):
    """Return a server that answers with a command; it is started once for a module and options.

    Call it with the command and the server's options. A test must not end the server.
    """

    def server(command: str, *options) -> SharedServer:
        found = _servers.get(SharedServer, *options)
        found.set_handler(command)
        return found

    return server


@pytest.fixture
def shared_workers(_servers):
    """Return a server with one worker; it is started once for a module, worker and options."""

    def server(worker: str, *options) -> SharedWorkerServer:
        return _servers.get(SharedWorkerServer, worker, *options)

    return server


@pytest.fixture
def worker_script(_servers):
    """Return a server whose worker runs a command; it is started once for a module and options."""

    def server(command: str, *options) -> SharedWorkerScripts:
        found = _servers.get(SharedWorkerScripts, *options)
        found.set_handler(command)
        return found

    return server


@pytest.fixture
def clock(folder):
    """Return the clock of a server."""
    return Clock(folder / "clock")


@pytest.fixture
def gate(folder):
    """Return a gate at which handlers wait."""
    with Gate(folder / "gate") as gate:
        yield gate
