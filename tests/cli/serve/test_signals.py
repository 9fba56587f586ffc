"""`sipc serve` and signals: SIGTERM in each state, and SIGKILL, which no process can catch."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from helpers.command import SIPC, environment
from helpers.inprocess_cli import run_cli
from helpers.patience import DRAIN, without_limits
from helpers.procfs import processes
from helpers.server import Server
from helpers.soak import SOAK, soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, decode, message, packets, receive_all

STOPS = [signal.SIGTERM, signal.SIGINT]
each_stop = pytest.mark.parametrize("number", STOPS, ids=[stop.name for stop in STOPS])


def stop_begins(server: Server, number: int) -> None:
    server.signal(number)
    wait_until(lambda: not Path(server.path).exists(), "the stop to begin")


@each_stop
def test_a_signal_stops_a_server_without_connections(endpoint, number):
    with Server(endpoint, "cat") as server:
        server.signal(number)
        assert server.wait() == 0
    assert not endpoint.exists()


@pytest.mark.parametrize(
    ("number", "received"),
    [(signal.SIGTERM, 1), (signal.SIGINT, 4), (signal.SIGTERM, 20), (signal.SIGINT, -4)],
    ids=["a byte", "a length", "half", "all but the flush"],
)
def test_a_request_that_the_server_is_receiving_is_answered_after_the_signal(
    endpoint, number, received
):
    wire = message(b"hello" * 100)
    program = without_limits(*DRAIN)
    with Server(endpoint, "cat", program=program) as server, connect(endpoint) as client:
        client.sendall(wire[:received])
        wait_until(server.connections, "the connection to be accepted")
        stop_begins(server, number)
        client.sendall(wire[received:])
        assert decode(receive_all(client)) == (b"hello" * 100, True)
        assert server.wait() == 0


def test_the_server_waits_for_a_running_handler_after_the_signal(endpoint, folder, gate):
    command = f": >{folder}/begun; {gate.wait}; echo done"
    with Server(endpoint, command) as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
        stop_begins(server, signal.SIGTERM)
        gate.open()
        assert decode(receive_all(client)) == (b"done\n", True)
        assert server.wait() == 0


def test_a_response_that_the_server_is_sending_is_completed_after_the_signal(endpoint):
    size = 3_000_000
    with Server(endpoint, f"head -c {size} /dev/zero") as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        begin = client.recv(1)
        stop_begins(server, signal.SIGINT)
        assert decode(begin + receive_all(client)) == (bytes(size), True)
        assert server.wait() == 0


@each_stop
def test_a_second_signal_aborts_the_drain(endpoint, folder, number):
    command = f": >{folder}/begun; exec sleep 1000"
    options = ["--drain-timeout", "0"]
    with Server(endpoint, command, *options) as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
        stop_begins(server, number)
        server.signal(number)
        assert decode(receive_all(client)) == (b"", False)
        assert server.wait() == 128 + number


@pytest.mark.parametrize("steps", [5, soak(20 * SOAK)])
def test_a_signal_at_any_time_during_the_start_leaves_no_file(endpoint, folder, steps):
    """The server ends at once, and leaves no file."""
    for step in range(steps):
        command = [SIPC, "serve", endpoint, "--exec", "cat"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as server:
            threading.Event().wait(0.24 * step / steps)  # no state is needed: any time is good
            server.terminate()
            _, said = server.communicate(timeout=TIMEOUT)
        assert server.returncode in {0, 143, -signal.SIGTERM}
        assert b"Traceback" not in said
        assert os.listdir(folder) == []


def test_after_sigkill_the_stale_socket_is_replaced_by_the_next_server(endpoint, folder):
    """SIGKILL cannot be caught: the handlers are left to the service manager."""
    reader = f"cat >{folder}/stored; : >{folder}/eof; exec sleep 1000"
    options = ["--whole-request"]
    with Server(endpoint, ": >begun; exec sleep 1000", *options, cwd=folder) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            wait_until((folder / "begun").exists, "the handler to begin")
            server.process.kill()
            assert decode(receive_all(client)) == (b"", False), "the client knows"
            server.process.wait()
        left = processes(server.mark)
        assert left, "the handler lives on"
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert run_cli("probe", endpoint).returncode == 3
    with Server(endpoint, reader, "--kill-after", "0"):
        with connect(endpoint) as client:
            client.sendall(message(b"again"))
            wait_until((folder / "eof").exists, "the next server to answer")
    assert (folder / "stored").read_bytes() == b"again"


def test_after_sigkill_no_handler_has_read_half_of_a_whole_request(endpoint, folder):
    command = f"cat >{folder}/stored; : >{folder}/eof"
    with Server(endpoint, command, "--whole-request") as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"half of it"))
            wait_until(server.connections, "the connection to be accepted")
            server.process.kill()
            assert receive_all(client) == b""
        server.wait()
        assert processes(server.mark) == {}
    assert not (folder / "eof").exists()


def test_signals_that_were_ignored_at_the_start_stay_ignored(endpoint):
    ignore = ["sh", "-c", 'trap "" INT HUP QUIT; exec "$@"', "sh"]
    with Server(endpoint, "cat", wrapper=ignore) as server:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            server.signal(number)
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.stop() == 0


def test_after_a_second_signal_the_log_does_not_advise_a_longer_drain(endpoint, folder):
    with Server(endpoint, f": >{folder}/begun; exec sleep 1000") as server:
        with connect(endpoint) as client:
            client.sendall(message(b"x"))
            wait_until((folder / "begun").exists, "the handler to begin")
            stop_begins(server, signal.SIGTERM)
            server.signal()
            assert decode(receive_all(client)) == (b"", False)
        assert server.wait() == 143
        assert "a second signal" in server.log.splitlines()[-1]
        assert "--drain-timeout" not in server.log
