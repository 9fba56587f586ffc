"""`sipc send --stats`: one JSON object on stderr, however it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from time import monotonic

import pytest
from helpers.command import SIPC, Program, sipc
from helpers.paths import ROOT
from helpers.procfs import is_in_syscall
from helpers.scripted_server import scripted_server
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import message, packets, read_message

KEYS = """
    path outcome status error connect_seconds first_byte_seconds total_seconds
    bytes_sent bytes_received packets_sent packets_received
""".split()


def figures(stderr: bytes, *, lines: int = 1) -> dict[str, object]:
    """The object, which is the first of so many lines."""
    assert stderr.count(b"\n") == lines, stderr
    found = json.loads(stderr.split(b"\n")[0])
    assert list(found) == KEYS
    times = [found[f"{name}_seconds"] for name in ("connect", "first_byte", "total")]
    reached = [time for time in times if time is not None]
    assert reached == sorted(reached)
    assert reached[0] >= 0
    assert times[2] is not None
    return found


def test_an_answer(endpoint):
    def conversation(connection):
        read_message(connection)
        connection.sendall(b"0004" + message(b"x" * 100_000) + b"0009extra")

    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, "--stats", "-d", "ping")
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


def test_an_empty_answer_to_an_empty_request(endpoint):
    with Server(endpoint, "true"):
        found = figures(sipc("send", endpoint, "--stats", "-d", "").stderr)
    assert [found[name] for name in KEYS if "_sent" in name or "_received" in name] == [0] * 4
    assert found["first_byte_seconds"] is not None, "the flush is a byte, too"


def test_large_ones_both_ways(endpoint):
    size = 20_000_000
    with Server(endpoint, "cat"):
        done = sipc("send", endpoint, "--stats", input=bytes(size))
    found = figures(done.stderr)
    assert len(done.stdout) == found["bytes_sent"] == found["bytes_received"] == size
    assert min(found["packets_sent"], found["packets_received"]) >= size / 65516


def test_nobody_there(endpoint):
    done = sipc("send", endpoint, "--stats", "-d", "x")
    assert done.returncode == 4
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"]) == ("path_not_found", 4)
    assert found["error"] == f"{endpoint} does not exist"
    assert (found["connect_seconds"], found["first_byte_seconds"]) == (None, None)
    assert done.stderr.split(b"\n")[1].startswith(b"sipc send: ")


@pytest.mark.parametrize(
    ("wire", "received"),
    [(b"", (0, 0)), (packets(b"hello"), (5, 1)), (b"0009he", (2, 0)), (b"0005xzzzz", (1, 1))],
    ids=["nothing", "a packet", "half a packet", "nonsense"],
)
def test_half_an_answer(endpoint, wire, received):
    def conversation(connection):
        read_message(connection)
        connection.sendall(wire)

    with scripted_server(endpoint, conversation):
        done = sipc("send", endpoint, "--stats", "-d", "x")
    assert done.returncode == 7
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"]) == ("protocol", 7)
    assert (found["bytes_received"], found["packets_received"]) == received
    assert (found["first_byte_seconds"] is None) == (wire == b"")


def test_too_late(endpoint):
    with Server(endpoint, "sleep 1000"):
        done = sipc("send", endpoint, "--stats", "-d", "x", "-m", "200ms")
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"], found["bytes_sent"]) == ("timeout", 6, 1)
    assert found["total_seconds"] >= 0.2


def test_not_as_expected(endpoint):
    with Server(endpoint, "cat"):
        done = sipc("send", endpoint, "--stats", "-d", "x", "--expect", "y")
    assert done.returncode == 10
    found = figures(done.stderr, lines=2)
    assert (found["outcome"], found["status"]) == ("not_as_expected", 10)


def test_a_request_or_a_trace_that_cannot_be_opened(endpoint, folder):
    for options in (["--data-file", "missing"], ["-d", "", "--trace-file", "no/such"]):
        done = sipc("send", endpoint, "--stats", *options, cwd=folder)
        assert done.returncode == 1
        assert figures(done.stderr, lines=2)["outcome"] == "failure"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_cut_short_by_a_signal(endpoint, number):
    with Server(endpoint, "cat; sleep 1000"):
        client = Program(
            [SIPC, "send", endpoint, "-d", "hello", "--stats"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert client.stdout.read(5) == b"hello"
        client.send_signal(number)
        assert client.wait() == 128 + number
        found = figures(client.stderr.read())
        client.stdout.close()
        client.stderr.close()
    assert (found["outcome"], found["status"]) == ("interrupted", 128 + number)
    assert (found["bytes_sent"], found["bytes_received"]) == (5, 5)


def test_a_pipeline_whose_reader_goes(endpoint):
    with Server(endpoint, "yes"):
        client = Program(
            [SIPC, "send", endpoint, "-d", "", "--stats"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert client.stdout.readline() == b"y\n"
        client.stdout.close()
        assert client.wait() == -signal.SIGPIPE
        found = figures(client.stderr.read())
        client.stderr.close()
    assert (found["outcome"], found["status"]) == ("interrupted", 141)
    assert found["bytes_received"] > 0


def test_times_count_from_the_start_waiting_for_input_included(endpoint):
    client = Program(
        [SIPC, "send", endpoint, "--stats"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_until(lambda: is_in_syscall(client.pid, "readv"), "it to wait for its input")
    began = monotonic()
    with Server(endpoint, "cat >/dev/null"):
        waited = monotonic() - began
        client.stdin.write(b"x")
        client.stdin.close()
        assert client.wait() == 0
    found = figures(client.stderr.read())
    client.stderr.close()
    assert found["connect_seconds"] >= waited


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_figures_that_nobody_can_read_do_no_harm(endpoint, how):
    with Server(endpoint, "cat"):
        command = f"{SIPC} send {endpoint} -d x --stats {how}"
        done = subprocess.run(["sh", "-c", command], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x", b"")


def test_a_path_that_is_no_utf_8_is_still_json(folder):
    done = sipc("send", f"{folder}/\udcff", "--stats", "-d", "x")
    assert figures(done.stderr, lines=2)["path"] == f"{folder}/\\udcff"


def test_a_usage_error_has_no_figures(endpoint):
    done = sipc("send", endpoint, "--stats", "-d", "x", "--data-file", "y")
    assert done.returncode == 2
    assert b"{" not in done.stderr


def test_the_man_page_names_every_figure():
    text = (ROOT / "man/sipc-send.1").read_text()
    for key in KEYS:
        assert re.search(rf"\b{key}\b", text), key
