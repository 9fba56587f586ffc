"""`sipc serve` stops by itself: after N requests, when idle, at a quit request."""

from __future__ import annotations

import re

import pytest
from helpers.command import SIPC, Program, environment
from helpers.inprocess_cli import run_cli
from helpers.patience import DRAIN, without_limits
from helpers.server import Server
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import (
    ask,
    connect,
    decode,
    is_listening,
    message,
    open_connections,
    packets,
    receive_all,
)


def drip(client, wire: bytes) -> None:
    """Write bytes singly; the server reads most of them before the next is written."""
    for at in range(len(wire)):
        client.sendall(wire[at : at + 1])


def test_a_server_without_any_request_stops_after_the_idle_timeout(endpoint):
    with Server(endpoint, "cat", "--idle-timeout", "50ms") as server:
        assert server.wait() == 0
        assert not endpoint.exists()


def test_the_idle_timeout_does_not_run_during_a_request(manager, endpoint):
    """The request takes longer than the timeout, which starts after the response."""
    options = ("--idle-timeout", "100ms", "-v")
    with connect(endpoint) as client:
        client.sendall(message(b"hello"))
        with manager.start(*options, command="sleep 0.5; exec cat") as server:
            assert decode(receive_all(client)) == (b"hello", True)
            log = server.communicate(timeout=TIMEOUT)[1].decode()
            assert server.returncode == 0
    assert re.search(r": answered$[^$]*^idle for 0.1 s$", log, re.M), log
    assert log.count("idle for") == 1


def test_idle_connections_do_not_delay_the_idle_timeout(manager, endpoint):
    with open_connections(endpoint, 3) as clients, manager.start("--idle-timeout", "100ms") as one:
        one.communicate(timeout=TIMEOUT)
        assert one.returncode == 0
        manager.socket.close()  # also the connections that were not accepted in time
        assert [receive_all(client) for client in clients] == [b"", b"", b""]


@pytest.mark.parametrize("how", ["byte by byte, streamed", "in two packets, whole"])
def test_a_request_of_exactly_the_quit_bytes_stops_the_server(endpoint, folder, how):
    options = ["--whole-request"] if "whole" in how else []
    handler = f": >{folder}/ran; cat"
    with Server(endpoint, handler, "--quit-on", "stop now", "-v", *options) as server:
        with connect(endpoint) as client:
            if "byte" in how:
                drip(client, message(b"stop now"))
            else:
                client.sendall(packets(b"stop") + packets(b" now") + b"0000")
            assert receive_all(client) == b"0000"
        assert server.wait() == 0
        assert "answered" in server.log
        assert "stop now" not in server.log, "it may be a secret"
    assert not (folder / "ran").exists(), "no handler is asked"
    assert not endpoint.exists()


QUIT = ("--quit-on", "stop now", "--idle-timeout", "0")
"""Options; without a timeout a server is never idle."""


@pytest.mark.parametrize(
    "payload",
    [b"", b"stop", b"stop now\n", b"stop nox", b"xtop now", b"stop nowstop now", bytes(300_000)],
    ids=["empty", "shorter", "longer", "other end", "other begin", "twice", "large"],
)
@pytest.mark.parametrize("options", [[], ["--whole-request"]], ids=["streamed", "whole"])
def test_any_other_request_goes_to_the_handler(shared_server, payload, options):
    server = shared_server("cat", *QUIT, *options)
    assert ask(server.path, payload) == (payload, True)
    with connect(server.path) as client:
        drip(client, message(payload[:20]))
        assert decode(receive_all(client)) == (payload[:20], True)


def test_a_request_goes_to_the_handler_as_soon_as_it_differs_from_the_quit_bytes(shared_server):
    with connect(shared_server("cat", *QUIT).path) as client:
        client.sendall(packets(b"sto"))
        client.sendall(packets(b"ne"))
        seen = b""
        while decode(seen)[0] != b"stone":
            seen += client.recv(100)
        client.sendall(b"0000")
        assert receive_all(client) == b"0000"


def test_truncated_quit_bytes_do_not_stop_the_server(shared_server):
    server = shared_server("cat", *QUIT)
    with connect(server.path) as client:
        client.sendall(packets(b"stop now"))
    server.wait_for_log("request incomplete")
    assert ask(server.path, b"hello") == (b"hello", True)


def test_empty_quit_bytes_match_the_empty_request(endpoint):
    """Also if the client does not wait for the response."""
    with Server(endpoint, "cat", "--quit-on", "") as server:
        assert ask(endpoint, b"x") == (b"x", True)
        with connect(endpoint) as client:
            client.sendall(message(b""))
        assert server.wait() == 0


MANY = 20
IDLE_WITH_MANY = f"""
from simpleipc_cli.server.dispatcher import Dispatcher

def idle_since(self, idle_since=Dispatcher.idle_since):
    return idle_since(self) if self._context.counters.accepted >= {MANY} else None

Dispatcher.idle_since = idle_since
"""
"""Code: a server counts as idle only once it has many connections."""


@pytest.mark.parametrize("way", ["--count", "--idle-timeout", "--quit-on"])
def test_a_server_that_stops_answers_connections_that_are_open(endpoint, folder, way):
    """Also connections in the backlog, opened before the path was removed."""
    value = {"--count": "1", "--idle-timeout": "100ms", "--quit-on": "stop"}[way]
    program = without_limits(*DRAIN, then=IDLE_WITH_MANY)
    with Server(endpoint, "cat", way, value, program=program) as server:
        with open_connections(endpoint, MANY) as clients:
            if way == "--idle-timeout":
                wait_until(lambda: not endpoint.exists(), "the idle timeout")
            else:
                clients[0].sendall(message(b"stop"))
                wait_until(lambda: not endpoint.exists(), "the stop to begin")
            for client in clients[1:]:
                client.sendall(message(b"hello"))
            assert {receive_all(client) for client in clients[1:]} == {message(b"hello")}
            clients[0].close()
        assert server.wait() == 0


def test_a_quit_request_leaves_no_file(endpoint, folder):
    command = [SIPC, "serve", endpoint, "--exec", "cat", "--quit-on", "quit", "-q"]
    with Program(command, env=environment()) as server:
        wait_until(lambda: is_listening(endpoint), "the server to listen")
        assert run_cli("send", endpoint, "-d", "quit").returncode == 0
        assert server.wait(TIMEOUT) == 0
    assert list(folder.iterdir()) == []
