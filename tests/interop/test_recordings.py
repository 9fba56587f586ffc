"""Both ends of sipc against conversations recorded between real Simple-IPC programs.

What they wrote is given to us byte by byte as it was; of what we write, the messages have
to be the same, not the packets: how a message is cut into these is up to each writer.
"""

from __future__ import annotations

import pytest
from helpers.git_test_tool import BIG, handler
from helpers.inprocess_cli import run_cli
from helpers.paths import WIRE
from helpers.scripted_server import RespondingServer
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, receive_all

ALL = sorted(path.stem for path in WIRE.glob("*.request"))
HELPERS = [name for name in ALL if not name.startswith("fsmonitor")]
"""The recorded requests that the handler of these tests can also answer."""


def recorded(name: str, end: str) -> bytes:
    return (WIRE / f"{name}.{end}").read_bytes()


def whole(wire: bytes) -> bytes:
    """The payload of a message that a flush ends."""
    payload, complete = decode(wire)
    assert complete
    return payload


def test_serve_answers_recorded_requests_as_git_answered_them(endpoint):
    with Server(endpoint, handler()) as server:
        for name in sorted(HELPERS, key=lambda name: name == "quit"):
            with connect(endpoint) as connection:
                connection.sendall(recorded(name, "request"))
                answer = receive_all(connection)
            assert whole(answer) == whole(recorded(name, "response")), name
        assert server.wait() == 0
        assert not endpoint.exists()


@pytest.mark.parametrize("name", ALL)
def test_send_understands_recorded_responses(endpoint, name):
    request = whole(recorded(name, "request"))
    with RespondingServer(endpoint, lambda _: recorded(name, "response")) as server:
        done = run_cli("send", endpoint, input=request)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == whole(recorded(name, "response"))
    assert server.requests == [request]


def test_other_requests_are_answered_as_the_helper_of_git_answers_them(endpoint):
    """The responses of the helper of git 2.55, recorded by hand."""
    with Server(endpoint, handler()):
        assert ask(endpoint, b"chunk") == ask(endpoint, b"big") == (BIG, True)
        assert ask(endpoint, b"sendbytes xxyy") == (b"errs:2\n", True)
        assert ask(endpoint, b"sendbytes ") == (b"rcvd:\x0000000000\n", True)
        assert ask(endpoint, b"sendbytes x\0y") == (b"rcvd:x00000001\n", True)
        assert ask(endpoint, b"foo\0bar") == (b"unhandled command: foo", True)
        assert ask(endpoint, b"") == (b"unhandled command: ", True)


def test_each_row_of_a_slow_response_is_sent_as_it_is_written(endpoint):
    with Server(endpoint, handler()) as server:
        with connect(endpoint) as connection:
            connection.sendall(message(b"slow"))
            wire = b""
            while len(wire) < 3 * 80:
                wire += connection.recv(1000)
        server.wait_for_log("client closed")
        wait_until(lambda: not server.connections(), "the connection to be closed")
    assert b"big: %075d\n" % 1 in wire
    assert b"big: %075d\n" % 999 not in wire
