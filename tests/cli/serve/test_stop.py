"""`sipc serve` stops without losing a request."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import pytest
from helpers.injection import wait_until_stopped
from helpers.patience import STOPS_ITSELF, without_limits
from helpers.procfs import children, stop_process
from helpers.server import Server
from helpers.soak import SOAK
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, open_connections, packets, receive_all
from helpers.workers import serve_workers


def test_a_stopping_server_answers_ten_requests_in_flight(endpoint, gate):
    command = f"{gate.wait}; cat"
    with Server(endpoint, command) as server, open_connections(endpoint, 10) as clients:
        for client in clients:
            client.sendall(message(b"hello"))
        wait_until(lambda: len(children(server.pid)) == 8, "eight handlers")
        server.signal(signal.SIGQUIT)
        wait_until(lambda: not endpoint.exists(), "the path to go")
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
            late.connect(str(endpoint))
        gate.open()
        assert [receive_all(client) for client in clients] == [message(b"hello")] * 10
        assert server.wait() == 0


def test_a_stopping_server_answers_connections_in_the_backlog(endpoint):
    """The backlog has more connections than the server accepts at once at the stop."""
    with serve_workers(endpoint, "--drain-timeout", "0", worker="cat") as server:
        stop_process(server.pid)
        with open_connections(endpoint, 300) as clients:
            for client in clients:
                client.sendall(message(b"hello"))
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGCONT)
            assert [receive_all(client) for client in clients] == [message(b"hello")] * 300
        assert server.wait() == 0


def test_a_stopping_server_closes_idle_connections_and_incomplete_requests(endpoint):
    with (
        Server(endpoint, "cat", "--drain-timeout", "0") as server,
        open_connections(endpoint, 3) as clients,
    ):
        clients[1].sendall(b"0009he")
        assert clients[1].recv(100) == packets(b"he")
        clients[2].sendall(packets(b"hello"))
        assert clients[2].recv(100) == packets(b"hello")
        server.signal()
        assert [receive_all(client) for client in clients] == [b"", b"", b""]
        assert server.wait() == 0


def test_a_stopping_server_ends_handlers_after_the_drain_timeout(endpoint, folder):
    """The server also starts no handler for requests that wait for a thread."""
    runs = folder / "runs"
    command = f"echo x >>{runs}; exec sleep 1000"
    with Server(endpoint, command, "--threads", 1, "--drain-timeout", "200ms") as server:
        with open_connections(endpoint, 3) as clients:
            for client in clients:
                client.sendall(message(b"hello"))
            wait_until(lambda: runs.exists() and runs.read_text(), "the first handler")
            server.signal()
            assert [receive_all(client) for client in clients] == [b""] * 3
        assert server.wait() == 143
        assert runs.read_text() == "x\n"
        assert "--drain-timeout" in server.log


def test_the_server_stops_after_count_requests(endpoint):
    with Server(endpoint, "cat", "--count", 3) as server:
        for _ in range(3):
            connect(endpoint).close()  # a connection without data does not count
            assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.wait() == 0
        assert not endpoint.exists()


def test_a_first_signal_after_count_requests_does_not_abort(endpoint, folder, gate):
    command = f": >{folder}/begun; {gate.wait}; cat"
    with Server(endpoint, command, "--count", 1) as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
        wait_until(lambda: not endpoint.exists(), "the stop to begin")
        server.signal()
        gate.open()
        assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0


@pytest.mark.soak
def test_starting_and_stopping_repeatedly_leaves_no_process_and_no_file(endpoint, folder):
    for _ in range(SOAK):
        with Server(endpoint, "cat") as server:
            with open_connections(endpoint, 4) as connected:
                for client in connected:
                    client.sendall(message(b"hello"))
                server.signal()
                answers = [decode(receive_all(client)) for client in connected]
            assert answers == [(b"hello", True)] * 4
            assert server.wait() == 0
        assert os.listdir(folder) == []


def test_a_server_suspended_during_its_stop_closes_no_connection_that_has_sent(endpoint):
    program = without_limits(then=STOPS_ITSELF)
    with Server(endpoint, "cat", program=program) as server, connect(endpoint) as client:
        server.wait_until_accepted(1)
        server.signal()
        wait_until_stopped(server.pid)
        client.sendall(message(b"hello"))
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1.2)  # longer than a client may stay idle
        server.signal(signal.SIGCONT)
        assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0
