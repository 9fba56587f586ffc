"""`sipc send --lines` together with what else `send` can do."""

from __future__ import annotations

import json
import os
import subprocess

from helpers.command import SIPC, Program, environment, sipc
from helpers.server import Server
from helpers.waiting import wait_until


def test_figures_tell_of_the_first_record_that_failed(endpoint):
    done = sipc("send", endpoint, "--lines", "--stats", input=b"1\n2\n")
    figures = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 4
    assert (figures["status"], figures["outcome"]) == (4, "path_not_found")
    assert "does not exist" in figures["error"]


def test_figures_add_up_all_records(endpoint):
    with Server(endpoint, "cat"):
        done = sipc("send", endpoint, "--lines", "-j", "2", "--stats", input=b"1\n22\n333\n")
    figures = json.loads(done.stderr.splitlines()[-1])
    assert (figures["bytes_sent"], figures["packets_received"]) == (6, 3)


def test_every_record_has_a_trace_of_its_own(endpoint, folder):
    with Server(endpoint, "cat"):
        sipc("send", endpoint, "--lines", "--trace-file", folder / "trace", input=b"1\n2\n3\n")
    lines = [line.split(" ") for line in (folder / "trace").read_text().splitlines()]
    assert len({line[1] for line in lines}) == 3
    assert sum(line[2:4] == [">", "sent"] for line in lines) == 6


def test_no_record_starts_no_server(endpoint, folder):
    done = sipc("send", endpoint, "--lines", "--spawn", f"touch {folder}/started", input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert os.listdir(folder) == []


def test_a_server_that_has_gone_is_started_again_for_the_next_record(endpoint):
    command = "sipc serve -q --count 2 --exec cat"
    lines = b"".join(b"%d\n" % number for number in range(7))
    done = sipc("send", endpoint, "--lines", "--spawn", command, input=lines)
    assert (done.returncode, done.stdout, done.stderr) == (0, lines, b"")
    sipc("send", endpoint, "-d", "the last one")  # 7 records leave one of 2 to come
    assert sipc("probe", "--wait-gone", "30s", endpoint).returncode == 0


def test_a_command_that_fails_is_not_tried_for_every_record(endpoint, folder):
    command = f"echo x >>{folder}/starts; exit 3"
    done = sipc("send", endpoint, "--lines", "--spawn", command, input=b"1\n2\n3\n")
    assert done.returncode == 1
    assert b"record 1: the --spawn command failed, exit status 3" in done.stderr
    assert (folder / "starts").read_text() == "x\n"


def test_max_time_ends_it_though_nobody_reads_its_messages(endpoint, folder):
    os.mkfifo(folder / "messages")
    messages = os.open(folder / "messages", os.O_RDWR)
    with Program(
        [SIPC, "send", endpoint, "--lines", "--max-time", "1s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=messages,
        env=environment(),
    ) as program:
        try:
            program.stdin.write(b"x\n" * 5000)
            program.stdin.close()
        except BrokenPipeError:
            program.stdin = None
        wait_until(lambda: program.poll() is not None, "its end")
    os.close(messages)
    assert program.returncode in {4, 6}
