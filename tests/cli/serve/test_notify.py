"""`sipc serve` under a service manager: what it sends to $NOTIFY_SOCKET, and when."""

from __future__ import annotations

import os
import socket

import pytest
from helpers.background import Background
from helpers.command import SIPC, Program, environment
from helpers.patience import DRAIN, LOCK, without_limits
from helpers.procfs import state, wakeups
from helpers.server import Server
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, decode, message, receive_all


@pytest.fixture(params=["path", "abstract"])
def manager(request, folder):
    """Yield a service manager's socket, and its name for $NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = str(folder / "notify")
        listening.bind(name if request.param == "path" else f"\0{name}")
        listening.settimeout(TIMEOUT)
        yield listening, name if request.param == "path" else f"@{name}"


@pytest.fixture
def notify_socket(folder):
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "notify"))
        listening.settimeout(TIMEOUT)
        yield listening


def test_the_server_sends_ready_and_stopping(manager, endpoint):
    listening, name = manager
    env = environment(NOTIFY_SOCKET=name)
    with Server(endpoint, "cat", env=env, program=without_limits(*DRAIN)) as server:
        assert listening.recv(1000) == b"READY=1\nSTATUS=listening on %s" % os.fsencode(endpoint)
        with connect(endpoint) as client:
            server.signal()
            state, status = listening.recv(1000).split(b"\n")
            assert (state, status[:16]) == (b"STOPPING=1", b"STATUS=stopping:")
            assert server.process.poll() is None, "the drain has begun, and goes on"
            client.sendall(message(b"hello"))
            assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.recv(1000)


def test_the_server_sends_nothing_before_it_listens(notify_socket, folder, endpoint):
    lock = folder / "sock.lock"
    lock.touch()
    env = environment(NOTIFY_SOCKET=str(folder / "notify"))
    command = [*without_limits(*LOCK), "serve", endpoint, "--exec", "cat"]
    with Program(command, env=env) as server:
        wait_until(lambda: any(".sipc-" in n for n in os.listdir(folder)), "it to wait")
        server.terminate()
        assert server.wait() == 143
    notify_socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        notify_socket.recv(1000)


def test_a_server_in_the_background_sends_ready(notify_socket, folder, endpoint):
    with Background(endpoint) as background:
        env = background.environment(NOTIFY_SOCKET=str(folder / "notify"))
        assert background.serve(env=env).returncode == 0
        assert notify_socket.recv(1000).startswith(b"READY=1\n")


def test_a_path_with_a_newline_adds_no_assignment(notify_socket, folder):
    env = environment(NOTIFY_SOCKET=str(folder / "notify"))
    path = folder / "a\nMAINPID=1"
    command = [SIPC, "serve", path, "--exec", "cat"]
    with Program(command, env=env) as server:
        said = notify_socket.recv(1000)
        server.terminate()
        assert server.wait() == 0
    assert said.count(b"\n") == 1
    assert rb"a\nMAINPID=1" in said


def test_an_unreachable_service_manager_is_logged_once_and_requests_are_answered(endpoint, folder):
    env = environment(NOTIFY_SOCKET=f"{folder}/missing", WATCHDOG_USEC="20000")
    with Server(endpoint, "cat", env=env) as server:
        server.wait_for_log("service manager")
        woken = wakeups(server.pid)
        wait_until(lambda: wakeups(server.pid) >= woken + 5, "more signs of life")
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.stop() == 0
    assert server.log.count("service manager") == 1
    assert "check NOTIFY_SOCKET" in server.log


def test_a_service_manager_that_does_not_read_delays_no_request(notify_socket, folder, endpoint):
    """The queue of its socket stays full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        fill(filler, str(folder / "notify"))
        env = environment(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="20000")
        with Server(endpoint, "cat", env=env) as server:
            assert ask(endpoint, b"hello") == (b"hello", True)
            assert server.stop() == 0
    assert server.log.count("service manager") == 1


def fill(filler, name: str) -> None:
    filler.setblocking(False)
    try:
        while True:
            filler.sendto(b"x", name)
    except BlockingIOError:
        pass


def states(notify_socket, count: int) -> list[bytes]:
    return [notify_socket.recv(1000).split(b"\n")[0] for _ in range(count)]


def test_watchdog_messages_are_sent_while_idle_busy_and_stopping(
    notify_socket, folder, endpoint, gate
):
    env = environment(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="200000")
    command = f": >{folder}/begun; {gate.wait}; cat"
    with Server(endpoint, command, "--threads", 1, env=env) as server:
        assert states(notify_socket, 5) == [b"READY=1", *[b"WATCHDOG=1"] * 4]
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            wait_until((folder / "begun").exists, "the handler to begin")
            assert states(notify_socket, 5) == [b"WATCHDOG=1"] * 5
            server.signal()
            while states(notify_socket, 1) != [b"STOPPING=1"]:
                pass
            assert states(notify_socket, 5) == [b"WATCHDOG=1"] * 5
            gate.open()
            assert decode(receive_all(client)) == (b"hello", True)
        notify_socket.close()  # else the queue of the socket fills
        assert server.wait() == 0


def test_no_watchdog_message_is_sent_for_the_watchdog_of_another_process(
    notify_socket, folder, endpoint
):
    more = {"WATCHDOG_USEC": "50000", "WATCHDOG_PID": "1"}
    env = environment(NOTIFY_SOCKET=str(folder / "notify"), **more)
    with Server(endpoint, "cat", env=env) as server:
        assert states(notify_socket, 1) == [b"READY=1"]
        woken = wakeups(server.pid)
        wait_until(lambda: wakeups(server.pid) >= woken + 3, "its main loop to have run")
        server.signal()
        assert states(notify_socket, 1) == [b"STOPPING=1"]
        assert server.wait() == 0


def test_watchdog_messages_are_sent_if_WATCHDOG_PID_is_the_servers(notify_socket, folder, endpoint):
    env = environment(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="50000")
    wrapper = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh"]
    with Server(endpoint, "cat", env=env, wrapper=wrapper):
        assert states(notify_socket, 3) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        notify_socket.close()


def test_a_watchdog_time_of_a_microsecond_does_not_make_the_server_spin(
    notify_socket, folder, endpoint
):
    env = environment(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="1")
    with Server(endpoint, "cat", env=env) as server:
        assert states(notify_socket, 2) == [b"READY=1", b"WATCHDOG=1"]
        wait_until(lambda: state(server.pid) == "S", "it to sleep")
        notify_socket.close()


def test_handlers_do_not_get_the_service_managers_variables(notify_socket, folder, endpoint):
    env = environment(
        NOTIFY_SOCKET=str(folder / "notify"),
        WATCHDOG_USEC="5000000",
        WATCHDOG_PID="1",
        LISTEN_PID="1",
        LISTEN_FDS="1",
        LISTEN_FDNAMES="sipc",
        LISTEN_ADDRESS="mine",
    )
    with Server(endpoint, "env", env=env):
        seen = ask(endpoint, b"")[0].decode().splitlines()
    names = {line.partition("=")[0] for line in seen}
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    assert {name for name in names if name.startswith("LISTEN_")} == {"LISTEN_ADDRESS"}
