"""Connecting and listening where sockets behave as those of XNU (macOS) or FreeBSD."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
import threading
from contextlib import closing, contextmanager

import pytest
from helpers import streams, xnu
from helpers.soak import SOAK
from helpers.sockets import stale_socket
from helpers.streams import accepted, connected, connected_until_busy, listening, read_some
from helpers.waiting import TIMEOUT

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import AddressInUse, NotASocket, NotListening, ServerBusy
from simpleipc_cli.transport import OutOfDescriptors, listen
from simpleipc_cli.transport.unix.portable_stream import PortableStream, connect, connect_nowait


@pytest.fixture(autouse=True)
def on_xnu(monkeypatch):
    xnu.install(monkeypatch, streams)
    monkeypatch.setattr(xnu.XnuSocket, "dropped", 0)


@pytest.fixture
def path(endpoint):
    return str(endpoint)


def assert_works(path) -> None:
    with connected(path) as (client, server):
        client.write([b"hello"])
        assert read_some(server) == b"hello"
        server.write([b"world"])
        assert read_some(client) == b"world"


def test_both_ends_of_a_connection_are_portable_streams(path):
    with connected(path) as (client, server):
        assert type(client) is type(server) is PortableStream
        assert not os.get_blocking(server.fileno())
        for stream in (client, server):
            found = stream.peer()
            assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())


def test_a_refusing_server_whose_queue_is_full_is_busy_and_keeps_its_path(path):
    with listening(path, backlog=1) as listener, connected_until_busy(path) as clients:
        inode = os.stat(path).st_ino
        with pytest.raises(ServerBusy):
            connect(path, Deadline(0.01))
        with pytest.raises(AddressInUse):
            listen(path, mode=0o600, backlog=1)
        assert os.stat(path).st_ino == inode
        for _ in clients:
            accepted(listener).close()


@contextmanager
def bound(path):
    """A socket that a process has open, but refuses clients."""
    with socket.socket(socket.AF_UNIX) as refusing:
        refusing.settimeout(TIMEOUT)
        refusing.bind(path)
        yield refusing


def test_a_socket_that_refuses_is_busy_while_a_process_has_it_open_and_stale_afterwards(path):
    with bound(path):
        with pytest.raises(ServerBusy):
            connect_nowait(path)
        with pytest.raises(AddressInUse):
            listen(path, mode=0o600, backlog=1)
    with pytest.raises(NotListening):
        connect(path, Deadline(TIMEOUT))
    assert_works(path)


def test_a_client_waits_for_a_server_that_refuses_until_that_listens(path):
    found = []
    with bound(path) as refusing:
        thread = threading.Thread(target=lambda: found.append(connect(path, Deadline(TIMEOUT))))
        thread.start()
        refusing.listen()
        refusing.accept()[0].close()
        thread.join(TIMEOUT)
    found[0].close()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_path_that_is_no_socket_is_invalid(path, kind):
    if kind == "file":
        open(path, "w").close()
    else:
        os.mkdir(path)
    with pytest.raises(NotASocket, match="a file" if kind == "file" else "a directory"):
        connect(path, Deadline(TIMEOUT))
    with pytest.raises(NotASocket):
        listen(path, mode=0o600, backlog=1)


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777], ids=oct)
@pytest.mark.parametrize("mode", [0o600, 0o666, 0o640], ids=oct)
def test_the_socket_has_exactly_the_given_mode(path, umask, mode):
    before = os.umask(umask)
    try:
        listener = listen(path, mode=mode, backlog=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    listener.stop_listening()
    listener.close()


def test_no_client_can_connect_before_the_socket_has_its_mode(path, monkeypatch):
    calls = []

    def note(kind, name):
        before = getattr(kind, name)

        def call(*arguments, **options):
            calls.append(name)
            return before(*arguments, **options)

        monkeypatch.setattr(kind, name, call)

    for name in ("bind", "listen"):
        note(xnu.XnuSocket, name)
    for name in ("chmod", "chown", "rename"):
        note(os, name)
    listener = listen(path, mode=0o660, group=os.getegid(), backlog=1)
    assert calls == ["bind", "chown", "chmod", "listen", "rename"]
    listener.stop_listening()
    listener.close()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_after_the_stop_all_earlier_clients_are_accepted(path, count):
    with listening(path) as listener:
        clients = [connect(path, Deadline(TIMEOUT)) for _ in range(count)]
        assert listener.stop_listening() is None
        assert not os.path.exists(path)
        for _ in clients:
            listener.accept().close()
        with pytest.raises(BlockingIOError):
            listener.accept()
        for client in clients:
            client.close()


def test_a_client_that_has_gone_is_no_error_of_the_server(path, monkeypatch):
    """On FreeBSD, the first accept(2) after shutdown(2) fails in this way, too."""
    accept = xnu.XnuSocket._accept
    left = [None, None]

    def abort_twice(listening):
        if left:
            left.pop()
            raise ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")
        return accept(listening)

    with listening(path) as listener, closing(connect(path, Deadline(TIMEOUT))):
        monkeypatch.setattr(xnu.XnuSocket, "_accept", abort_twice)
        listener.accept().close()
        left += [None] * 2000
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_without_a_free_descriptor_no_connection_is_accepted_and_dropped(path, monkeypatch):
    def fail(_descriptor):
        raise xnu.failure(errno.EMFILE)

    with listening(path) as listener, closing(connect(path, Deadline(TIMEOUT))) as client:
        client.write([b"hello"])
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", fail)
            with pytest.raises(OutOfDescriptors):
                listener.accept()
        assert xnu.XnuSocket.dropped == 0
        with closing(listener.accept()) as server:
            assert read_some(server) == b"hello"


@pytest.mark.parametrize("temporary", ["t", "t" * 90], ids=["short TMPDIR", "long TMPDIR"])
@pytest.mark.parametrize("length", [103, 104, 107, 108, 300])
def test_a_path_of_any_length_works_and_leaves_nothing_behind(
    folder, monkeypatch, length, temporary
):
    (folder / temporary).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / temporary))
    created = []
    mkdtemp = tempfile.mkdtemp

    def noted_mkdtemp(**options):
        created.append(mkdtemp(**options))
        return created[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", noted_mkdtemp)
    parent = folder / "d"
    while length - len(str(parent)) > 200:
        parent /= "d" * 90
    parent.mkdir(parents=True)
    path = str(parent / ("n" * (length - len(str(parent)) - 1)))
    assert len(path) == length
    if length <= 107:
        stale_socket(path)
    with listening(path):
        with pytest.raises(AddressInUse):
            listen(path, mode=0o600, backlog=1)
        connect(path, Deadline(TIMEOUT)).close()
        assert os.listdir(parent) == [os.path.basename(path)]
    assert os.listdir(parent) == []
    assert os.listdir(folder / temporary) == []
    assert bool(created) == (length > xnu.MAX_ADDRESS)
    assert [name for name in created if os.path.lexists(name)] == []


@pytest.mark.soak
def test_of_servers_that_start_at_the_same_time_one_takes_a_busy_or_stale_path(path):
    for number in range(10 * SOAK):
        if number % 2:
            stale_socket(path)
        start = threading.Barrier(4)
        won, lost = [], []

        def try_it(start=start, won=won, lost=lost):
            start.wait()
            try:
                won.append(listen(path, mode=0o600, backlog=1))
            except AddressInUse as error:
                lost.append(error)

        threads = [threading.Thread(target=try_it) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert (len(won), len(lost)) == (1, 3)
        won[0].stop_listening()
        won[0].close()
