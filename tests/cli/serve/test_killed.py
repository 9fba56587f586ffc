"""`sipc serve` killed by SIGKILL: no handler takes the end of its input for a request's end."""

from __future__ import annotations

import os
import signal

import pytest
from helpers.procfs import (
    all_processes,
    arguments,
    children,
    descriptors,
    is_in_syscall,
    processes,
)
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import connect, decode, message, packets, receive_all

RECORD = "cat >>input; echo ended >>ran"


def kill(server: Server) -> None:
    server.signal(signal.SIGKILL)
    server.wait()
    wait_until(lambda: not processes(server.mark), "its handlers and its guardian to end")


@pytest.mark.parametrize("count", [1, 4])
def test_a_prestarted_handler_that_has_no_request_is_killed(endpoint, folder, count):
    server = Server(endpoint, RECORD, "--prestart", count, cwd=folder)
    wait_until(lambda: len(children(server.pid)) == count, "the handlers to start")
    kill(server)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("options", [(), ("--prestart", "2")], ids=["started", "prestarted"])
@pytest.mark.parametrize("size", [10, 200_000])
def test_a_handler_that_has_half_a_request_is_killed(endpoint, folder, options, size):
    server = Server(endpoint, RECORD, *options, cwd=folder)
    with connect(endpoint) as client:
        client.sendall(packets(b"x" * size))
        wait_until(lambda: has_size(folder / "input", size), "the handler to get it")
        kill(server)
        assert receive_all(client) == b""
    assert not (folder / "ran").exists()


def has_size(file, size: int) -> bool:
    return file.exists() and file.stat().st_size == size


@pytest.mark.parametrize("options", [(), ("--prestart", "1")], ids=["started", "prestarted"])
@pytest.mark.parametrize("size", [0, 10, 5000, 100_000])
def test_a_handler_that_has_the_whole_request_continues(endpoint, folder, options, size):
    command = "cat >>input; echo >whole; while [ ! -e go ]; do sleep .01; done; echo ended >ran"
    server = Server(endpoint, command, *options, cwd=folder)
    with connect(endpoint) as client:
        client.sendall(message(b"x" * size))
        wait_until((folder / "whole").exists, "the handler to read all")
        server.process.kill()
        assert decode(receive_all(client)) == (b"", False)
    (folder / "go").touch()
    wait_until((folder / "ran").exists, "the handler to end by itself")
    server.wait()
    wait_until(lambda: not processes(server.mark), "everything to end")
    assert has_size(folder / "input", size)


def guardians(server: Server) -> list[int]:
    """The guardians that hold a pipe of the server, or have held one."""
    return [
        pid
        for pid in all_processes()
        if any("/process/posix/guardian.py" in word for word in arguments(pid))
        and shared_pipes(pid, server.pid)
    ]


def shared_pipes(one: int, other: int) -> list[str]:
    return [name for name in {*descriptors(one)} & {*descriptors(other)} if "pipe:" in name]


def test_a_server_that_ends_in_order_leaves_no_guardian(endpoint):
    with Server(endpoint, "cat") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"begun"))
            (guardian,) = wait_until(lambda: guardians(server), "a guardian")
            client.sendall(b"0000")
            assert decode(receive_all(client)) == (b"begun", True)
        assert server.stop() == 0
        assert not arguments(guardian), "it has given up its memory"


def test_a_killed_guardian_harms_no_request(endpoint):
    with Server(endpoint, "cat") as server:
        for text in (b"first", b"without one", b"with another"):
            with connect(endpoint) as client:
                client.sendall(packets(text))
                wait_until(lambda: children(server.pid), "the handler to start")
                for guardian in guardians(server):
                    os.kill(guardian, signal.SIGKILL)
                client.sendall(b"0000")
                assert decode(receive_all(client)) == (text, True)


def test_signals_to_all_processes_of_a_service_do_not_end_the_guardian(endpoint, folder):
    server = Server(endpoint, RECORD, "--prestart", "1", cwd=folder)
    (guardian,) = wait_until(lambda: guardians(server), "a guardian")
    wait_until(lambda: is_in_syscall(guardian, "recvmsg"), "it to be ready")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guardian, number)
    kill(server)
    assert not (folder / "ran").exists()
