"""`sipc serve` and idle connections: clients that have connected and have sent nothing."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import socket
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from helpers.injection import wait_until_stopped
from helpers.patience import STOPS_ITSELF, without_limits
from helpers.procfs import stop_process, threads
from helpers.server import Server
from helpers.soak import soak
from helpers.state import needs_files
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, open_connections, receive_all

MANY = 200
COUNTS = [MANY, soak(10_000)]
ROOM_FOR_OTHERS = 200
"""Descriptors that this process needs for other things."""


@contextmanager
def descriptors_for(count: int):
    """Raise the limit of this process, and of servers that it starts, for this many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + ROOM_FOR_OTHERS
    if hard < needed:
        pytest.skip(f"needs {needed} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limited(soft: int, hard: int) -> list[str]:
    return ["prlimit", f"--nofile={soft}:{hard}"]


@contextmanager
def idle_connections(server: Server, count: int):
    """Open connections that send nothing; wait until the server has accepted them."""
    before = server.counters()["accepted"]
    with ExitStack() as stack:
        clients: list[socket.socket] = []
        while len(clients) < count:
            portion = min(100, count - len(clients))  # no more than the backlog
            clients += [stack.enter_context(connect(server.path)) for _ in range(portion)]
            expected = before + len(clients)
            wait_until(
                lambda: server.counters()["accepted"] == expected,  # noqa: B023
                "the server to accept the connections",
            )
        yield clients


def ask_on(client: socket.socket, payload: bytes) -> tuple[bytes, bool]:
    """Send a request on an open connection; return the response."""
    client.sendall(message(payload))
    return decode(receive_all(client))


@pytest.mark.parametrize("count", COUNTS)
def test_idle_connections_occupy_no_thread_and_are_answered_when_they_send(endpoint, count):
    command = 'echo "$UNIXREMOTEPID $UNIXREMOTEEUID $(cat)"'
    peer = f"{os.getpid()} {os.geteuid()}"
    with descriptors_for(count), Server(endpoint, command, "--threads", 1) as server:
        with idle_connections(server, count) as clients:
            assert len(threads(server.pid)) == 2, "the main thread, and that which receives signals"
            assert server.counters()["idle"] == count
            assert ask(endpoint, b"other") == (f"{peer} other\n".encode(), True)
            for number in (0, count // 2, *range(count - 20, count)):
                expected = f"{peer} {number}\n".encode()
                assert ask_on(clients[number], b"%d" % number) == (expected, True)
        server.wait_until_idle()
        counted = server.counters_at_rest()
    assert (counted["answered"], counted["closed_without_data"]) == (23, count - 22)
    assert counted["failed"] == counted["idle_closed"] == 0


def test_a_half_close_without_a_byte_ends_an_idle_connection(shared_server):
    server = shared_server("cat")
    before = server.counters()["closed_without_data"]
    with idle_connections(server, 3) as clients:
        clients[1].shutdown(socket.SHUT_WR)
        assert receive_all(clients[1]) == b""
        wait_until(
            lambda: server.counters()["closed_without_data"] == before + 1, "it to be counted"
        )
        assert ask_on(clients[0], b"hello") == (b"hello", True)
        assert ask_on(clients[2], b"hello") == (b"hello", True)


@needs_files(4096)
def test_the_descriptor_limit_is_raised_for_idle_connections_and_handlers_get_the_old_one(endpoint):
    """A handler gets the original limit, and none of the server's sockets."""
    command = "ulimit -n; ls -l /proc/self/fd"
    with Server(endpoint, command, wrapper=limited(128, 4096)) as server:
        alone = ask(endpoint, b"")[0]
        with idle_connections(server, MANY):
            crowded = ask(endpoint, b"")[0]
        limits = Path(f"/proc/{server.pid}/limits")
        wait_until(lambda: re.search(r"open files +128 +4096", limits.read_text()), "the limit")
        server.wait_until_idle()
        assert server.counters()["idle_closed"] == 0
    assert "descriptors" not in server.log
    assert alone.startswith(b"128\n")
    assert crowded.startswith(b"128\n")
    assert alone.count(b"\n") == crowded.count(b"\n")
    assert b"socket:" not in crowded


def test_when_descriptors_run_short_the_oldest_idle_connections_are_closed(endpoint):
    with Server(endpoint, "cat", "--threads", "1", wrapper=limited(64, 64)) as server:
        with idle_connections(server, 100) as clients:
            wait_until(lambda: server.counters()["idle_closed"], "some to be closed")
            assert ask(endpoint, b"hello") == (b"hello", True)
            closed = server.counters()["idle_closed"]
            assert 0 < closed < 100
            assert [receive_all(client) for client in clients[:closed]] == [b""] * closed
            for client in clients[closed:]:
                assert ask_on(client, b"hello") == (b"hello", True)
        assert server.counters()["idle_closed"] == closed
        assert server.log.count("out of file descriptors") == 1


def test_all_connections_that_have_sent_a_request_are_answered_even_if_they_wait_long(
    endpoint, gate
):
    """Idle connections and those in the backlog, also after the stop has begun."""
    options = ("--threads", "2", "--drain-timeout", "0")
    with Server(endpoint, f"{gate.wait}; cat", *options, wrapper=limited(64, 64)) as server:
        with idle_connections(server, 20) as clients:
            stop_process(server.pid)
            with open_connections(endpoint, 20) as others:
                for client in (*clients, *others):
                    client.sendall(message(b"hello"))
                server.signal(signal.SIGCONT)
                server.wait_for_log("out of file descriptors")
                server.signal()
                wait_until(lambda: not endpoint.exists(), "the stop to begin")
                gate.open()
                for client in (*clients, *others):
                    assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0


def test_idle_connections_that_send_while_the_server_stops_are_answered(endpoint):
    """The other connections are closed after a second."""
    program = without_limits(then=STOPS_ITSELF)
    with (
        Server(endpoint, "cat", "-v", program=program) as server,
        idle_connections(server, MANY) as clients,
    ):
        server.signal()
        wait_until_stopped(server.pid)
        for client in clients[:10]:
            client.sendall(message(b"hello"))
        server.signal(signal.SIGCONT)
        for client in clients[:10]:
            assert decode(receive_all(client)) == (b"hello", True)
        assert [receive_all(client) for client in clients[10:]] == [b""] * (MANY - 10)
        assert server.wait() == 0


class RandomClients:
    """Threads whose connections open, send and close at random moments, at most 160 at once.

    Every tenth sends nothing. What was wrong with an answer is kept.
    """

    def __init__(self, path, count: int, pause: float) -> None:
        self._path = path
        self._count = count
        self._pause = pause
        self._random = random.Random(str(pause))  # the same in each run
        self.wrong: list[object] = []
        self._threads = [threading.Thread(target=self._run, args=(first,)) for first in range(4)]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def _run(self, first: int) -> None:
        waiting: list[tuple[int, socket.socket]] = []
        ticks = threading.Event()
        for number in range(first, self._count, 4):
            waiting.append((number, connect(self._path)))
            if number % 100 == first:
                ticks.wait(self._pause)
            if len(waiting) > 40 or self._random.random() < 0.5:
                self._send(*waiting.pop(self._random.randrange(len(waiting))))
        for one in waiting:
            self._send(*one)

    def _send(self, number: int, connection: socket.socket) -> None:
        with connection:
            if number % 10 == 0:
                return
            answer = ask_on(connection, b"%d\n" % number)
            if answer != (b"%d\n" % number, True):
                self.wrong.append((number, answer))


@pytest.mark.parametrize(
    ("count", "pause"),
    [
        pytest.param(200, 0.0),
        soak(2000, 0.0),
        soak(2000, 0.05),
        soak(2000, 0.2),
    ],
)
@needs_files(4096)
def test_each_connection_is_answered_once_at_any_time_it_sends(endpoint, folder, count, pause):
    command = f'read -r n; echo "$n" >>{folder}/seen; echo "$n"'
    with Server(endpoint, command, wrapper=limited(400, 4096)) as server:
        clients = RandomClients(endpoint, count, pause)
        clients.run()
        server.wait_until_idle()
        counted = server.counters_at_rest()
    assert clients.wrong == []
    asked = [number for number in range(count) if number % 10]
    assert sorted(map(int, (folder / "seen").read_text().split())) == asked
    assert (counted["answered"], counted["closed_without_data"], counted["idle_closed"]) == (
        len(asked),
        count - len(asked),
        0,
    )
