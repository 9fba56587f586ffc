"""`sipc bench`: signals, endpoints that cannot be measured, conditions, and the exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys

import pytest
from helpers.bench_reports import MS, US
from helpers.benching import benching, counted_time, run_bench
from helpers.command import (
    assert_error_line,
    sipc,
)
from helpers.gate import Gate
from helpers.inprocess_cli import run_cli
from helpers.procfs import children
from helpers.scripted_server import RespondingServer
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import connect, message

# How it ends


@pytest.mark.parametrize(
    ("number", "status", "processes"),
    [
        (signal.SIGINT, 130, 1),
        (signal.SIGTERM, 143, 1),
        soak(signal.SIGHUP, 129, 1),
        (signal.SIGINT, 130, 2),
    ],
)
def test_a_signal_ends_the_load_and_a_partial_report_is_written(
    endpoint, folder, number, status, processes
):
    with RespondingServer(endpoint) as server:
        options = ["-c", 4, "-z", "1h", "--processes", processes, "--json", folder / "report"]
        with benching(endpoint, *options) as program:
            wait_until(lambda: len(server.requests) > 20, "some requests")
            os.killpg(program.pid, number)  # as a terminal does
            output, errors = program.communicate(timeout=TIMEOUT)
    assert (program.returncode, errors) == (status, b"")
    assert b"\nPartial: interrupted before the end of the load.\n" in output
    found = json.loads((folder / "report").read_bytes())
    assert found["partial"] is True
    counts = found["counts"]
    assert counts["started"] == counts["answered"] + counts["unfinished"]
    assert 0 <= len(server.requests) - counts["answered"] <= 4


def test_a_signal_ends_the_load_while_no_response_comes(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        with benching(endpoint, "-c", 2, "--timeout", 0) as program:
            wait_until(lambda: len(server.requests) == 2, "two requests")
            program.send_signal(signal.SIGINT)
            output, _ = program.communicate(timeout=TIMEOUT)
        assert program.returncode == 130
        assert b"2 sent, 0 answered, 0 failed, 2 unfinished" in output


def test_the_processes_of_a_killed_bench_end(endpoint):
    with RespondingServer(endpoint) as server:
        with benching(endpoint, "-c", 2, "-z", "1h", "--processes", 2) as program:
            wait_until(lambda: len(server.requests) > 20, "some requests")
            assert len(children(program.pid)) >= 2
            program.kill()
            program.communicate(timeout=TIMEOUT)


@pytest.mark.parametrize("kind", ["missing", "stale", "file"])
def test_an_invalid_endpoint_is_an_error_before_any_load(endpoint, folder, kind):
    if kind == "stale":
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(endpoint))
    elif kind == "file":
        endpoint.touch()
    done = run_bench(endpoint, "--json", folder / "report")
    assert done.returncode == {"missing": 4, "stale": 3, "file": 5}[kind]
    assert re.fullmatch(rb"sipc bench: [^\n]+: [^\n]+\n", done.stderr)
    if kind != "file":
        assert b"start a server there, or wait for one with sipc probe --wait\n" in done.stderr
    assert done.stdout == b""
    assert not (folder / "report").exists()


# Runs the program, whose other processes run another Python.
WITH_PYTHON = """
import sys
from simpleipc_cli.cli import main
sys.executable, *sys.argv = sys.argv[1:]
main()
"""


def test_a_signal_ends_bench_while_its_processes_start(endpoint, folder, script):
    with RespondingServer(endpoint) as server, Gate(folder / "go") as gate:
        python = script(f'#!/bin/sh\n{gate.wait}\nexec "{sys.executable}" "$@"\n', "python")
        program = [sys.executable, "-c", WITH_PYTHON, python, "sipc"]
        options = ["-c", 64, "--processes", 64, "-z", "1h"]
        with benching(endpoint, *options, program=program) as program:
            wait_until(lambda: children(program.pid), "the first process")
            program.send_signal(signal.SIGINT)
            gate.open()
            output, errors = program.communicate(timeout=TIMEOUT)
    assert (program.returncode, errors) == (130, b"")
    assert b"\nPartial: interrupted before the end of the load.\n" in output
    assert server.requests == []


def test_a_run_without_requests_is_a_failure(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        options = ["-R", "1000", "-c", "1", "-w", "100ms", "-z", "100ms", "--timeout", "300ms"]
        done = run_bench(endpoint, *options)
        server.go_on.set()
    assert done.returncode == 1
    assert b"sipc bench: no request was" in done.stderr


def test_the_error_for_a_busy_server_names_no_option_that_bench_lacks(endpoint):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            done = sipc("bench", endpoint, "-n", "1")
    assert_error_line(done, 3, "is busy")
    assert b"--wait" not in done.stderr


# Conditions


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("p98>5ms", "unknown figure 'p98'"),
        ("p99>5", "p99 cannot be '5'"),
        ("p99=5ms", "unknown operator '='"),
        ("rate", "no operator after rate"),
        ("", "unknown figure ''"),
    ],
)
def test_an_invalid_condition_is_refused_before_any_load(endpoint, expression, complaint):
    with RespondingServer(endpoint) as server:
        done = run_bench(endpoint, "--fail-if", "p50>1s", "--fail-if", expression)
    assert done.returncode == 2
    assert complaint in done.stderr.decode()
    assert server.requests == []


def test_bench_fails_if_a_condition_holds(endpoint):
    conditions = ["errors>0", "p50>1h", "rate>0", "requests!=400"]
    options = [word for each in conditions for word in ("--fail-if", each)]
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "400", *options)
    assert done.returncode == 10
    table = done.stdout.decode().partition("\nConditions\n")[2].splitlines()[1:5]
    results = [(line.split()[0], line.split()[-1]) for line in table]
    expected = ["passed", "passed", "failed", "passed"]
    assert results == list(zip(conditions, expected, strict=True))
    assert re.fullmatch(
        rb"sipc bench: fail if rate>0: rate is [\d.,]+/s: see the report\n", done.stderr
    )


def test_bench_succeeds_if_no_condition_holds(endpoint):
    with RespondingServer(endpoint):
        done = run_cli(
            "bench", endpoint, "-n", "9", "--fail-if", "errors > 0", "--fail-if", "p50>1h"
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_condition_on_a_percentile_of_too_few_samples_passes_if_the_bounds_decide(endpoint):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "20", "--fail-if", "p99>1h", "--fail-if", "p99<1ns")
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"^p99>1h +[^-\n]+ passed$", done.stdout, re.M)


def test_a_condition_without_a_result_fails_and_names_the_number_of_requests_that_it_needs(
    endpoint,
):
    def respond(request: bytes) -> bytes:
        if len(server.requests) == 1:  # so that the two longest times differ
            clock.advance(200 * MS)
        return message(request)

    with RespondingServer(endpoint, respond) as server, counted_time(US) as clock:
        done = run_bench(endpoint, "-n", "5", "--fail-if", "p99>100ms")
    assert done.returncode == 10
    assert re.fullmatch(
        rb"sipc bench: fail if p99>100ms: p99 is [^:]+ to [^:]+, which counts as failed:"
        rb" use -n 100 or more: see the report\n",
        done.stderr,
    )
    assert b"failed: use -n 100 or more\n" in done.stdout
