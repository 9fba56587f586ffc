"""`sipc send`: which events end a wait, and which do not."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess

import pytest
from helpers.command import SIPC, Program, assert_error_line, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall
from helpers.scripted_server import ScriptedServer, endless_response, scripted_server, silent
from helpers.sending import EchoServer, start_send
from helpers.server import Server
from helpers.sockets import busy_listener, stale_socket
from helpers.waiting import wait_until
from helpers.wire import message, packets, read_message

from simpleipc_cli.cli.stdio import Input, Output
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import TimedOut

MIB = 1 << 20


@pytest.mark.parametrize("option", ["-m", "--max-time"])
def test_max_time_ends_a_connected_send(endpoint, option):
    with scripted_server(endpoint, silent):
        assert_error_line(run_cli("send", endpoint, option, "50ms", "-d", "x"), 6, "in time")


def test_max_time_ends_a_send_whose_request_is_not_read(endpoint):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(endpoint))
        listener.listen()
        assert_error_line(run_cli("send", endpoint, "-m", "100ms", input=bytes(5 * MIB)), 6)


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_deadline_ends_a_wait_for_input(pipe):
    source = Input(pipe[0], "standard input", Deadline(0.001))
    with pytest.raises(TimedOut, match="no data arrived from standard input in time"):
        source.read_first()


def test_a_deadline_ends_a_wait_for_a_reader_of_the_output(pipe):
    os.write(pipe[1], bytes(fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)))
    target = Output(pipe[1], "standard output", Deadline(0.001))
    with pytest.raises(TimedOut, match="standard output did not take the response in time"):
        target.write(memoryview(b"x"))


def test_max_time_ends_a_wait_for_input(endpoint, pipe):
    """The client connects to find out whether a server listens, and sends nothing."""

    def conversation(connection):
        assert connection.recv(1) == b""

    with scripted_server(endpoint, conversation):
        command = [SIPC, "send", endpoint, "-m", "50ms"]
        done = subprocess.run(command, stdin=pipe[0], capture_output=True)
    assert_error_line(done, 6, "standard input")


def test_max_time_ends_a_wait_for_a_reader_of_the_output(endpoint, pipe):
    with scripted_server(endpoint, endless_response(packets(bytes(MIB)))):
        command = [SIPC, "send", endpoint, "-m", "200ms", "-d", "x"]
        done = subprocess.run(command, stdout=pipe[1], stderr=subprocess.PIPE)
    assert_error_line(done, 6, "in time")


def test_missing_input_with_a_missing_server_is_reported_as_a_missing_server(endpoint, pipe):
    command = [SIPC, "send", endpoint, "-m", "50ms"]
    assert_error_line(subprocess.run(command, stdin=pipe[0], capture_output=True), 4)


BUSY_LIMITS = [
    ["--connect-timeout", "20ms"],
    ["-m", "20ms"],
    ["--wait", "20ms", "--connect-timeout", "0"],
]


@pytest.mark.parametrize("limit", BUSY_LIMITS, ids=" ".join)
def test_a_server_that_stays_busy_is_reported_as_not_listening(endpoint, limit):
    with busy_listener(endpoint):
        assert_error_line(run_cli("send", endpoint, "-d", "x", *limit), 3, "busy")


def test_send_waits_for_a_busy_server(endpoint):
    with (
        busy_listener(endpoint) as busy,
        start_send(endpoint, "-d", "x", "--connect-timeout", "0") as client,
    ):
        wait_until(lambda: is_in_syscall(client.pid, "connect"), "it to wait")
        busy.accept()[0].close()
        with busy.accept()[0] as connection:
            read_message(connection)
            connection.sendall(message(b"done"))
        assert client.stdout.read() == b"done"


def test_wait_sends_the_request_once_a_server_listens(endpoint):
    with start_send(endpoint, "--wait", "1h", "-d", "x") as client:
        stale_socket(endpoint)
        with Server(endpoint, "cat", "--count", 1) as server:
            assert client.stdout.read() == b"x"
            assert server.wait() == 0
            assert server.log.count("in=1") == 1


@pytest.mark.parametrize("wait", ["20ms", "0.02"])
def test_wait_ends_after_the_given_time(endpoint, wait):
    assert_error_line(run_cli("send", endpoint, "--wait", wait, "-d", "x"), 4)


@pytest.mark.parametrize("wire", [packets(bytes(4 * MIB)), b"0004" * MIB], ids=["data", "empty"])
@pytest.mark.parametrize("output", [[], ["-o", "response"]], ids=["stdout", "file"])
def test_max_time_ends_an_endless_response(endpoint, folder, wire, output):
    with scripted_server(endpoint, endless_response(wire)), open("/dev/null", "wb") as null:
        done = subprocess.run(
            [SIPC, "send", endpoint, "-d", "x", "-m", "100ms", *output],
            stdout=null,
            stderr=subprocess.PIPE,
            cwd=folder,
        )
    assert_error_line(done, 6, "in time")
    assert os.listdir(folder) == ["sock"]


NAMED_PIPES = {
    "input": (["--data-file", "pipe"], "write"),
    "input of --lines": (["--lines", "--data-file", "pipe"], "write"),
    "output": (["-d", "x", "-o", "pipe"], "read"),
    "output of --lines": (["--lines", "-o", "pipe"], "read"),
}
each_named_pipe = pytest.mark.parametrize(
    ("options", "purpose"), NAMED_PIPES.values(), ids=NAMED_PIPES
)


@each_named_pipe
def test_max_time_ends_a_wait_for_the_other_end_of_a_named_pipe(endpoint, folder, options, purpose):
    os.mkfifo(folder / "pipe")

    def conversation(connection):
        assert connection.recv(1) == b""  # it may check whether a server listens

    with ScriptedServer(endpoint, conversation):
        done = sipc("send", endpoint, "-m", "50ms", *options, input=b"x\n", cwd=folder)
    assert_error_line(done, 6, f"no process opened pipe to {purpose} in time")


@pytest.mark.parametrize("lines", [[], ["--lines"]], ids=["one request", "--lines"])
def test_a_named_pipe_without_a_writer_does_not_hide_a_missing_server(endpoint, folder, lines):
    os.mkfifo(folder / "pipe")
    options = ["-m", "50ms", "--data-file", "pipe", *lines]
    assert_error_line(sipc("send", endpoint, *options, cwd=folder), 4)


each_limit = pytest.mark.parametrize("limit", [[], ["-m", "1h"]], ids=["without -m", "with -m"])


@each_limit
def test_a_request_can_be_read_from_a_named_pipe(endpoint, folder, limit):
    os.mkfifo(folder / "pipe")
    command = [SIPC, "send", endpoint, *limit, "--data-file", folder / "pipe"]
    with EchoServer(endpoint), Program(command, stdout=subprocess.PIPE) as client:
        (folder / "pipe").write_bytes(b"x")
        assert client.stdout.read() == b"x"
        assert client.wait() == 0


@each_limit
def test_a_response_can_be_written_to_a_named_pipe(endpoint, folder, limit):
    os.mkfifo(folder / "pipe")
    command = [SIPC, "send", endpoint, "-d", "x", *limit, "-o", folder / "pipe"]
    with EchoServer(endpoint), Program(command) as client:
        assert (folder / "pipe").read_bytes() == b"x"
        assert client.wait() == 0


def test_very_long_limits_are_accepted(endpoint):
    with EchoServer(endpoint):
        done = run_cli("send", endpoint, "-m", "9999h", "--connect-timeout", "9999h", input=b"x")
        assert (done.returncode, done.stdout) == (0, b"x")
