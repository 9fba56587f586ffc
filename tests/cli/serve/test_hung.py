"""`sipc serve` when a thread hangs, or a system call of one connection fails."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, environment
from helpers.hung_disk import hung_disk, needs_fuse
from helpers.injection import Fault, Strace, needs_strace
from helpers.patience import without_limits
from helpers.procfs import arguments, children, guardians, processes
from helpers.server import Server
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, message, receive_all


@pytest.fixture
def spool(folder):
    (folder / "spool").mkdir()
    return folder / "spool"


@needs_fuse
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_server_whose_thread_hangs(endpoint, spool, number):
    """The thread waits for a disk that does not respond, to store the request there."""
    env = environment(TMPDIR=str(spool))
    with Server(endpoint, "cat", "--whole-request", env=env) as server:
        with hung_disk(spool) as is_used_by, connect(endpoint) as client:
            client.sendall(message(b"x"))
            wait_until(lambda: is_used_by(server.pid), "its thread to hang")
            server.signal(number)
            wait_until(lambda: not endpoint.exists(), "the first signal to be handled")
            server.signal(number)
            assert server.wait() == 128 + number
            assert receive_all(client) == b""
        assert "aborted: its thread hangs" in server.log
        assert "not all requests were answered: a second signal aborts" in server.log


@needs_fuse
def test_the_handler_of_a_thread_that_hangs_is_killed(endpoint, spool):
    """The handler writes, the client does not read: the server spools more of the request.

    The guardian, which would also kill the handler, has ended.
    """
    env = environment(TMPDIR=str(spool))
    request = memoryview(message(bytes(8_000_000)))
    with Server(endpoint, "trap '' TERM; yes & sleep 1000", env=env) as server:
        with hung_disk(spool) as is_used_by, connect(endpoint) as client:
            client.setblocking(False)

            def waits_after_more_data() -> bool:
                nonlocal request
                with suppress(BlockingIOError):
                    request = request[client.send(request) :]
                return is_used_by(server.pid, 0)

            wait_until(waits_after_more_data, "its thread to hang")
            (guardian,) = wait_until(lambda: guardians(server.pid), "its guardian")
            os.kill(guardian, signal.SIGKILL)
            server.signal()
            wait_until(lambda: not endpoint.exists(), "the first signal to be handled")
            server.signal()
            assert server.wait() == 143
            wait_until(lambda: not processes(server.mark), "its handler to end")
        assert "aborted: its thread hangs" in server.log


@needs_fuse
def test_the_drain_timeout_ends_a_server_whose_thread_hangs(endpoint, spool):
    env = environment(TMPDIR=str(spool))
    options = ("--whole-request", "--drain-timeout", "10ms", "--kill-after", "0")
    with Server(endpoint, "cat", *options, env=env) as server:
        with hung_disk(spool) as is_used_by, connect(endpoint) as client:
            client.sendall(message(b"x"))
            wait_until(lambda: is_used_by(server.pid), "its thread to hang")
            assert server.stop() == 143
        assert "not all requests were answered: allow more time" in server.log


def runs(server: Server, program: Path) -> list[int]:
    """The children of a server that execute a program; another one starts its guardian."""
    return [child for child in children(server.pid) if str(program) in arguments(child)]


SLOW_TO_REPORT = """
from simpleipc_cli.cli.serve import run

assert run._MAX_TASK == 0.2
run._MAX_TASK = 5.0
"""
"""Code: before a server ends though its main thread hangs, it may take longer to say so."""


@needs_fuse
@pytest.mark.parametrize("hanging", ["log", "path"])
def test_a_second_signal_ends_a_server_whose_main_thread_hangs(folder, hanging):
    """The thread reopens its log, or checks its path, on a disk that does not respond."""
    for name in ("log", "path"):
        (folder / name).mkdir()
    endpoint = folder / "path" / "sock"
    options = ("--log-file", folder / "log" / "log")
    more = {"cwd": folder, "program": without_limits(then=SLOW_TO_REPORT)}
    with Server(endpoint, ": >begun; exec sleep 1000", *options, **more) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"x"))
            wait_until((folder / "begun").exists, "the handler to begin")
            with hung_disk(folder / hanging) as is_used_by:
                if hanging == "log":
                    server.signal(signal.SIGHUP)
                wait_until(lambda: is_used_by(server.pid), "the main thread to hang")
                server.signal(signal.SIGINT)
                server.signal(signal.SIGTERM)
                assert server.wait() in {130, 143}, "two signals have no order"
                assert receive_all(client) == b""
        assert "was ended while its main thread hung: check the disks" in server.log
    assert endpoint.exists() == (hanging == "path")


@needs_fuse
def test_a_second_signal_ends_a_server_that_hangs_while_it_starts(endpoint, folder):
    (folder / "disk").mkdir()
    with hung_disk(folder / "disk") as is_used_by:
        command = [SIPC, "serve", endpoint, "--exec", folder / "disk" / "handler"]
        with Program(command, stderr=subprocess.PIPE, env=environment()) as server:
            wait_until(lambda: is_used_by(server.pid), "its thread to hang")
            server.send_signal(signal.SIGTERM)
            server.send_signal(signal.SIGINT)
            assert server.wait(TIMEOUT) in {130, 143}, "two signals have no order"


@needs_fuse
@pytest.mark.parametrize("calls", [1, 2], ids=["one signal", "two signals"])
def test_the_server_exits_even_if_its_supervisor_hangs(endpoint, folder, calls):
    """The thread of the supervisor starts a program on a disk that does not respond."""
    (folder / "disk").mkdir()
    program = folder / "disk" / "handler"
    program.write_text("#!/bin/sh\ncat\n")
    program.chmod(0o755)
    kill_after = "0" if calls == 1 else "60s"
    with Server(endpoint, str(program), "--prestart", 1, "--kill-after", kill_after) as server:
        (idle,) = wait_until(lambda: runs(server, program), "its handler")
        with hung_disk(folder / "disk") as is_used_by:
            os.kill(idle, signal.SIGKILL)
            wait_until(lambda: is_used_by(server.pid), "its thread to hang")
            server.signal()
            if calls == 2:
                wait_until(lambda: not endpoint.exists(), "the first signal to be handled")
                server.signal()
            assert server.wait() == 0, "all requests were answered"


@pytest.mark.parametrize(
    "fault", [Fault("poll", "ENOMEM", 1, "threads"), Fault("poll", "EPERM", 2, "threads")], ids=str
)
class TestFailingThread:
    pytestmark = needs_strace

    def test_a_failed_wait_of_a_worker_thread_ends_only_its_request(
        self, endpoint, folder, gate, fault
    ):
        """No second signal is needed, as the server does not wait for the request."""
        with Server(endpoint, f"{gate.wait}; cat", "--whole-request") as server:
            with connect(endpoint) as first, connect(endpoint) as second:
                first.sendall(message(b"x"))  # starts the thread
                wait_until(lambda: children(server.pid), "its handler")
                gate.open(1)
                assert receive_all(first) == message(b"x")
                with Strace(server.pid, folder / "strace", fault) as strace:
                    second.sendall(message(b"y"))
                    gate.open(1)
                    assert receive_all(second) == b""
                    assert strace.injected()
                server.wait_for_log("aborted: cannot poll|internal error: cannot")
            gate.open()
            assert ask(endpoint, b"z") == (b"z", True)
            assert server.stop() == 0


@pytest.mark.parametrize("call", ["recvfrom", "getsockopt"])
@pytest.mark.parametrize("error", ["EPERM", "EACCES", "ENOMEM"])
class TestFailingConnection:
    pytestmark = needs_strace

    def test_a_failed_call_for_a_connection_ends_only_that_connection(
        self, endpoint, folder, call, error
    ):
        """The server checks for data with recvfrom, for the client's user with getsockopt."""
        with Server(endpoint, "cat") as server:
            with connect(endpoint) as idle:
                server.wait_until_accepted(1)
                fault = Fault(call, error, 1, "main")
                with (
                    Strace(server.pid, folder / "strace", fault) as strace,
                    connect(endpoint) as client,
                ):
                    with suppress(BrokenPipeError):
                        client.sendall(message(b"x"))
                    assert receive_all(client) == b""
                    assert strace.injected()
                server.wait_for_log("^a connection failed and was closed: ")
                idle.sendall(message(b"y"))
                assert receive_all(idle) == message(b"y")
            assert server.counters()["closed_without_data"] == 1
            assert server.stop() == 0

    def test_a_failed_call_for_an_idle_connection_ends_only_that_connection(
        self, endpoint, folder, call, error
    ):
        with Server(endpoint, "cat") as server:
            with connect(endpoint) as idle:
                server.wait_until_accepted(1)
                with Strace(server.pid, folder / "strace", Fault(call, error, 1, "main")):
                    idle.sendall(message(b"x"))
                    assert receive_all(idle) == b""
            assert ask(endpoint, b"y") == (b"y", True)


class TestFailingConnections:
    pytestmark = needs_strace

    def test_the_same_failure_of_several_connections_is_logged_once(self, endpoint, folder):
        with Server(endpoint, "cat") as server:
            for _ in range(2):
                fault = Fault("getsockopt", "EPERM", 1, "main")
                with Strace(server.pid, folder / "strace", fault), connect(endpoint) as client:
                    with suppress(BrokenPipeError):
                        client.sendall(message(b"x"))
                    assert receive_all(client) == b""
            assert server.counters()["closed_without_data"] == 2
            assert server.stop() == 0
        assert server.log.count("a connection failed and was closed") == 1

    def test_an_error_of_accepting_is_logged_once(self, endpoint, folder):
        with Server(endpoint, "cat") as server:
            for _ in range(2):
                fault = Fault("accept4", "EPERM", 1, "main")
                with Strace(server.pid, folder / "strace", fault) as strace:
                    assert ask(endpoint, b"x") == (b"x", True)
                    assert strace.injected()
            assert server.stop() == 0
        assert server.log.count("cannot accept on") == 1


class TestUnwatchedConnection:
    pytestmark = needs_strace

    def test_an_idle_connection_that_cannot_be_polled_is_closed_and_no_other(
        self, endpoint, folder
    ):
        with Server(endpoint, "cat") as server:
            fault = Fault("epoll_ctl", "ENOMEM", 1, "main")
            with Strace(server.pid, folder / "strace", fault) as strace, connect(endpoint) as idle:
                assert receive_all(idle) == b""
                assert strace.injected()
            server.wait_for_log("^a connection failed and was closed: Cannot allocate memory")
            assert ask(endpoint, b"x") == (b"x", True)
            assert server.stop() == 0


class TestUnknownUser:
    pytestmark = needs_strace

    def test_a_client_whose_user_is_unknown_is_refused(self, endpoint, folder):
        with Server(endpoint, "cat", "--allow-user", str(os.getuid())) as server:
            with Strace(server.pid, folder / "strace", Fault("getsockopt", "ENOMEM", 1, "main")):
                assert ask(endpoint, b"x") == (b"", False)
            server.wait_for_log("^refused a connection: its user is unknown: ")
            assert ask(endpoint, b"x") == (b"x", True)
