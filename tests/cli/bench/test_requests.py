"""`sipc bench`: its requests, its counts, and its report for people."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
from helpers.bench_reports import MS
from helpers.benching import bench_json, benching, counted_time, run_bench
from helpers.command import (
    SIPC,
    environment,
    sipc,
)
from helpers.scripted_server import RespondingServer
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message

# Requests


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ([], b""),
        (["-d", "ping"], b"ping"),
        (["--size", "100000"], bytes(100000)),
        (["--size", "0"], b""),
    ],
    ids=["nothing", "data", "size", "size 0"],
)
def test_the_given_number_of_requests_is_sent(endpoint, arguments, payload):
    with RespondingServer(endpoint) as server:
        found = bench_json(endpoint, "-n", "7", *arguments)
    assert server.requests == [payload] * 7
    counts = found["counts"]
    assert (counts["started"], counts["answered"], counts["failed"]) == (7, 7, 0)
    assert counts["bytes_out"] == counts["bytes_in"] == 7 * len(payload)


@pytest.mark.parametrize("source", ["file", "-"])
def test_the_request_can_come_from_a_file(endpoint, folder, source):
    (folder / "request").write_bytes(b"\0\xff\n")
    name = "-" if source == "-" else folder / "request"
    with RespondingServer(endpoint) as server:
        done = run_bench(endpoint, "-n", "2", "--data-file", name, input=b"\0\xff\n")
    assert done.returncode == 0, done.stderr
    assert server.requests == [b"\0\xff\n"] * 2


@pytest.mark.parametrize("processes", [1, 2])
def test_the_given_number_of_requests_is_in_flight(endpoint, processes):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        with benching(endpoint, "-c", 5, "-n", 20, "--processes", processes, "-q") as program:
            wait_until(lambda: len(server.requests) == 5, "five requests")
            server.go_on.set()
            assert program.wait(TIMEOUT) == 0
        assert len(server.requests) == 20


def test_an_open_loop_does_not_wait_for_responses(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        with benching(endpoint, "-R", 1000, "-n", 50, "-q") as program:
            wait_until(lambda: len(server.requests) == 50, "all requests without a response")
            server.go_on.set()
            assert program.wait(TIMEOUT) == 0


def test_bench_does_not_count_requests_of_the_warm_up(endpoint):
    with RespondingServer(endpoint) as server:
        found = bench_json(endpoint, "-R", "100", "-n", "5", "-w", "100ms")
    assert found["counts"]["answered"] == 5
    assert len(server.requests) == 15


def test_a_run_without_a_number_of_requests_ends_after_its_time(endpoint):
    with RespondingServer(endpoint) as server, counted_time(MS):
        found = bench_json(endpoint, "-z", "300ms", "-c", "2")
    assert found["counts"]["answered"] == len(server.requests) > 0
    assert found["elapsed"] >= 300 * MS


def test_a_run_takes_ten_seconds_by_default():
    assert b"[default: 10s, unless -n is given]" in b" ".join(run_bench("-h").stdout.split())


@pytest.mark.parametrize(("limit", "processes"), [(64, 1), (30, 4)])
def test_a_low_soft_limit_of_descriptors_is_raised(endpoint, limit, processes):
    command = f'ulimit -S -n {limit}; exec "{SIPC}" bench "{endpoint}" -q -c 80 -n 200'
    command += f" --processes {processes}"
    with RespondingServer(endpoint) as server:
        done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment())
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(server.requests) == 200


@pytest.mark.parametrize(
    ("limit", "processes", "what", "remedy"),
    [
        (64, 1, "80 at once need 104", "--processes or a lower --concurrency"),
        (40, 40, "40 processes need 104", "fewer --processes"),
    ],
)
def test_a_low_hard_limit_of_descriptors_is_an_error(endpoint, limit, processes, what, remedy):
    command = f'ulimit -n {limit}; exec "{SIPC}" bench "{endpoint}" -q -c 80 -n 200'
    command += f" --processes {processes}"
    with RespondingServer(endpoint) as server:
        done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment())
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"sipc bench: {what} descriptors, but the limit is {limit}: raise it with"
        f" ulimit -n, or use {remedy}\n"
    )
    assert server.requests == []


# Counts


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (b"", "truncated"),
        (b"0008pang", "truncated"),
        (b"nonsense", "protocol"),
        (message(b"pang"), "not as expected"),
    ],
    ids=["hang-up", "cut off", "nonsense", "another response"],
)
def test_failures_are_counted_by_kind_and_never_timed_as_responses(endpoint, response, kind):
    responses = iter([response, message(b"pong"), message(b"pong\n"), response] * 2)
    with RespondingServer(endpoint, respond=lambda _: next(responses)):
        found = bench_json(endpoint, "-n", "8", "--expect", "pong")
    assert {name: times["count"] for name, times in found["failures"].items()} == {kind: 4}
    assert found["times"]["service"]["count"] == 4


def test_timeouts_are_failures(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        done = run_bench(endpoint, "-n", "2", "-c", "2", "--timeout", "50ms")
        server.go_on.set()
    assert done.returncode == 1
    assert done.stderr == (
        b"sipc bench: no request was answered; most frequent failure: timeout:"
        b" test with sipc send\n"
    )
    assert re.search(rb"^timeout +2 ", done.stdout, re.M)


@pytest.mark.parametrize("loop", [["-c", 4], ["-R", 400]], ids=["closed", "open"])
def test_counts_add_up_when_the_server_restarts(endpoint, loop):
    with ExitStack() as stack:
        first = stack.enter_context(RespondingServer(endpoint))
        program = stack.enter_context(benching(endpoint, *loop, "-z", "1h", "--json", "-"))
        wait_until(lambda: len(first.requests) > 20, "some requests")
        first.stop()
        endpoint.unlink()
        second = stack.enter_context(RespondingServer(endpoint))
        wait_until(lambda: len(second.requests) > 20, "some requests more")
        program.send_signal(signal.SIGINT)
        found = json.loads(program.communicate(timeout=TIMEOUT)[0])
    counts = found["counts"]
    assert counts["started"] == sum(counts[end] for end in ("answered", "failed", "unfinished"))
    received = len(first.requests) + len(second.requests)
    assert counts["answered"] <= received <= counts["started"]
    assert received - counts["answered"] <= counts["unfinished"]
    assert set(found["failures"]) <= {"refused", "truncated"}


# The report for people


def test_quiet_prints_nothing(endpoint):
    with RespondingServer(endpoint):
        done = sipc("bench", endpoint, "-n", "9", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_without_a_terminal_there_is_no_colour_and_no_progress(endpoint):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "400", env=environment(TERM="xterm-256color"))
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    assert b"\r" not in done.stdout
    assert max(map(len, done.stdout.decode().splitlines())) <= 80


def test_the_report_is_ascii(endpoint):
    with RespondingServer(endpoint):
        done = sipc("bench", endpoint, "-n", "9", env=environment(PYTHONIOENCODING="ascii"))
    assert b"#" in done.stdout
    assert done.stdout.isascii()


def test_an_invalid_command_line_is_a_usage_error(endpoint):
    for arguments in (
        ["-d", "x", "--size", "1"], ["-d", "x", "--data-file", "x"], ["-c", "0"], ["-n", "0"],
        ["-R", "0"], ["-R", "-1"], ["--processes", "0"], ["-z", "x"], ["--size", "x"],
        ["-R", "nan"],
    ):  # fmt: skip
        assert run_bench(endpoint, *arguments).returncode == 2, arguments


# Where it is started


@pytest.mark.parametrize("isolated", [False, True])
def test_modules_in_the_working_directory_are_not_imported(endpoint, folder, isolated):
    (folder / "struct.py").write_text("raise ImportError('a stranger')\n")
    command = [sys.executable, "-I", "-m", "simpleipc_cli"] if isolated else [SIPC]
    command += ["bench", endpoint, "-n", "3", "-q", "--processes", "2"]
    with RespondingServer(endpoint):
        done = subprocess.run(command, capture_output=True, env=environment(), cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")
