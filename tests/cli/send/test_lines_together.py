"""`sipc send --lines` together with other options of `send`."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from helpers.command import Program, sipc
from helpers.inprocess_cli import run_cli
from helpers.sending import EchoServer, send_lines
from helpers.soak import soak
from helpers.spawning import Spawning


def test_the_statistics_describe_the_first_record_that_failed(endpoint):
    done = run_cli("send", endpoint, "--lines", "--stats", input=b"1\n2\n")
    figures = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 4
    assert (figures["status"], figures["outcome"]) == (4, "path_not_found")
    assert "does not exist" in figures["error"]


def test_the_statistics_are_the_sums_over_all_records(endpoint):
    with EchoServer(endpoint):
        done = run_cli("send", endpoint, "--lines", "-j", 2, "--stats", input=b"1\n22\n333\n")
    figures = json.loads(done.stderr.splitlines()[-1])
    assert (figures["bytes_sent"], figures["packets_received"]) == (6, 3)


def test_every_record_has_a_separate_trace(endpoint, folder):
    trace = folder / "trace"
    with EchoServer(endpoint):
        run_cli("send", endpoint, "--lines", "--trace-file", trace, input=b"1\n2\n3\n")
    lines = [line.split(" ") for line in trace.read_text().splitlines()]
    assert len({line[1] for line in lines}) == 3
    assert sum(line[2:4] == [">", "sent"] for line in lines) == 6


def test_an_input_without_records_starts_no_server(endpoint, folder):
    done = run_cli("send", endpoint, "--lines", "--spawn", f"touch {folder}/started", input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("count", [3, soak(7)])
def test_a_server_that_has_ended_is_started_again_for_the_next_record(endpoint, count):
    command = "sipc serve -q --count 2 --exec cat"
    records = b"".join(b"%d\n" % number for number in range(count))
    with Spawning(endpoint) as spawning:
        options = ["--lines", "--spawn", command, "--wait", "1h"]
        done = sipc("send", endpoint, *options, input=records, env=spawning.environment())
        assert (done.returncode, done.stdout, done.stderr) == (0, records, b"")


def test_a_command_that_fails_is_not_started_again_for_every_record(endpoint, folder):
    command = f"echo x >>{folder}/starts; exit 3"
    done = run_cli("send", endpoint, "--lines", "--spawn", command, input=b"1\n2\n3\n")
    assert done.returncode == 1
    assert b"record 1: the server's command failed, exit status 3" in done.stderr
    assert (folder / "starts").read_text() == "x\n"


def test_max_time_ends_send_though_its_error_messages_are_not_read(endpoint):
    reader, writer = os.pipe()
    with (
        Program(["yes"], stdout=subprocess.PIPE) as yes,
        send_lines(
            *(endpoint, "--max-time", "300ms"),
            stdin=yes.stdout,
            stdout=subprocess.DEVNULL,
            stderr=writer,
        ) as client,
    ):
        yes.stdout.close()
        assert client.wait() in {4, 6}
    os.close(reader)
    os.close(writer)
