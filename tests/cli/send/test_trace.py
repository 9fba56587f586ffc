"""`sipc send --trace` and `--trace-file` show every packet, and change no output."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading

import pytest
from helpers.command import sipc
from helpers.inprocess_cli import run_cli
from helpers.scripted_server import endless_response, respond_with, scripted_server
from helpers.sending import echo, feed, start_send
from helpers.soak import soak
from helpers.traces import trace_events
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import decode, message, packets, read_message

MIB = 1 << 20


PING = [
    '> sent 0008 (8 bytes): "ping"',
    "> sent 0000: flush",
    r'< received 000a (10 bytes): "pong\n\x1b"',
    "< received 0000: flush",
    "= closed: sent bytes=12 packets=1, received bytes=14 packets=1",
]


@pytest.mark.parametrize("where", ["stderr", "file", "both"])
def test_every_packet_of_both_directions_is_in_the_trace(endpoint, folder, where):
    run = sipc if where == "both" else run_cli
    file = folder / "trace"
    options = [] if where == "file" else ["--trace"]
    options += [] if where == "stderr" else ["--trace-file", file]
    with scripted_server(endpoint, respond_with(message(b"pong\n\x1b"))):
        done = run("send", endpoint, *options, input=b"ping")
    assert (done.returncode, done.stdout) == (0, b"pong\n\x1b")
    for trace in ([done.stderr] if where != "file" else []) + (
        [file.read_bytes()] if where != "stderr" else []
    ):
        first, *rest = trace_events(trace)
        pid = os.getpid()
        ids = f"uid={os.getuid()} gid={os.getgid()}"
        assert first == f'= connected to "{endpoint}": pid={pid} {ids}'
        assert rest == PING
    if where == "file":
        assert done.stderr == b""


@pytest.mark.parametrize("size", [0, 1, 2 * MIB])
def test_tracing_changes_nothing_on_the_wire(endpoint, size):
    payload = os.urandom(size)
    requests = []
    for options in ([], ["--trace"]):
        with scripted_server(endpoint, respond_with(message(payload), requests)):
            done = run_cli("send", endpoint, *options, input=payload)
        endpoint.unlink()
        assert (done.returncode, done.stdout) == (0, payload)
    plain, traced = requests
    assert plain == traced
    assert decode(traced) == (payload, True)
    assert f"sent bytes={len(plain)} " in trace_events(done.stderr)[-1]
    received = [line for line in trace_events(done.stderr) if line.startswith("< received")]
    assert len(received) == -(-size // 65516) + 1


def test_a_response_that_arrives_byte_by_byte_has_one_line_for_each_packet(endpoint):
    def conversation(connection):
        read_message(connection)
        for byte in b"0004" + message(b"hello"):
            connection.sendall(bytes([byte]))

    with scripted_server(endpoint, conversation):
        done = run_cli("send", endpoint, "-d", "", "--trace")
    assert done.stdout == b"hello"
    assert trace_events(done.stderr)[1:] == [
        "> sent 0000: flush",
        "< received 0004 (4 bytes): empty",
        '< received 0009 (9 bytes): "hello"',
        "< received 0000: flush",
        "= closed: sent bytes=4 packets=0, received bytes=17 packets=2",
    ]


@pytest.mark.parametrize("rounds", [20, soak(200)])
def test_a_response_is_never_in_the_trace_before_its_request(endpoint, folder, rounds):
    """One thread writes and another reads: the trace must not reorder their lines."""
    trace = folder / "trace"

    def conversation(connection):
        received = bytearray()
        for number in range(rounds):
            while not received.endswith(b"%04d" % number):
                piece = connection.recv(1 << 20)
                assert piece
                received += piece
            connection.sendall(packets(b"%04d" % number))
        connection.sendall(b"0000")

    with (
        scripted_server(endpoint, conversation),
        start_send(endpoint, "--trace-file", trace) as client,
    ):
        for number in range(rounds):
            feed(client, b"x" * (number % 50 * 10_000) + b"%04d" % number)
            assert client.stdout.read(4) == b"%04d" % number
        client.stdin.close()
        assert client.wait() == 0
    lines = [line.split(" ") for line in trace.read_text().splitlines()]
    directions = re.sub("(.)\\1*", r"\1", "".join(line[2] for line in lines))
    assert directions.startswith("=" + "><" * rounds)
    times = [line[0] for line in lines]
    assert times == sorted(times)


EXPECTED = "expected 0000, or 0004 to fff0, in hexadecimal"
BROKEN = {
    "nothing": (b"", ["truncated: end of stream without a flush, after 0 bytes"]),
    "half a header": (b"00", ["truncated: end of stream inside a packet's length, after 2 bytes"]),
    "half a packet": (
        b"0009wo",
        ["truncated: end of stream inside a packet of 9 bytes, 3 missing, after 6 bytes"],
    ),
    "malformed": (
        b"zz\x1b\nabc",
        [
            r"malformed: bad packet length 'zz\x1b\n' at byte 0: " + EXPECTED,
            'not decoded (3 bytes): "abc"',
        ],
    ),
    "a delim": (
        b"0001",
        ["malformed: a delim packet (0001) at byte 0 is not part of Simple-IPC: " + EXPECTED],
    ),
}


@pytest.mark.parametrize(("wire", "events"), BROKEN.values(), ids=BROKEN)
def test_a_defect_of_a_response_is_in_the_trace(endpoint, folder, wire, events):
    with scripted_server(endpoint, respond_with(wire)):
        done = run_cli("send", endpoint, "-d", "x", "--trace-file", folder / "trace")
    assert done.returncode == 7
    assert done.stderr.count(b"\n") == 1
    found = trace_events((folder / "trace").read_bytes())
    assert found[3:-1] == [f"< received {event}" for event in events]
    assert found[-1].startswith("= closed: sent bytes=9 packets=1")


def test_bytes_after_the_response_are_in_the_trace(endpoint):
    with scripted_server(endpoint, respond_with(b"00000009extra")):
        done = run_cli("send", endpoint, "-d", "", "--trace")
    assert done.returncode == 0
    assert '< received 0009 (9 bytes) after the flush: "extra"' in trace_events(done.stderr)


def test_the_trace_shows_that_the_server_closed_while_the_client_wrote(endpoint):
    with scripted_server(endpoint, lambda connection: connection.recv(1)):
        done = run_cli("send", endpoint, "--trace", input=bytes(5 * MIB))
    assert done.returncode == 7
    trace, error = done.stderr.rsplit(b"\n", 2)[:2]
    assert error.startswith(b"sipc send: the message was cut off")
    events = trace_events(trace)
    assert "< received truncated: end of stream without a flush, after 0 bytes" in events
    assert any(event.startswith("> sent unfinished: ") for event in events)


def test_the_trace_shows_that_the_server_has_stopped_reading(endpoint, folder):
    trace = folder / "trace"
    shut = threading.Event()

    def conversation(connection):
        connection.recv(5)
        connection.shutdown(socket.SHUT_RD)
        shut.set()
        wait_until(lambda: b"not sent" in trace.read_bytes(), "a write to be refused")
        connection.sendall(message(b"enough"))

    with (
        scripted_server(endpoint, conversation),
        start_send(endpoint, "--trace-file", trace) as client,
    ):
        feed(client, b"x")
        assert shut.wait(TIMEOUT)
        feed(client, b"y")
        client.stdin.close()
        assert client.stdout.read() == b"enough"
        assert client.wait() == 0
    assert trace_events(trace.read_bytes())[1:4] == [
        '> sent 0005 (5 bytes): "x"',
        "> not sent: the peer has closed the connection",
        '< received 000a (10 bytes): "enough"',
    ]


def test_an_exchange_that_a_signal_ends_is_in_the_trace(endpoint, folder):
    trace = folder / "trace"
    with scripted_server(endpoint, echo), start_send(endpoint, "--trace-file", trace) as client:
        feed(client, b"hello")
        assert client.stdout.read(5) == b"hello"
        client.send_signal(signal.SIGTERM)
        assert client.wait() == 143
    assert trace_events(trace.read_bytes())[1:] == [
        '> sent 0009 (9 bytes): "hello"',
        '< received 0009 (9 bytes): "hello"',
        "> sent unfinished: without a flush, after 9 bytes",
        "< received unfinished: without a flush, after 9 bytes",
        "= closed: sent bytes=9 packets=1, received bytes=9 packets=1",
    ]


def test_the_trace_is_complete_when_sigpipe_ends_the_client(endpoint, folder):
    trace = folder / "trace"
    with (
        scripted_server(endpoint, endless_response(packets(b"y\n" * 1000))),
        start_send(endpoint, "-d", "", "--trace-file", trace) as client,
    ):
        assert client.stdout.readline() == b"y\n"
        client.stdout.close()
        assert client.wait() == -signal.SIGPIPE
    assert trace_events(trace.read_bytes())[-1].startswith("= closed: ")
