"""How a listener takes its path: the socket's mode, stale sockets and stale locks."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from contextlib import contextmanager

import pytest
from helpers.command import needs_root
from helpers.users import NOBODY, become
from helpers.wire import connect, is_listening

from simpleipc_cli.errors import EndpointError, PermissionDenied
from simpleipc_cli.transport import listen
from simpleipc_cli.transport.unix import listener as listener_module
from simpleipc_cli.transport.unix.stream import is_bound


@contextmanager
def listening(path, mode: int = 0o600):
    listener = listen(str(path), mode=mode, backlog=5)
    try:
        yield listener
    finally:
        listener.stop_listening()
        listener.close()


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777], ids=oct)
@pytest.mark.parametrize("mode", [0o600, 0o666, 0o640], ids=oct)
def test_the_socket_has_exactly_the_given_mode_with_any_umask(endpoint, umask, mode):
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


@pytest.mark.parametrize("is_stale", [True, False])
def test_a_server_that_cannot_remove_its_lock_leaves_no_socket(endpoint, monkeypatch, is_stale):
    if is_stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(endpoint))
    unlink = os.unlink

    def unlink_or_fail(name, **options):
        if name == "sock.lock":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", unlink_or_fail)
    with pytest.raises(EndpointError, match="input/output error"):
        listen(str(endpoint), mode=0o600, backlog=5)
    assert os.listdir(endpoint.parent) == ["sock.lock"]


def test_an_error_during_the_cleanup_does_not_replace_the_first_error(endpoint, monkeypatch):
    def fail(*_arguments, **_options):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def refuse(*_arguments, **_options):
        monkeypatch.setattr(os, "unlink", fail)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(EndpointError, match="input/output error"):
        listen(str(endpoint), mode=0o600, backlog=5)


@pytest.mark.parametrize("age", [6.0, 4.5, -3600.0], ids=["old", "soon old", "from the future"])
def test_the_lock_left_by_a_dead_server_is_removed_once_it_is_old(endpoint, folder, age):
    """A lock is old after five seconds; one from the future five seconds after it was found."""
    lock = folder / "sock.lock"
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    with listening(endpoint):
        assert is_listening(endpoint)
        assert not lock.exists()


@needs_root
def test_a_lock_without_permission_is_removed_once_it_is_old(endpoint, folder):
    """A umask of 0777 creates such a lock."""
    folder.chmod(0o1777)
    lock = folder / "sock.lock"
    lock.touch(mode=0)
    os.chown(lock, NOBODY, -1)
    os.utime(lock, (time.time() - 6.0,) * 2)
    with become(NOBODY), listening(endpoint):
        assert is_listening(endpoint)
        assert not lock.exists()


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o600], ids=oct)
def test_the_error_names_an_old_lock_of_another_user_in_a_sticky_folder(endpoint, folder, mode):
    folder.chmod(0o1777)
    lock = folder / "sock.lock"
    lock.touch(mode=mode)
    os.utime(lock, (time.time() - 6.0,) * 2)
    with become(NOBODY), pytest.raises(PermissionDenied, match=f"the old lock {lock} cannot be"):
        listen(str(endpoint), mode=0o600, backlog=5)
    assert os.listdir(folder) == ["sock.lock"]


@needs_root
def test_the_listener_still_owns_a_path_that_is_temporarily_invisible(endpoint, folder):
    with listening(endpoint) as listener:
        folder.chmod(0)
        with become(NOBODY):
            assert listener.owns_path()
        folder.chmod(0o700)
        assert listener.owns_path()


@pytest.mark.parametrize("how", ["removed", "replaced", "folder replaced"])
def test_the_listener_does_not_own_a_path_that_another_has_taken(folder, how):
    inner = folder / "inner"
    inner.mkdir()
    endpoint = inner / "sock"
    with listening(endpoint) as listener:
        endpoint.unlink()
        if how == "replaced":
            endpoint.touch()
        elif how == "folder replaced":
            inner.rmdir()
            inner.touch()
        assert not listener.owns_path()
    assert endpoint.exists() == (how == "replaced")


@pytest.mark.parametrize("length", [60, 93, 94, 107])
def test_the_peer_name_of_a_connection_is_the_path_of_the_server_if_it_fits(folder, length):
    endpoint = folder / ("n" * (length - len(str(folder)) - 1))
    with listening(endpoint), connect(endpoint) as client:
        shown = client.getpeername()
        assert shown.startswith(str(endpoint) if length <= 93 else f"{folder}/.sipc-")


def test_the_check_whether_a_socket_is_bound_takes_no_place_in_its_backlog(endpoint):
    with listening(endpoint) as listener:
        clients = []
        while is_bound(str(endpoint)):
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.setblocking(False)
            try:
                client.connect(str(endpoint))
            except BlockingIOError:
                break
        assert is_bound(str(endpoint)), "also while the queue is full"
        for client in clients[:-1]:
            client.send(b"x")
            accepted = listener.accept()
            assert accepted.peek_nowait()
            accepted.close()
        with pytest.raises(BlockingIOError):
            listener.accept()
        for client in clients:
            client.close()
    endpoint.touch()
    assert not is_bound(str(endpoint))


def test_a_system_on_which_only_a_stream_socket_finds_the_listener_is_supported(
    endpoint, monkeypatch
):
    """Such as gVisor, where connect(2) of a datagram socket is refused."""
    monkeypatch.setattr(listener_module, "is_bound", lambda _path: False)
    with listening(endpoint):
        assert is_listening(endpoint)
