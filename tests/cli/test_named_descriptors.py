"""/dev/stdin, /dev/stdout, /dev/stderr, /dev/fd/N and - mean the same for every option."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest
from helpers.background import Background
from helpers.command import SIPC, Program, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.server import Server
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, is_listening, pid_of_listener

INPUTS = ["-", soak("/dev/stdin"), "/dev/fd/0"]
OUTPUTS = ["-", soak("/dev/stdout"), "/dev/fd/1"]
ERRORS = [soak("/dev/stderr"), "/dev/fd/2"]


@pytest.fixture
def server(endpoint):
    with Server(endpoint, "cat") as server:
        yield server


@contextmanager
def socket_pair(**options):
    """Two connected sockets; neither can be opened by a name such as /dev/stdin."""
    ours, its = socket.socketpair()
    with ours, its:
        ours.settimeout(TIMEOUT)
        yield ours, its


def run(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
    command = [SIPC, *map(str, arguments)]
    return subprocess.run(command, env=environment(), timeout=TIMEOUT, **options)


def received(ours: socket.socket, its: socket.socket) -> bytes:
    its.close()
    return b"".join(iter(lambda: ours.recv(1 << 16), b""))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("options", [[], ["--lines"], ["-m", "1h"]], ids=["one", "lines", "limit"])
def test_send_reads_its_request_from_a_socket(server, name, options):
    with socket_pair() as (ours, its):
        ours.sendall(b"hello\n")
        ours.shutdown(socket.SHUT_WR)
        options = ["--data-file", name, *options]
        done = run("send", server.path, *options, stdin=its, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


@pytest.mark.parametrize("name", INPUTS)
def test_send_prints_a_note_when_it_reads_from_a_terminal(server, name):
    master, slave = pty.openpty()
    command = [SIPC, "send", server.path, "--data-file", name]
    streams = {"stdin": slave, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Program(command, env=environment(), **streams) as client:
        os.close(slave)
        os.write(master, b"hello\n\x04")
        assert client.communicate(timeout=TIMEOUT) == (
            b"hello\n",
            b"sipc send: reading the request from the terminal: end it with Ctrl-D\n",
        )
    os.close(master)


@pytest.mark.parametrize("name", INPUTS)
def test_send_reads_a_file_on_standard_input_from_its_current_position(server, folder, name):
    (folder / "file").write_bytes(b"one\ntwo\n")
    script = f"{{ read line; {SIPC} send {server.path} --data-file {name}; }} <file"
    done = subprocess.run(["sh", "-c", script], capture_output=True, cwd=folder)
    assert (done.returncode, done.stdout) == (0, b"two\n"), done.stderr


@pytest.mark.parametrize("options", [["--data-file"], ["-d", "", "--baseline"]], ids=" ".join)
@pytest.mark.parametrize("name", INPUTS)
def test_bench_reads_from_a_socket(server, folder, options, name):
    run("bench", server.path, "-n", 20, "-q", "--json", folder / "report", check=True)
    with socket_pair() as (ours, its):
        ours.sendall((folder / "report").read_bytes())
        ours.shutdown(socket.SHUT_WR)
        done = run("bench", server.path, "-n", 1, *options, name, stdin=its, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", INPUTS)
def test_two_inputs_cannot_both_be_standard_input(endpoint, name):
    done = run_cli("bench", endpoint, "--data-file", name, "--baseline", "-")
    assert done.returncode == 2
    assert b"cannot both be standard input" in done.stderr


@pytest.mark.parametrize("name", [*OUTPUTS, *ERRORS])
def test_send_writes_its_response_to_a_socket(server, name):
    with socket_pair() as (ours, its):
        where = {"stderr" if name.endswith(("stderr", "2")) else "stdout": its}
        assert run("send", server.path, "-d", "hello", "-o", name, **where).returncode == 0
        assert received(ours, its) == b"hello"


@pytest.mark.parametrize("name", [*OUTPUTS, *ERRORS])
def test_a_trace_is_written_to_a_socket(server, name):
    with socket_pair() as (ours, its):
        where = {"stderr" if name.endswith(("stderr", "2")) else "stdout": its}
        options = ["-d", "hello", "-o", "/dev/null", "--trace-file", name]
        assert run("send", server.path, *options, **where).returncode == 0
        assert b'> sent 0009 (9 bytes): "hello"' in received(ours, its)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_report_on_standard_output_replaces_the_text(server, name):
    with socket_pair() as (ours, its):
        done = run("bench", server.path, "-n", 1, "--json", name, stdout=its)
        assert done.returncode == 0
        json.loads(received(ours, its))


@pytest.mark.parametrize("name", ERRORS)
def test_a_report_can_go_to_standard_error(server, name):
    with socket_pair() as (ours, its):
        done = run("bench", server.path, "-n", 1, "-q", "--json", name, stderr=its)
        assert done.returncode == 0
        json.loads(received(ours, its))


@pytest.mark.parametrize("names", [("-", "/dev/stdout"), ("/dev/fd/1", "-")], ids=" ".join)
def test_two_reports_cannot_both_go_to_standard_output(endpoint, names):
    done = run_cli("bench", endpoint, "--json", names[0], "--csv", names[1])
    assert done.returncode == 2
    assert b"two reports cannot both be written to -" in done.stderr


@pytest.mark.parametrize("name", [*OUTPUTS, *ERRORS])
@pytest.mark.parametrize("option", ["--log-file", "--trace-file"])
def test_a_server_logs_and_traces_to_a_socket(endpoint, name, option):
    with socket_pair() as (ours, its):
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        streams["stderr" if name.endswith(("stderr", "2")) else "stdout"] = its
        command = [SIPC, "serve", endpoint, "--exec", "cat", "--count", "1", option, name]
        with Program(command, env=environment(), **streams) as program:
            wait_until(lambda: is_listening(endpoint), "it to listen")
            assert ask(endpoint, b"hello") == (b"hello", True)
            assert program.wait(TIMEOUT) == 0
        assert (b": answered" if option == "--log-file" else b'"hello"') in received(ours, its)


def test_a_log_to_the_journal_has_priorities_under_each_name_of_standard_error(endpoint, folder):
    with open(folder / "journal", "wb") as journal:
        found = os.fstat(journal.fileno())
        env = environment(JOURNAL_STREAM=f"{found.st_dev}:{found.st_ino}")
        options = ["--exec", "cat", "--idle-timeout", "10ms", "--log-file", "/dev/stderr"]
        subprocess.run([SIPC, "serve", endpoint, *options], stderr=journal, env=env, check=True)
    assert (folder / "journal").read_text().startswith("<6>")


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("option", ["--log-file", "--trace-file"])
def test_a_server_in_the_background_has_no_standard_output(endpoint, option, name):
    done = run_cli("serve", endpoint, "--exec", "cat", "--background", option, name)
    assert done.returncode == 2
    assert option.encode() in done.stderr.splitlines()[-1]


def test_a_server_in_the_background_logs_to_standard_error_on_request(endpoint, folder):
    """Also after a reload: the server keeps that descriptor, and creates no file of that name."""
    with Background(endpoint) as servers, open(folder / "log", "wb") as log:
        arguments = [*servers.arguments("--log-file", "/dev/stderr")]
        env = servers.environment()
        assert subprocess.run([SIPC, *arguments], stderr=log, env=env).returncode == 0
        os.kill(pid_of_listener(endpoint), signal.SIGHUP)
        assert ask(endpoint, b"hello") == (b"hello", True)
        wait_until(lambda: ": answered" in (folder / "log").read_text(), "the line of the request")


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_a_pid_file_must_be_a_file(endpoint, folder, name):
    done = run_cli("serve", endpoint, "--exec", "cat", "--pid-file", name, cwd=folder)
    assert done.returncode == 2
    assert b"--pid-file must name a file" in done.stderr
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "--data-file", "/dev/fd/77"],
        ["send", "-d", "x", "-o", "/dev/fd/77"],
        soak(["send", "-d", "x", "--trace-file", "/dev/fd/77"]),
        soak(["bench", "-n", "1", "--data-file", "/dev/fd/77"]),
        ["bench", "-n", "1", "--json", "/dev/fd/77"],
        ["serve", "--exec", "cat", "--log-file", "/dev/fd/77"],
        soak(["serve", "--exec", "cat", "--trace-file", "/dev/fd/77"]),
    ],
    ids=lambda words: f"{words[0]} {words[-2]}",
)
def test_the_error_names_a_descriptor_that_is_not_open(endpoint, arguments):
    if arguments[0] == "serve":
        done = sipc(*arguments, endpoint)
    else:
        with Server(endpoint, "cat"):
            done = sipc(*arguments, endpoint)
    assert done.returncode == 1
    assert b"/dev/fd/77: Bad file descriptor" in done.stderr
