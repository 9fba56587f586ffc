"""`sipc serve` killed by SIGKILL: no handler treats the end of its input as a request's end."""

from __future__ import annotations

import os
import signal

import pytest
from helpers.injection import Fault, Strace, needs_strace
from helpers.procfs import arguments, children, guardians, is_in_syscall, processes
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import connect, decode, message, packets, receive_all

RECORD = "cat >>input; echo ended >>ran"


def kill(server: Server) -> None:
    server.signal(signal.SIGKILL)
    server.wait()
    wait_until(lambda: not processes(server.mark), "its handlers and its guardian to end")


@pytest.mark.parametrize("count", [1, 4])
def test_the_guardian_kills_a_prestarted_handler_that_has_no_request(endpoint, folder, count):
    with Server(endpoint, RECORD, "--prestart", count, cwd=folder) as server:
        wait_until(lambda: len(children(server.pid)) == count, "the handlers to start")
        kill(server)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("options", [(), ("--prestart", "2")], ids=["started", "next-prestarted"])
@pytest.mark.parametrize("size", [10, 200_000])
def test_the_guardian_kills_a_handler_that_has_half_a_request(endpoint, folder, options, size):
    with Server(endpoint, RECORD, *options, cwd=folder) as server, connect(endpoint) as client:
        client.sendall(packets(b"x" * size))
        wait_until(lambda: has_size(folder / "input", size), "the handler to get it")
        kill(server)
        assert receive_all(client) == b""
    assert not (folder / "ran").exists()


@needs_strace[0]
@needs_strace[1]
def test_a_handler_whose_group_the_guardian_does_not_know_is_also_killed(endpoint, folder):
    """The server may be killed before it sends the group to the guardian; here sending fails."""
    server = Server(endpoint, RECORD, cwd=folder)
    with connect(endpoint) as client:
        fault = Fault("sendto", "EIO", 1, "all")
        with Strace(server.pid, folder / "trace", fault) as strace:
            client.sendall(packets(b"x"))
            wait_until(lambda: has_size(folder / "input", 1), "the handler to get it")
            assert strace.injected()
        kill(server)
    assert not (folder / "ran").exists()


def has_size(file, size: int) -> bool:
    return file.exists() and file.stat().st_size == size


@pytest.mark.parametrize("options", [(), ("--prestart", "1")], ids=["started", "next-prestarted"])
@pytest.mark.parametrize("size", [0, 10, 5000, 100_000])
def test_a_handler_that_has_the_whole_request_keeps_running(endpoint, folder, options, size):
    command = "cat >>input; echo >whole; while [ ! -e go ]; do sleep .01; done; echo ended >ran"
    with Server(endpoint, command, *options, cwd=folder) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"x" * size))
            wait_until((folder / "whole").exists, "the handler to read all")
            server.process.kill()
            assert decode(receive_all(client)) == (b"", False)
        (folder / "go").touch()
        wait_until((folder / "ran").exists, "the handler to end by itself")
        server.wait()
    assert has_size(folder / "input", size)


def test_a_server_that_stops_normally_leaves_no_guardian(endpoint):
    with Server(endpoint, "cat") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"begun"))
            (guardian,) = wait_until(lambda: guardians(server.pid), "a guardian")
            client.sendall(b"0000")
            assert decode(receive_all(client)) == (b"begun", True)
        assert server.stop() == 0
        assert not arguments(guardian), "it has given up its memory"


def test_requests_are_answered_after_the_guardian_was_killed(endpoint):
    with Server(endpoint, "cat") as server:
        for text in (b"first", b"without one", b"with another"):
            with connect(endpoint) as client:
                client.sendall(packets(text))
                wait_until(lambda: children(server.pid), "the handler to start")
                for guardian in guardians(server.pid):
                    os.kill(guardian, signal.SIGKILL)
                client.sendall(b"0000")
                assert decode(receive_all(client)) == (text, True)


def test_a_guardian_killed_before_it_has_read_all_does_not_change_how_the_server_ends(endpoint):
    with Server(endpoint, "cat") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"x"))
            (guardian,) = wait_until(lambda: guardians(server.pid), "a guardian")
            os.kill(guardian, signal.SIGSTOP)
        server.wait_for_log("request incomplete")
        os.kill(guardian, signal.SIGKILL)
        assert server.stop() == 0


def test_signals_to_all_processes_of_a_service_do_not_end_the_guardian(endpoint, folder):
    with Server(endpoint, RECORD, "--prestart", "1", cwd=folder) as server:
        (guardian,) = wait_until(lambda: guardians(server.pid), "a guardian")
        wait_until(lambda: is_in_syscall(guardian, "recvmsg"), "it to be ready")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(guardian, number)
        kill(server)
    assert not (folder / "ran").exists()
