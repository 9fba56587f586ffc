"""The client of the API on POSIX systems only: paths, users, descriptors."""

from __future__ import annotations

import math
import os
import resource
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress

import pytest
from helpers.command import Program, needs_root
from helpers.inprocess_server import run_concurrently
from helpers.procfs import descriptors, is_in_syscall, peak_memory
from helpers.scripted_server import (
    RespondingServer,
    ScriptedServer,
    endless_response,
    receive_request,
)
from helpers.sending import EchoServer
from helpers.sockets import busy_listener, stale_socket
from helpers.users import NOBODY, become
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets, read_message

from simpleipc_cli import (
    NotASocket,
    NotListening,
    PathNotFound,
    PermissionDenied,
    SipcError,
    State,
    TimedOut,
    connect,
    probe,
    send,
    system,
)

MEGABYTE = bytes(1 << 20)


def datagram(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    return listener


@pytest.mark.parametrize(
    ("make", "error", "state"),
    [
        (stale_socket, NotListening, State.NOT_LISTENING),
        (lambda path: None, PathNotFound, State.PATH_NOT_FOUND),
        (lambda path: path.write_text("x"), NotASocket, State.INVALID_PATH),
        (lambda path: path.mkdir(), NotASocket, State.INVALID_PATH),
        (datagram, NotASocket, State.INVALID_PATH),
        (lambda path: path.symlink_to("sock"), NotASocket, State.INVALID_PATH),
    ],
    ids=["stale", "missing", "file", "folder", "datagrams", "loop"],
)
def test_each_kind_of_path_without_a_server_has_its_error_and_state(endpoint, make, error, state):
    open_meanwhile = make(endpoint)
    for ask in (lambda: send(endpoint, b"x"), lambda: connect(endpoint)):
        with pytest.raises(error) as raised:
            ask()
        assert type(raised.value) is error
        assert raised.value.hint
    found = probe(endpoint)
    assert (found.state, found.pid, found.uid) == (state, None, None)
    assert type(found.error) is error
    if isinstance(open_meanwhile, socket.socket):
        open_meanwhile.close()


@needs_root
def test_a_connection_of_another_user_is_refused(endpoint, folder):
    folder.chmod(0o755)
    with EchoServer(endpoint):
        endpoint.chmod(0o600)
        with become(NOBODY):
            with pytest.raises(PermissionDenied):
                send(endpoint, b"x")
            assert probe(endpoint).state is State.PERMISSION_DENIED


def test_a_probe_reports_the_process_and_the_user_that_listen(endpoint):
    with RespondingServer(endpoint):
        found = probe(endpoint)
    assert (found.state, found.pid, found.uid) == (State.LISTENING, os.getpid(), os.geteuid())
    assert found.error is None


def test_the_default_endpoint_is_the_default_endpoint_of_the_command(endpoint, monkeypatch):
    monkeypatch.setenv("SIPC_PATH", str(endpoint))
    with RespondingServer(endpoint):
        assert send(None, b"x") == b"x"
        with connect(None) as connection:
            connection.finish()
            assert connection.read() == b""
        assert probe(None).state is State.LISTENING


def test_links_and_long_paths_lead_to_the_endpoint(folder):
    long = folder / ("n" * 200) / "sock"
    long.parent.mkdir()
    (folder / "link").symlink_to(long)
    with EchoServer(folder / "sock"):
        os.rename(folder / "sock", long)
        for path in (long, folder / "link"):
            assert send(path, b"x") == b"x"


# a hundred megabytes in each direction, by a program that stores none of them

PROGRAM = """
import sys, threading
from simpleipc_cli import connect
megabyte = bytes(1 << 20)
with connect(sys.argv[1]) as connection:
    for _ in range(100):
        connection.write(megabyte)
    connection.finish()
    received = sum(map(len, connection))
assert threading.active_count() == 1
print(received, flush=True)
sys.stdin.read()
"""


def test_memory_does_not_grow_with_messages_in_both_directions(endpoint):
    def write_before_reading(connection):
        for _ in range(100):
            connection.sendall(packets(MEGABYTE))
        assert len(receive_request(connection)) == 100 * len(MEGABYTE)
        connection.sendall(b"0000")

    with ScriptedServer(endpoint, write_before_reading):
        command = [sys.executable, "-c", PROGRAM, str(endpoint)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with Program(command, **pipes) as program:
            assert int(program.stdout.readline()) == 100 * len(MEGABYTE)
            assert peak_memory(program.pid) < 40 << 20


def test_a_response_that_cannot_be_stored_is_an_error(endpoint, folder, monkeypatch):
    """An incomplete response is never returned."""
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(system, "SPOOL_FOLDERS", (str(folder / "none"),))

    def write_before_reading(connection):
        connection.sendall(packets(MEGABYTE))
        receive_request(connection)

    with ScriptedServer(endpoint, write_before_reading), connect(endpoint) as connection:
        with pytest.raises(SipcError, match="cannot create a spool file") as raised:
            connection.write(MEGABYTE)
        assert raised.value.hint
        with pytest.raises(SipcError, match="cannot create a spool file"):
            connection.finish()
        received = []
        with pytest.raises(SipcError, match="cannot create a spool file"):
            received.extend(connection)
    assert 0 < len(b"".join(received)) < len(MEGABYTE)


@pytest.mark.parametrize("seconds", [math.inf, 1e30, None], ids=str)
def test_any_length_of_time_to_wait_for_a_busy_server_is_accepted(endpoint, seconds):
    with busy_listener(endpoint) as listener:
        asking = threading.Thread(
            target=send,
            args=(endpoint, b"x"),
            kwargs={
                "connect_timeout": seconds,
                "timeout": seconds,
                "wait": seconds,
            },
        )
        asking.start()
        wait_until(lambda: is_in_syscall(asking.native_id, "connect"), "it to wait")
        listener.settimeout(TIMEOUT)
        listener.accept()[0].close()
        with listener.accept()[0] as connection:
            read_message(connection)
            connection.sendall(b"0000")
        asking.join(TIMEOUT)
        assert not asking.is_alive()


# descriptors and threads that are left


def tasks() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def test_an_exchange_leaves_no_descriptor_and_no_thread_after_any_end(folder):
    """A large request needs a thread."""
    large = MEGABYTE * 3
    answers = [message(large), b"", b"0008po", b"nonsense"]
    over = threading.Event()

    def ask(path, wire):
        with suppress(SipcError):
            send(path, large, timeout=None if wire else 0.05)
        with suppress(SipcError), connect(path) as connection:
            connection.write(large)
            connection.finish()
            next(iter(connection))

    # Those of other tests may still be closed and end.
    before, threads = Counter(descriptors(os.getpid())), tasks()
    with ScriptedServer(folder / "silent", lambda connection: over.wait(TIMEOUT)):
        for _ in range(3):
            with pytest.raises(TimedOut):
                send(folder / "silent", large, timeout=0.05)
            with connect(folder / "silent", timeout=0.05) as connection:
                with pytest.raises(TimedOut):
                    connection.write(large)
        over.set()
    for number, wire in enumerate(answers):
        path = folder / str(number)
        with RespondingServer(path, lambda _, wire=wire: wire):
            run_concurrently(5, lambda path=path, wire=wire: ask(path, wire))
    with ScriptedServer(folder / "endless", endless_response(packets(b"x" * 1000))):
        with connect(folder / "endless") as connection:
            connection.finish()
            next(iter(connection))
    for path in (folder / "missing", folder):
        with suppress(SipcError):
            send(path, b"x")
    wait_until(lambda: Counter(descriptors(os.getpid())) <= before, "no descriptor left")
    wait_until(lambda: tasks() <= threads, "no thread left")


def test_the_error_names_the_lack_of_a_free_descriptor(endpoint):
    with RespondingServer(endpoint):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            found = probe(endpoint)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found.state is State.OTHER_ERROR
    assert "ulimit" in found.error.hint


def test_a_small_request_needs_no_thread(endpoint):
    def answer_without_thread(connection):
        read_message(connection)
        asking.update(tasks())
        connection.sendall(b"0000")

    asking = set()
    with ScriptedServer(endpoint, answer_without_thread, in_turn=True):
        before = tasks()
        send(endpoint, b"x")
    assert asking <= before


def test_bytes_are_spooled_in_the_first_folder(endpoint, folder, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(folder))
    used = []
    real = system.temporary_file
    monkeypatch.setattr(
        system, "temporary_file", lambda folder: used.append(folder) or real(folder)
    )

    def write_before_reading(connection):
        connection.sendall(packets(MEGABYTE))
        receive_request(connection)
        connection.sendall(b"0000")

    with ScriptedServer(endpoint, write_before_reading), connect(endpoint) as connection:
        connection.write(MEGABYTE)
        connection.finish()
        assert connection.read() == MEGABYTE
    assert used == [str(folder)]
