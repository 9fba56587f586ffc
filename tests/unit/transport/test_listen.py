"""How a listener takes its path: the socket's mode, stale sockets and stale locks."""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import contextmanager

import pytest
from helpers.wire import is_listening

from simpleipc_cli.transport import listen


@contextmanager
def listening(path, mode: int = 0o600):
    listener = listen(str(path), mode=mode, backlog=5)
    try:
        yield
    finally:
        listener.stop_listening()
        listener.close()


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777], ids=oct)
@pytest.mark.parametrize("mode", [0o600, 0o666, 0o640], ids=oct)
def test_the_mode_is_exact_whatever_the_umask(endpoint, umask, mode):
    before = os.umask(umask)
    try:
        with listening(endpoint, mode):
            assert stat.S_IMODE(endpoint.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced(endpoint):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(endpoint))
    assert not is_listening(endpoint)
    with listening(endpoint):
        assert is_listening(endpoint)
    assert not endpoint.exists()


@pytest.mark.parametrize("age", [6.0, 4.5, -3600.0], ids=["old", "soon old", "from the future"])
def test_a_lock_left_by_a_dead_server_is_removed_once_it_is_old(endpoint, folder, age):
    """It is old after five seconds; one from the future five seconds after it was found."""
    lock = folder / "sock.lock"
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    with listening(endpoint):
        assert is_listening(endpoint)
        assert not lock.exists()
