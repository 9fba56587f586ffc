"""`sipc send --stats`: one JSON object on stderr, after every outcome."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import threading
from time import monotonic

import pytest
from helpers.command import SIPC, sipc
from helpers.inprocess_cli import run_cli
from helpers.paths import ROOT
from helpers.procfs import is_in_syscall
from helpers.scripted_server import endless_response, respond_with, scripted_server, wait_for_close
from helpers.sending import EchoServer, echo, feed, start_send
from helpers.waiting import wait_until
from helpers.wire import message, packets, read_message

KEYS = """
    path outcome status error connect_seconds first_byte_seconds total_seconds
    bytes_sent bytes_received packets_sent packets_received
""".split()


def figures(stderr: bytes, *, lines: int = 1) -> dict[str, object]:
    """Return the object in the first of this many lines."""
    assert stderr.count(b"\n") == lines, stderr
    found = json.loads(stderr.split(b"\n")[0])
    assert list(found) == KEYS
    times = [found[f"{name}_seconds"] for name in ("connect", "first_byte", "total")]
    reached = [time for time in times if time is not None]
    assert reached == sorted(reached)
    assert reached[0] >= 0
    assert times[2] is not None
    return found


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_the_statistics_describe_a_response(endpoint, run):
    wire = b"0004" + message(b"x" * 100_000) + b"0009extra"
    with scripted_server(endpoint, respond_with(wire)):
        done = run("send", endpoint, "--stats", "-d", "ping")
    assert (done.returncode, done.stdout) == (0, b"x" * 100_000)
    found = figures(done.stderr)
    for name in ("connect", "first_byte", "total"):
        assert found.pop(f"{name}_seconds") is not None
    assert found == {
        "path": str(endpoint),
        "outcome": "answered",
        "status": 0,
        "error": None,
        "bytes_sent": 4,
        "packets_sent": 1,
        "bytes_received": 100_000,
        "packets_received": 3,
    }


def test_the_statistics_describe_an_empty_response_to_an_empty_request(endpoint):
    with EchoServer(endpoint):
        found = figures(run_cli("send", endpoint, "--stats", "-d", "").stderr)
    assert [found[name] for name in KEYS if "_sent" in name or "_received" in name] == [0] * 4
    assert found["first_byte_seconds"] is not None, "the flush is a byte, too"


def test_the_statistics_describe_a_large_request_and_response(endpoint):
    size = 5_000_000
    with scripted_server(endpoint, echo):
        done = run_cli("send", endpoint, "--stats", input=bytes(size))
    found = figures(done.stderr)
    assert len(done.stdout) == found["bytes_sent"] == found["bytes_received"] == size
    assert min(found["packets_sent"], found["packets_received"]) >= size / 65516


def test_the_statistics_describe_a_missing_server(endpoint):
    done = run_cli("send", endpoint, "--stats", "-d", "x")
    assert done.returncode == 4
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"]) == ("path_not_found", 4)
    assert found["error"] == f"{endpoint} does not exist"
    assert (found["connect_seconds"], found["first_byte_seconds"]) == (None, None)
    assert done.stderr.split(b"\n")[1].startswith(b"sipc send: ")


@pytest.mark.parametrize(
    ("wire", "received"),
    [(b"", (0, 0)), (packets(b"hello"), (5, 1)), (b"0009he", (2, 0)), (b"0005xzzzz", (1, 1))],
    ids=["nothing", "a packet", "half a packet", "malformed"],
)
def test_the_statistics_describe_a_truncated_or_malformed_response(endpoint, wire, received):
    with scripted_server(endpoint, respond_with(wire)):
        done = run_cli("send", endpoint, "--stats", "-d", "x")
    assert done.returncode == 7
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"]) == ("protocol", 7)
    assert (found["bytes_received"], found["packets_received"]) == received
    assert (found["first_byte_seconds"] is None) == (wire == b"")


def test_the_statistics_describe_a_response_that_is_too_late(endpoint, max_time):
    received = threading.Event()

    def conversation(connection):
        read_message(connection)
        received.set()
        wait_for_close(connection)

    max_time.is_over = received.is_set
    with scripted_server(endpoint, conversation):
        done = run_cli("send", endpoint, "--stats", "-d", "x", "-m", "1h")
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"], found["bytes_sent"]) == ("timeout", 6, 1)
    assert found["total_seconds"] > found["connect_seconds"]


def test_the_statistics_describe_a_response_that_is_not_as_expected(endpoint):
    with EchoServer(endpoint):
        done = run_cli("send", endpoint, "--stats", "-d", "x", "--expect", "y")
    assert done.returncode == 10
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"]) == ("not_as_expected", 10)


@pytest.mark.parametrize(
    "options", [["--data-file", "missing"], ["-d", "", "--trace-file", "no/such"]], ids=" ".join
)
def test_the_statistics_describe_a_request_or_a_trace_that_cannot_be_opened(
    endpoint, folder, options
):
    done = run_cli("send", endpoint, "--stats", *options, cwd=folder)
    assert done.returncode == 1
    assert figures(done.stderr, lines=2)["outcome"] == "failure"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_statistics_describe_an_exchange_that_a_signal_ends(endpoint, number):
    with scripted_server(endpoint, echo):
        with start_send(endpoint, "--stats", stderr=subprocess.PIPE) as client:
            feed(client, b"hello")
            assert client.stdout.read(5) == b"hello"
            client.send_signal(number)
            assert client.wait() == 128 + number
            found = figures(client.stderr.read())
    assert (found["outcome"], found["status"]) == ("interrupted", 128 + number)
    assert (found["bytes_sent"], found["bytes_received"]) == (5, 5)


def test_the_statistics_describe_an_exchange_that_a_signal_ends_while_no_file_can_be_opened(
    endpoint,
):
    """Python can then load no module either."""
    with scripted_server(endpoint, echo):
        with start_send(endpoint, "--stats", stderr=subprocess.PIPE) as client:
            feed(client, b"hello")
            assert client.stdout.read(5) == b"hello"
            resource.prlimit(client.pid, resource.RLIMIT_NOFILE, (3, 3))
            client.send_signal(signal.SIGTERM)
            assert client.wait() == 143
            assert figures(client.stderr.read())["outcome"] == "interrupted"


def test_the_statistics_describe_a_pipeline_whose_reader_ends(endpoint):
    with scripted_server(endpoint, endless_response(packets(b"y\n" * 1000))):
        with start_send(endpoint, "-d", "", "--stats", stderr=subprocess.PIPE) as client:
            assert client.stdout.readline() == b"y\n"
            client.stdout.close()
            assert client.wait() == -signal.SIGPIPE
            found = figures(client.stderr.read())
    assert (found["outcome"], found["status"]) == ("interrupted", 141)
    assert found["bytes_received"] > 0


def test_times_count_from_the_start_and_include_the_wait_for_input(endpoint):
    with (
        EchoServer(endpoint),
        start_send(endpoint, "--stats", stderr=subprocess.PIPE) as client,
    ):
        wait_until(lambda: is_in_syscall(client.pid, "readv"), "it to wait for its input")
        began = monotonic()
        wait_until(lambda: monotonic() > began + 0.05, "some time to pass")
        waited = monotonic() - began
        feed(client, b"x")
        client.stdin.close()
        assert client.wait() == 0
        found = figures(client.stderr.read())
    assert found["connect_seconds"] >= waited


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_statistics_that_cannot_be_written_do_not_change_the_exit_status(endpoint, how):
    with EchoServer(endpoint):
        command = f"{SIPC} send {endpoint} -d x --stats {how}"
        done = subprocess.run(["sh", "-c", command], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x", b"")


def test_a_path_that_is_not_utf_8_gives_valid_json(folder):
    done = run_cli("send", f"{folder}/\udcff", "--stats", "-d", "x")
    assert figures(done.stderr, lines=2)["path"] == f"{folder}/\\udcff"


def test_a_usage_error_has_no_statistics(endpoint):
    done = run_cli("send", endpoint, "--stats", "-d", "x", "--data-file", "y")
    assert done.returncode == 2
    assert b"{" not in done.stderr


def test_the_man_page_names_every_field_of_the_statistics():
    text = (ROOT / "man/sipc-send.1").read_text()
    for key in KEYS:
        assert re.search(rf"\b{key}\b", text), key
