"""`sipc serve --exec --prestart`: handlers that start before their requests."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from helpers.command import environment
from helpers.inprocess_cli import run_cli
from helpers.procfs import (
    children,
    descriptors,
    is_in_syscall,
    is_running,
    is_waiting,
    processes,
    state,
)
from helpers.server import Server
from helpers.soak import soak
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, open_connections, packets, receive_all

MIB = 1 << 20


def waiting(server) -> list[int]:
    """Return the processes that wait for a request."""
    return [pid for pid in processes(server.mark) if is_in_syscall(pid, "read")]


class Ahead(Server):
    """Run a server that keeps this many prestarted handlers while it is idle."""

    def __init__(self, path, command: str, count: int, *options, **more) -> None:
        super().__init__(path, command, "--prestart", count, *options, **more)
        self.count = count

    def wait_until_idle(self) -> None:
        wait_until(lambda: len(children(self.pid)) == self.count, "handlers as at the start")

    def wait_until_ready(self) -> list[int]:
        self.wait_until_filled()
        wait_until(lambda: len(waiting(self)) == self.count, "handlers that wait")
        return waiting(self)

    def wait_until_filled(self) -> list[int]:
        """A handler counts only after the server knows that it has started."""

        def filled():
            return is_waiting(self.pid) and len(children(self.pid)) == self.count

        wait_until(filled, "as many handlers as it is to have")
        return children(self.pid)


def test_prestarted_handlers_wait_before_a_request_and_are_replaced_after_it(endpoint):
    with Ahead(endpoint, "cat; echo $$", 2) as server:
        for _ in range(5):
            ready = server.wait_until_filled()
            answer, whole = ask(endpoint, b"hello ")
            assert whole
            word, pid = answer.split()
            assert word == b"hello"
            assert int(pid) in ready
            server.wait_until_idle()


def test_each_prestarted_handler_is_used_once(endpoint):
    with Ahead(endpoint, "echo $$; cat", 3):
        answers = [ask(endpoint, b"x") for _ in range(10)]
        assert all(whole for _, whole in answers)
        assert len({answer.split()[0] for answer, _ in answers}) == 10


def test_any_payload_is_answered_unchanged(endpoint):
    with Ahead(endpoint, "cat", 2):
        for payload in (b"", b"x", os.urandom(3 * MIB)):
            for _ in range(3):
                assert ask(endpoint, payload) == (payload, True)


def test_requests_without_a_prestarted_handler_start_a_new_handler(endpoint, gate):
    command = f"cat; {gate.wait}"
    with (
        Ahead(endpoint, command, 1, "--threads", 4),
        open_connections(endpoint, 4) as clients,
    ):
        for number, client in enumerate(clients):
            client.sendall(message(b"%d" % number))
        for number, client in enumerate(clients):
            assert client.recv(5, socket.MSG_WAITALL) == packets(b"%d" % number)
        gate.open()
        assert [receive_all(client) for client in clients] == [b"0000"] * 4


def test_a_prestarted_handler_gets_the_endpoint_and_no_peer(endpoint, folder):
    stale = environment(UNIXREMOTEPID="7", SIPC_REQUEST_ID="old")
    with Ahead("sock", "cat; env", 1, cwd=folder, env=stale) as server:
        server.wait_until_ready()
        lines = ask(folder / "sock", b"")[0].decode().splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert "PROTO=UNIX" in lines
    assert f"UNIXLOCALPATH={endpoint}" in lines
    assert not names & {"UNIXREMOTEPID", "UNIXREMOTEEUID", "UNIXREMOTEEGID", "SIPC_REQUEST_ID"}


def test_a_prestarted_handler_may_answer_before_its_request(endpoint, folder):
    with Ahead(endpoint, f"echo x >>{folder}/starts; echo pong", 2) as server:
        for _ in range(5):
            assert ask(endpoint, b"ping") == (b"pong\n", True)
        server.wait_until_idle()


def test_a_prestarted_handler_that_failed_is_replaced_and_not_used(endpoint):
    with Ahead(endpoint, "cat", 2) as server:
        killed = server.wait_until_ready()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, killed)), "those that were killed to be dead")
        assert ask(endpoint, b"hello") == (b"hello", True)
        server.wait_until_ready()
        assert ask(endpoint, b"hello") == (b"hello", True)
        server.wait_for_log("ended before its request: killed by SIGKILL")


def test_a_prestarted_handler_that_exited_without_output_is_not_used(endpoint, folder):
    command = f"mkdir {folder}/first 2>/dev/null && exit 0; cat"
    with Ahead(endpoint, command, 1) as server:
        wait_until((folder / "first").exists, "it to begin")
        wait_until(lambda: list(map(state, children(server.pid))) == ["Z"], "its end")
        assert ask(endpoint, b"hello") == (b"hello", True)


class Failing(Ahead):
    """Run a server whose handlers all exit at once."""

    def wait_until_idle(self) -> None:
        wait_until(lambda: not children(self.pid), "no handler left")


def test_prestarted_handlers_that_fail_at_once_are_started_with_backoff(endpoint, folder):
    with Failing(endpoint, f"echo x >>{folder}/starts; exit 3", 2) as server:
        server.wait_for_log("ended before its request: exit status 3")
        for _ in range(3):
            assert ask(endpoint, b"x") == (b"", False)
        server.wait_until_idle()
        starts = len((folder / "starts").read_text().split())
        assert starts <= 3 + 10


def test_a_prestarted_handler_without_a_request_never_reads_the_end_of_its_input(endpoint, folder):
    with Ahead(
        endpoint, f"trap '' TERM; cat; touch {folder}/eof", 2, "--kill-after", "2s"
    ) as server:
        server.wait_until_ready()
        server.signal()
        assert server.wait() == 0
    assert not (folder / "eof").exists()


def test_the_prestarted_handler_of_a_client_that_closed_is_ended_and_replaced(endpoint, folder):
    with Ahead(endpoint, f"cat; touch {folder}/eof", 1) as server:
        ready = server.wait_until_ready()
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            assert client.recv(100) == packets(b"hello")
        server.wait_for_log("request incomplete")
        wait_until(lambda: not set(ready) & set(waiting(server)), "its end")
        server.wait_until_ready()
        assert not (folder / "eof").exists()


def test_the_handler_timeout_counts_from_the_start_of_the_request(endpoint, clock):
    """The wait for a request may be longer than the timeout of the request."""
    options = ("--timeout", "2s")
    with Ahead(endpoint, "echo $$; exec cat", 2, *options, program=clock.program) as server:
        ready = server.wait_until_ready()
        with connect(endpoint) as client:
            client.sendall(packets(b"x"))
            assert client.recv(4), "the request has begun"
            clock.advance(3)
            wait_until(lambda: set(ready) - set(children(server.pid)), "the end of its handler")
            client.sendall(b"0000")
            assert decode(receive_all(client))[1] is False
        server.wait_for_log("handler timeout: still running after 2 s")
        answer, whole = ask(endpoint, b"x")
        assert whole
        assert int(answer.split()[0]) in ready


@pytest.mark.parametrize("count", [30, soak(300)])
def test_many_requests_leave_no_process_and_no_open_descriptor(endpoint, count):
    with Ahead(endpoint, "cat", 2, "--threads", 2) as server:
        server.wait_until_ready()
        before = len(descriptors(server.pid))
        for _ in range(count):
            assert ask(endpoint, b"x") == (b"x", True)
        server.wait_until_ready()
        wait_until(lambda: len(descriptors(server.pid)) <= before, "descriptors as before")
        assert len(processes(server.mark)) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--worker", "cat", "--prestart", "2"), "--prestart cannot be combined"),
        (("--exec", "cat", "--prestart", "2", "--whole-request"), "cannot be combined"),
        (("--exec", "cat", "--prestart", "0"), "0 is not in the range"),
    ],
    ids=["worker", "whole request", "none"],
)
def test_options_that_exclude_each_other_are_usage_errors(endpoint, options, said):
    done = run_cli("serve", endpoint, *options)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.decode().replace("│", " ").split())
