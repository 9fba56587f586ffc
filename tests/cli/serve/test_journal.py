"""`sipc serve` whose stderr is systemd's journal: its lines carry their priority."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess

import pytest
from helpers.command import SIPC, Program, environment
from helpers.wire import ask

from simpleipc_cli.cli.line_writer import Priority
from simpleipc_cli.cli.stdio import with_priority

HANDLER = "read -r what; case $what in fail) exit 3;; linger) sleep 60 & ;; esac"
ALL_KINDS = ["<6>", "<6>", "<3>", "<4>", "<6>", "<7>"]
"""The prefixes of the lines from `log_of_a_server`."""


def name_of(descriptor: int, distance: int = 0) -> str:
    """Return JOURNAL_STREAM for this file, or for an inode `distance` further."""
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino + distance}"


def log_of_a_server(endpoint, ends: tuple[int, int], journal: str, *options) -> list[str]:
    """Return what a server writes to stderr: lines of all kinds, in a known order.

    `ends` are those of a pipe or a socket: to read, and to write, which is closed here.
    """
    reading, writing = ends
    with (
        open(reading) as log,
        Program(
            [SIPC, "serve", endpoint, "--exec", HANDLER, "-v", *options],
            stdin=subprocess.DEVNULL,
            stderr=writing,
            env=environment(JOURNAL_STREAM=journal),
        ) as server,
    ):
        os.close(writing)
        lines = [log.readline()]
        for request in (b"\n", b"fail\n", b"linger\n"):
            ask(endpoint, request)
            lines.append(log.readline())
        server.send_signal(signal.SIGUSR1)
        lines.append(log.readline())
        server.terminate()
        lines += log
        assert server.wait() == 0
    return [line.rstrip("\n") for line in lines]


def prefixes(lines: list[str]) -> list[str]:
    return [re.match("(<.>)*", line)[0] for line in lines]


def last_words(folder, *options, distance: int = 0) -> str:
    """Return what a server that cannot start writes to stderr, named by the variable or not."""
    reading, writing = os.pipe()
    arguments = [SIPC, "serve", folder / "none/sock", "--exec", "cat", *options]
    env = environment(JOURNAL_STREAM=name_of(writing, distance))
    with open(reading) as stderr:
        assert subprocess.run(arguments, stderr=writing, env=env).returncode == 4
        os.close(writing)
        return stderr.read()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_text_lines_for_the_journal_begin_with_their_priority(endpoint, kind):
    ends = os.pipe() if kind == "pipe" else tuple(end.detach() for end in socket.socketpair())
    lines = log_of_a_server(endpoint, ends, name_of(ends[1]))
    assert prefixes(lines) == ALL_KINDS
    assert lines[0] == f"<6>listening on {endpoint}"
    assert lines[1].endswith(": answered")
    assert lines[2].endswith(": handler failed: exit status 3")
    assert ": answered; the handler exited, but" in lines[3]
    assert lines[4].startswith("<6>counters: ")
    assert lines[5].startswith("<7>stopping: ")


def test_json_lines_for_the_journal_begin_with_their_priority(endpoint):
    ends = os.pipe()
    lines = log_of_a_server(endpoint, ends, name_of(ends[1]), "--log-format", "json")
    assert prefixes(lines) == ALL_KINDS
    events = [json.loads(line[len("<6>") :])["event"] for line in lines]
    assert events == ["message", "request", "request", "request", "stats", "message"]


@pytest.mark.parametrize("journal", ["", "1:1", "another file"])
def test_lines_have_no_prefix_if_journal_stream_names_another_file(endpoint, journal):
    """A process whose stderr was redirected inherits the variable."""
    ends = os.pipe()
    if journal == "another file":
        journal = name_of(ends[1], distance=1)
    lines = log_of_a_server(endpoint, ends, journal)
    assert prefixes(lines) == [""] * len(ALL_KINDS)


def test_an_error_that_ends_the_server_has_the_priority_error_in_the_journal(folder):
    error = last_words(folder)
    assert error.startswith(f"<3>sipc serve: there is no folder {folder}/none: ")
    assert error.count("\n") == 1
    assert last_words(folder, distance=1) == error.removeprefix("<3>")


def test_lines_in_a_log_file_have_no_prefix(folder):
    log = folder / "log"
    assert last_words(folder, "--log-file", log).startswith("<3>")
    assert re.fullmatch(r"\S+ sipc serve: there is no folder .*\n", log.read_text())


def test_each_line_of_a_message_of_several_lines_gets_the_prefix():
    assert with_priority("Traceback:\n  why", Priority.ERROR) == "<3>Traceback:\n<3>  why"
