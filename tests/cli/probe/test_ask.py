"""`sipc probe -d` sends a request: a server that accepts connections may not yet respond."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from time import monotonic

import pytest
from helpers.command import SIPC, assert_error_line, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall
from helpers.scripted_server import endless_response, respond_with, scripted_server, silent
from helpers.sending import EchoServer
from helpers.soak import soak
from helpers.sockets import stale_socket
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets, read_message

from simpleipc_cli import client
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.transport import Stream, connect

MIB = 1 << 20


def probe(endpoint, *options):
    """Run `sipc probe` without a time limit that a busy machine might reach."""
    return run_cli("probe", endpoint, "-t", "1h", *options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "answered"),
        (["--expect", "pong"], "answered as expected"),
        (["--expect-regex", "^p.ng$"], "answered as expected"),
    ],
    ids=["any answer", "a text", "an expression"],
)
def test_a_good_response_gives_status_0_and_one_line_of_output(endpoint, options, words):
    requests = []
    with scripted_server(endpoint, respond_with(message(b"pong"), requests)):
        done = probe(endpoint, "-d", "ping", *options)
    assert done.stdout == f"{endpoint}: listening, {words}\n".encode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert requests == [b"0008ping0000"]


def test_an_empty_request_is_sent(endpoint):
    requests = []
    with scripted_server(endpoint, respond_with(message(b"0"), requests)):
        done = probe(endpoint, "-d", "", "--expect", "0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert requests == [b"0000"]


BAD = {
    "another": (message(b"pang"), 10, "response not as expected", 'at byte 1 expected "pong" but'),
    "cut off": (packets(b"pong"), 7, "response truncated", "cut off without a flush"),
    "nothing": (b"", 7, "response truncated", "cut off without a flush"),
    "malformed": (b"zzzz", 7, "response malformed", "bad packet length"),
}


each_bad_response = pytest.mark.parametrize(
    ("wire", "status", "words", "error"), BAD.values(), ids=BAD
)


@each_bad_response
def test_a_bad_response_gives_an_exit_status_a_state_and_a_line_of_details(
    endpoint, wire, status, words, error
):
    with scripted_server(endpoint, respond_with(wire)):
        done = probe(endpoint, "-d", "ping", "--expect", "pong")
    line = f"{endpoint}: listening, {words}\n".encode()
    assert_error_line(done, status, error, stdout=line)


@each_bad_response
def test_a_quiet_probe_reports_a_bad_response_only_by_its_exit_status(
    endpoint, wire, status, words, error
):
    with scripted_server(endpoint, respond_with(wire)):
        done = probe(endpoint, "-q", "-d", "ping", "--expect", "pong")
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@each_bad_response
def test_the_json_output_describes_a_bad_response(endpoint, wire, status, words, error):
    with scripted_server(endpoint, respond_with(wire)):
        done = probe(endpoint, "--json", "-d", "ping", "--expect", "pong")
    assert (done.returncode, done.stderr) == (status, b"")
    found = json.loads(done.stdout)
    assert (found["state"], found["response"]) == ("listening", words)
    assert error in found["reason"]
    assert found["pid"] == os.getpid()
    assert found["response_bytes"] == (4 if wire.startswith(b"0008") else 0)
    assert found["response_seconds"] >= 0


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_the_json_output_describes_a_good_response(endpoint, run):
    with EchoServer(endpoint):
        found = json.loads(run("probe", "--json", endpoint, "-t", "1h", "-d", "ping").stdout)
    assert (found["response"], found["response_bytes"], found["reason"]) == ("answered", 4, None)


def test_the_json_output_says_that_no_request_was_sent(endpoint):
    done = probe(endpoint, "--json", "-d", "ping")
    assert done.returncode == 4
    found = json.loads(done.stdout)
    assert found["state"] == "path not found"
    assert [found[f"response{which}"] for which in ("", "_bytes", "_seconds")] == [None] * 3


def test_without_a_request_probe_sends_nothing_and_reports_no_response(endpoint):
    def conversation(connection):
        assert connection.recv(1) == b""

    with scripted_server(endpoint, conversation):
        done = probe(endpoint, "--json")
        assert not [key for key in json.loads(done.stdout) if key.startswith("response")]
        assert probe(endpoint).stdout == f"{endpoint}: listening\n".encode()


def test_a_missing_server_is_reported_the_same_with_and_without_a_request(endpoint, folder):
    done = probe(endpoint, "-d", "ping", "--expect", "pong")
    assert (done.returncode, done.stderr) == (4, b"")
    assert done.stdout == f"{endpoint}: path not found\n".encode()
    (folder / "plain").touch()
    assert probe(folder / "plain", "-d", "ping").returncode == 5
    stale_socket(endpoint)
    assert probe(endpoint, "-d", "ping").returncode == 3


@pytest.mark.parametrize(
    "conversation",
    [silent, endless_response(packets(bytes(4 * MIB))), endless_response(b"0004" * MIB)],
    ids=["silent", "endless", "endless and empty"],
)
def test_the_timeout_includes_the_response(endpoint, conversation):
    with scripted_server(endpoint, conversation):
        done = run_cli("probe", endpoint, "-d", "ping", "-t", "100ms")
    assert done.returncode == 6
    assert done.stdout == f"{endpoint}: listening, no response in time\n".encode()
    assert b"in time" in done.stderr


def test_the_timeout_includes_a_request_that_is_not_read(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        done = run_cli("probe", endpoint, "-d", "x" * 1_000_000, "-t", "100ms")
    assert done.returncode == 6


def test_the_timeout_ends_an_endless_search_of_the_response(endpoint):
    with EchoServer(endpoint):
        options = ["-d", "a" * 60 + "b", "--expect-regex", "(a|a)*$c", "-t", "300ms"]
        assert sipc("probe", endpoint, *options).returncode == 6


def test_without_a_timeout_probe_waits_for_the_response(endpoint):
    go = threading.Event()

    def conversation(connection):
        read_message(connection)
        assert go.wait(TIMEOUT)
        connection.sendall(message(b"ping"))

    with scripted_server(endpoint, conversation):
        command = [SIPC, "probe", endpoint, "-d", "ping", "-t", "0", "--expect", "ping"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment()) as client:
            wait_until(lambda: is_in_syscall(client.pid, "recvfrom"), "it to wait")
            go.set()
            assert client.wait() == 0


def test_the_timeout_counts_from_the_attempt_that_succeeds(endpoint):
    """The time of the response does not include the wait for a server."""
    attempts, left = [], []

    def attempt(limit: Deadline) -> Stream:
        attempts.append(monotonic())
        if len(attempts) == 3:
            listener.bind(str(endpoint))
            listener.listen()
        return connect(str(endpoint), limit)

    def question(stream, deadline) -> None:
        left.append(deadline.remaining())
        stream.close()

    with socket.socket(socket.AF_UNIX) as listener:
        finding = client.probe(attempt, timeout=1000, wait=Deadline(TIMEOUT), on_connected=question)
        asked = monotonic()
    assert finding.error is None
    assert left[0] >= 1000 - (asked - attempts[1])
    assert left[0] <= 1000


@pytest.mark.parametrize("option", ["--expect", "--expect-regex"])
def test_an_expectation_without_a_request_is_a_usage_error_that_names_the_remedy(endpoint, option):
    done = probe(endpoint, option, "")
    assert done.returncode == 2
    assert b"require --data" in done.stderr


def test_a_request_together_with_wait_gone_is_a_usage_error(endpoint):
    done = probe(endpoint, "-d", "x", "--wait-gone", "1s")
    assert done.returncode == 2
    assert b"cannot be combined" in done.stderr


def test_a_malformed_expression_is_a_usage_error(endpoint):
    assert probe(endpoint, "-d", "x", "--expect-regex", "(").returncode == 2


@pytest.mark.parametrize("options", [["--expect", "x"], ["--expect-regex", "y$"]])
@pytest.mark.parametrize("size", [100_000_000, soak(300_000_000)])
def test_a_large_response_is_not_held_in_memory(endpoint, folder, options, size):
    def conversation(connection):
        read_message(connection)
        piece = packets(bytes(1_000_000))
        for _ in range(size // 1_000_000):
            connection.sendall(piece)
        connection.sendall(message(b"y\n"))

    with scripted_server(endpoint, conversation):
        limit = ["prlimit", f"--data={64 * MIB}"]
        command = [*limit, SIPC, "probe", endpoint, "-d", "", "-t", "1h", *options]
        env = environment(TMPDIR=str(folder))
        done = subprocess.run(command, capture_output=True, env=env)
    assert done.returncode == (10 if "x" in options else 0), done.stderr
