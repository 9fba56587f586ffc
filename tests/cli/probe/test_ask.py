"""`sipc probe -d`: connected is not yet ready, so ask."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from time import monotonic

import pytest
from helpers.command import SIPC, environment, sipc
from helpers.scripted_server import endless_response, respond_with, scripted_server
from helpers.server import Server
from helpers.wire import message, packets, read_message

from simpleipc_cli.client import probe
from simpleipc_cli.deadline import Deadline

MIB = 1 << 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "answered"),
        (["--expect", "pong"], "answered as expected"),
        (["--expect-regex", "^p.ng$"], "answered as expected"),
    ],
    ids=["any answer", "a text", "an expression"],
)
def test_a_good_answer_is_status_0_and_a_line(endpoint, options, words):
    seen = []
    with scripted_server(endpoint, respond_with(message(b"pong"), seen)):
        done = sipc("probe", endpoint, "-d", "ping", *options)
    assert done.stdout == f"{endpoint}: listening, {words}\n".encode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert seen == [b"0008ping0000"]


def test_an_empty_request_is_one(endpoint):
    with Server(endpoint, "wc -c"):
        done = sipc("probe", endpoint, "-d", "", "--expect", "0")
        assert (done.returncode, done.stderr) == (0, b"")


BAD = {
    "another": (message(b"pang"), 10, "not answered as expected", 'at byte 1 expected "pong" but'),
    "cut off": (packets(b"pong"), 7, "answer cut off", "cut off without a flush"),
    "nothing": (b"", 7, "answer cut off", "cut off without a flush"),
    "malformed": (b"zzzz", 7, "answer malformed", "bad packet length"),
}


@pytest.mark.parametrize(("wire", "status", "words", "error"), BAD.values(), ids=BAD)
def test_a_bad_answer_has_its_status_its_words_and_a_line_that_says_more(
    endpoint, wire, status, words, error
):
    with scripted_server(endpoint, respond_with(wire)):
        done = sipc("probe", endpoint, "-d", "ping", "--expect", "pong")
    assert done.returncode == status
    assert done.stdout == f"{endpoint}: listening, {words}\n".encode()
    assert re.fullmatch(rb"sipc probe: [^\n]+: [^\n]+\n", done.stderr)
    assert error.encode() in done.stderr


@pytest.mark.parametrize(("wire", "status", "words", "error"), BAD.values(), ids=BAD)
def test_quiet_says_it_with_the_status_alone(endpoint, wire, status, words, error):
    with scripted_server(endpoint, respond_with(wire)):
        done = sipc("probe", "-q", endpoint, "-d", "ping", "--expect", "pong")
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.parametrize(("wire", "status", "words", "error"), BAD.values(), ids=BAD)
def test_json_tells_of_a_bad_answer(endpoint, wire, status, words, error):
    with scripted_server(endpoint, respond_with(wire)):
        done = sipc("probe", "--json", endpoint, "-d", "ping", "--expect", "pong")
    assert (done.returncode, done.stderr) == (status, b"")
    found = json.loads(done.stdout)
    assert (found["state"], found["answer"]) == ("listening", words)
    assert error in found["reason"]
    assert found["pid"] == os.getpid()
    assert found["answer_bytes"] == (4 if wire.startswith(b"0008") else 0)
    assert found["answer_seconds"] >= 0


def test_json_tells_of_a_good_answer(endpoint):
    with Server(endpoint, "cat"):
        found = json.loads(sipc("probe", "--json", endpoint, "-d", "ping").stdout)
    assert (found["answer"], found["answer_bytes"], found["reason"]) == ("answered", 4, None)


def test_json_tells_that_nobody_was_asked(endpoint):
    done = sipc("probe", "--json", endpoint, "-d", "ping")
    assert done.returncode == 4
    found = json.loads(done.stdout)
    assert found["state"] == "path not found"
    assert [found[f"answer{which}"] for which in ("", "_bytes", "_seconds")] == [None] * 3


def test_without_a_question_nothing_is_told_of_an_answer(endpoint):
    with Server(endpoint, "cat") as server:
        done = sipc("probe", "--json", endpoint)
        assert not [key for key in json.loads(done.stdout) if key.startswith("answer")]
        assert sipc("probe", endpoint).stdout == f"{endpoint}: listening\n".encode()
        assert "answered" not in server.log


def test_nobody_there_is_as_without_a_question(endpoint, folder):
    done = sipc("probe", endpoint, "-d", "ping", "--expect", "pong")
    assert (done.returncode, done.stderr) == (4, b"")
    assert done.stdout == f"{endpoint}: path not found\n".encode()
    (folder / "plain").touch()
    assert sipc("probe", folder / "plain", "-d", "ping").returncode == 5
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(endpoint))
        assert sipc("probe", endpoint, "-d", "ping").returncode == 3


def silent(connection):
    read_message(connection)
    assert connection.recv(1) == b"", "it hangs up"


@pytest.mark.parametrize(
    "conversation",
    [silent, endless_response(packets(bytes(4 * MIB))), endless_response(b"0004" * MIB)],
    ids=["silent", "endless", "endless and empty"],
)
def test_the_timeout_is_for_the_whole_question(endpoint, conversation):
    with scripted_server(endpoint, conversation):
        done = sipc("probe", endpoint, "-d", "ping", "-t", "300ms", timeout=30)
    assert done.returncode == 6
    assert done.stdout == f"{endpoint}: listening, not answered in time\n".encode()
    assert b"in time" in done.stderr


def test_the_timeout_is_for_a_request_that_does_not_get_through_too(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        big = "x" * 100_000
        done = sipc("probe", endpoint, "-d", big, "-t", "300ms", timeout=30)
    assert done.returncode == 6


def test_the_timeout_is_for_an_expression_that_takes_for_ever_too(endpoint):
    with Server(endpoint, "cat"):
        text = "a" * 60 + "b"
        command = ["-d", text, "--expect-regex", "(a|a)*$c", "-t", "1s"]
        done = sipc("probe", endpoint, *command, timeout=60)
    assert done.returncode == 6


def test_no_timeout_waits_as_long_as_it_takes(endpoint):
    with Server(endpoint, "sleep 0.5; cat"):
        done = sipc("probe", endpoint, "-d", "ping", "-t", "0", "--expect", "ping")
        assert (done.returncode, done.stderr) == (0, b"")


def test_waiting_for_a_server_is_not_part_of_the_question(endpoint):
    """The timeout counts from the try that succeeds."""
    tries, left = [], []

    def locate() -> str:
        tries.append(monotonic())
        if len(tries) == 3:
            listener.bind(str(endpoint))
            listener.listen()
        return str(endpoint)

    def question(stream, deadline) -> None:
        left.append(deadline.remaining())
        stream.close()

    with socket.socket(socket.AF_UNIX) as listener:
        finding = probe(locate, timeout=1000, wait=Deadline(30), on_connected=question)
        asked = monotonic()
    assert finding.error is None
    assert left[0] >= 1000 - (asked - tries[2])
    assert left[0] <= 1000


@pytest.mark.parametrize("option", ["--expect", "--expect-regex"])
def test_to_expect_without_asking_is_a_usage_error_that_says_what_to_do(endpoint, option):
    done = sipc("probe", endpoint, option, "")
    assert done.returncode == 2
    assert b"give --data" in done.stderr


def test_to_ask_whoever_should_be_gone_is_a_usage_error(endpoint):
    done = sipc("probe", endpoint, "-d", "x", "--wait-gone", "1s")
    assert done.returncode == 2
    assert b"not both" in done.stderr


def test_no_expression_is_a_usage_error(endpoint):
    assert sipc("probe", endpoint, "-d", "x", "--expect-regex", "(").returncode == 2


@pytest.mark.parametrize("options", [["--expect", "x"], ["--expect-regex", "y$"]])
def test_a_large_answer_stays_out_of_memory(endpoint, folder, options):
    with Server(endpoint, "head -c 300000000 /dev/zero; echo y"):
        command = ["prlimit", f"--data={100 * MIB}", SIPC, "probe", endpoint, "-d", "", "-t", "60s"]
        done = subprocess.run(
            [*command, *options], capture_output=True, env=environment(TMPDIR=str(folder))
        )
    assert done.returncode == (10 if "x" in options else 0), done.stderr
