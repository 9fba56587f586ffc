"""`sipc send --trace` and `--trace-file`: the wire is seen, and nothing else changes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading

import pytest
from helpers.command import SIPC, Program, sipc
from helpers.scripted_server import respond_with, scripted_server
from helpers.server import Server
from helpers.traces import trace_events
from helpers.waiting import wait_until
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
def test_every_packet_is_seen_both_ways_and_the_answer_alone_is_printed(endpoint, folder, where):
    file = folder / "trace"
    options = [] if where == "file" else ["--trace"]
    options += [] if where == "stderr" else ["--trace-file", file]
    with scripted_server(endpoint, respond_with(message(b"pong\n\x1b"))):
        done = sipc("send", endpoint, *options, input=b"ping")
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


@pytest.mark.parametrize("size", [0, 1, 5 * MIB])
def test_tracing_changes_nothing_on_the_wire(endpoint, folder, size):
    payload = os.urandom(size)
    (folder / "request").write_bytes(payload)
    seen = []
    for options in ([], ["--trace"]):
        with scripted_server(endpoint, respond_with(message(payload), seen)):
            done = sipc("send", endpoint, "--data-file", folder / "request", *options)
        endpoint.unlink()
        assert (done.returncode, done.stdout) == (0, payload)
    plain, traced = seen
    assert plain == traced
    assert decode(traced) == (payload, True)
    assert f"sent bytes={len(plain)} " in trace_events(done.stderr)[-1]
    received = [line for line in trace_events(done.stderr) if line.startswith("< received")]
    assert len(received) == -(-size // 65516) + 1


def test_an_answer_one_byte_at_a_time_is_one_line_a_packet(endpoint):
    def conversation(connection):
        read_message(connection)
        for byte in b"0004" + message(b"hello"):
            connection.sendall(bytes([byte]))

    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, "-d", "", "--trace")
    assert done.stdout == b"hello"
    assert trace_events(done.stderr)[1:] == [
        "> sent 0000: flush",
        "< received 0004 (4 bytes): empty",
        '< received 0009 (9 bytes): "hello"',
        "< received 0000: flush",
        "= closed: sent bytes=4 packets=0, received bytes=17 packets=2",
    ]


def test_an_answer_is_never_told_before_the_request_that_it_answers(endpoint, folder):
    """Another thread writes than reads; with one processor and luck it would come too late."""
    trace = folder / "trace"
    rounds = 50

    def conversation(connection):
        for number in range(rounds):
            while not connection.recv(1 << 20).endswith(b"%04d" % number):
                pass
            connection.sendall(packets(b"%04d" % number))
        connection.sendall(b"0000")

    with scripted_server(endpoint, conversation):
        client = Program(
            [SIPC, "send", endpoint, "--trace-file", trace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(rounds):
            client.stdin.write(b"x" * (number * 10_000) + b"%04d" % number)
            client.stdin.flush()
            assert client.stdout.read(4) == b"%04d" % number
        client.stdin.close()
        assert client.wait() == 0
        client.stdout.close()
    told = trace.read_text().splitlines()
    directions = re.sub("(.)\\1*", r"\1", "".join(line.split(" ")[2] for line in told))
    assert directions.startswith("=" + "><" * rounds)
    times = [line.split(" ")[0] for line in told]
    assert times == sorted(times)


EXPECTED = "expected 0000, or 0004 to fff0, in hexadecimal"
BROKEN = {
    "nothing": (b"", ["cut off: end of stream without a flush, after 0 bytes"]),
    "half a header": (b"00", ["cut off: end of stream inside a packet's length, after 2 bytes"]),
    "half a packet": (
        b"0009wo",
        ["cut off: end of stream inside a packet of 9 bytes, 3 missing, after 6 bytes"],
    ),
    "nonsense": (
        b"zz\x1b\nabc",
        [
            r"malformed: bad packet length 'zz\x1b\n' at byte 0: " + EXPECTED,
            'not understood (3 bytes): "abc"',
        ],
    ),
    "a delim": (
        b"0001",
        [
            "malformed: a delim packet (0001) at byte 0 is not part of Simple-IPC: " + EXPECTED,
        ],
    ),
}


@pytest.mark.parametrize(("wire", "told"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_an_answer_is_in_the_trace(endpoint, folder, wire, told):
    with scripted_server(endpoint, respond_with(wire)):
        done = sipc("send", endpoint, "-d", "x", "--trace-file", folder / "trace")
    assert done.returncode == 7
    assert done.stderr.count(b"\n") == 1
    found = trace_events((folder / "trace").read_bytes())
    assert found[3:-1] == [f"< received {line}" for line in told]
    assert found[-1].startswith("= closed: sent bytes=9 packets=1")


def test_bytes_behind_the_answer_are_in_the_trace(endpoint):
    with scripted_server(endpoint, respond_with(b"00000009extra")):
        done = sipc("send", endpoint, "-d", "", "--trace")
    assert done.returncode == 0
    assert '< received 0009 (9 bytes) behind the flush: "extra"' in trace_events(done.stderr)


def test_a_server_that_hangs_up_while_we_write_is_in_the_trace(endpoint):
    with scripted_server(endpoint, lambda connection: connection.recv(1)):
        done = sipc("send", endpoint, "--trace", input=bytes(5 * MIB))
    assert done.returncode == 7
    trace, error = done.stderr.rsplit(b"\n", 2)[:2]
    assert error.startswith(b"sipc send: the message was cut off")
    told = trace_events(trace)
    assert "< received cut off: end of stream without a flush, after 0 bytes" in told
    assert any(event.startswith("> sent unfinished: ") for event in told)


def test_a_server_that_reads_no_more_is_in_the_trace(endpoint, folder):
    trace = folder / "trace"
    deaf = threading.Event()

    def conversation(connection):
        connection.recv(5)
        connection.shutdown(socket.SHUT_RD)
        deaf.set()
        wait_until(lambda: b"not sent" in trace.read_bytes(), "a write to be refused")
        connection.sendall(message(b"enough"))

    with scripted_server(endpoint, conversation):
        command = [SIPC, "send", endpoint, "--trace-file", trace]
        with Program(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            client.stdin.write(b"x")
            client.stdin.flush()
            assert deaf.wait(30)
            client.stdin.write(b"y")
            client.stdin.close()
            assert client.stdout.read() == b"enough"
            assert client.wait() == 0
    assert trace_events(trace.read_bytes())[1:4] == [
        '> sent 0005 (5 bytes): "x"',
        "> not sent: the other end has hung up",
        '< received 000a (10 bytes): "enough"',
    ]


def test_what_a_signal_cut_short_is_in_the_trace(endpoint, folder):
    trace = folder / "trace"
    with Server(endpoint, "cat"):
        client = Program(
            [SIPC, "send", endpoint, "--trace-file", trace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        client.stdin.write(b"hello")
        client.stdin.flush()
        assert client.stdout.read(5) == b"hello"
        client.send_signal(signal.SIGTERM)
        assert client.wait() == 143
        client.stdin.close()
        client.stdout.close()
    assert trace_events(trace.read_bytes())[1:] == [
        '> sent 0009 (9 bytes): "hello"',
        '< received 0009 (9 bytes): "hello"',
        "> sent unfinished: without a flush, after 9 bytes",
        "< received unfinished: without a flush, after 9 bytes",
        "= closed: sent bytes=9 packets=1, received bytes=9 packets=1",
    ]


def test_a_reader_that_goes_away_ends_send_by_sigpipe_and_the_trace_properly(endpoint, folder):
    trace = folder / "trace"
    with Server(endpoint, "yes"):
        command = [SIPC, "send", endpoint, "-d", "", "--trace-file", trace]
        client = Program(command, stdout=subprocess.PIPE)
        assert client.stdout.readline() == b"y\n"
        client.stdout.close()
        assert client.wait() == -signal.SIGPIPE
    assert trace_events(trace.read_bytes())[-1].startswith("= closed: ")
