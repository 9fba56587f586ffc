"""`sipc send --lines` and `--null`: one request for each record, and the output."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import threading
import tty

import pytest
from helpers.command import SIPC, Program, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall, status
from helpers.scripted_server import (
    ScriptedServer,
    receive_request,
    wait_for_close,
)
from helpers.sending import EchoServer, echo, feed, is_partly_written, send_lines, write_and_close
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import MAX_PAYLOAD, message, packets, receive_wire

RECORDS = {
    "lines": ("--lines", b"one\ntwo\n", [b"one", b"two"]),
    "no final newline": ("--lines", b"one\ntwo", [b"one", b"two"]),
    "empty lines": ("--lines", b"\n\nx\n\n", [b"", b"", b"x", b""]),
    "nothing": ("--lines", b"", []),
    "NULs in lines": ("--lines", b"a\0b\n\0\n", [b"a\0b", b"\0"]),
    "carriage returns": ("--lines", b"a\r\n", [b"a\r"]),
    "NULs": ("--null", b"one\0two\0", [b"one", b"two"]),
    "-0": ("-0", b"one\0two", [b"one", b"two"]),
    "newlines among NULs": ("-0", b"a\nb\n\0\0\n", [b"a\nb\n", b"", b"\n"]),
    "full packets": (
        "--lines",
        b"x" * MAX_PAYLOAD + b"\n" + b"y" * (MAX_PAYLOAD + 1) + b"\n",
        [b"x" * MAX_PAYLOAD, b"y" * (MAX_PAYLOAD + 1)],
    ),
}


@pytest.mark.parametrize(("option", "given", "expected"), RECORDS.values(), ids=RECORDS)
def test_every_record_is_sent_as_a_separate_request(endpoint, option, given, expected):
    with EchoServer(endpoint) as server:
        done = run_cli("send", endpoint, option, input=given)
    assert server.requests == expected
    assert server.accepted == len(expected)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_send_writes_the_bytes_that_git_expects(endpoint, run):
    requests = []

    def conversation(connection):
        wire = b""
        while piece := connection.recv(100):  # to the end: no byte follows the flush
            wire += piece
            if wire.endswith(b"0000"):
                connection.sendall(b"0000")
        requests.append(wire)

    with ScriptedServer(endpoint, conversation, in_turn=True):
        assert run("send", endpoint, "--lines", input=b"ping\n\n").stdout == b"\n\n"
    assert requests == [b"0008ping0000", b"0000"]


@pytest.mark.parametrize("jobs", [[], ["-j", "3"]], ids=["one", "three at once"])
@pytest.mark.parametrize(
    ("option", "separator", "expected"),
    [("--lines", b"\n", b"a\nb\n\n\nc\n\nd\0\n"), ("-0", b"\0", b"a\0b\n\0\0\n\0c\n\n\0d\0\0")],
    ids=["--lines", "-0"],
)
def test_every_response_ends_with_the_separator(endpoint, jobs, option, separator, expected):
    responses = [b"a", b"b\n", b"", b"\n", b"c\n\n", b"d\0"]
    records = separator.join(b"%d" % number for number in range(len(responses)))
    with EchoServer(endpoint, lambda payload: responses[int(payload)]):
        done = run_cli("send", endpoint, option, *jobs, input=records)
    assert (done.returncode, done.stdout) == (0, expected)


@pytest.mark.parametrize("name", ["-", "records"])
def test_records_come_from_a_file_or_standard_input(endpoint, folder, name):
    (folder / "records").write_bytes(b"a\nb\n")
    given = b"a\nb\n" if name == "-" else b""
    with EchoServer(endpoint):
        done = run_cli("send", endpoint, "--lines", "--data-file", name, cwd=folder, input=given)
    assert (done.returncode, done.stdout) == (0, b"a\nb\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lines", "-d", "x"], b"--data cannot be combined with --lines"),
        (["-0", "-d", "x"], b"--data cannot be combined with --lines"),
        (["--lines", "-0"], b"cannot be combined"),
        (["--lines", "-d", "x", "--data-file", "y"], b"cannot be combined"),
        (["-j", "2"], b"--lines or --null"),
        (["--lines", "-j", "0"], b"--jobs"),
    ],
)
def test_options_that_exclude_each_other_are_a_usage_error(endpoint, options, words):
    done = run_cli("send", endpoint, *options)
    assert done.returncode == 2
    assert words in done.stderr


# -- streaming -------------------------------------------------------------------------


def test_each_record_is_answered_without_waiting_for_the_next_one(endpoint):
    """The client waits neither for more records nor for the rest of a line."""
    with EchoServer(endpoint) as server, send_lines(endpoint, "-j", 4) as client:
        for number in range(3):
            feed(client, b"%d\nhalf of " % number)
            expected = b"half of %d\n" % number if number else b"0\n"
            assert client.stdout.readline() == expected
        assert server.accepted == 3
        client.stdin.close()
        assert client.stdout.read() == b"half of \n"
        assert client.wait() == 0
    assert server.requests[-1] == b"half of "


CTRL_D = b"records from the terminal: end it with Ctrl-D\n"


def test_each_line_that_is_typed_on_a_terminal_is_answered(endpoint):
    with EchoServer(endpoint):
        master, slave = pty.openpty()
        with send_lines(endpoint, stdin=slave, stderr=subprocess.PIPE) as client:
            os.close(slave)
            assert client.stderr.readline().endswith(CTRL_D)
            os.write(master, b"one\n")
            assert client.stdout.readline() == b"one\n"
            os.write(master, b"two\n\x04")
            assert client.stdout.read() == b"two\n"
            assert client.wait() == 0
        os.close(master)


def test_a_response_is_written_as_it_arrives(endpoint):
    go = threading.Event()

    def conversation(connection):
        receive_request(connection)
        connection.sendall(packets(b"first\n"))
        assert go.wait(TIMEOUT)
        connection.sendall(message(b"second"))

    with ScriptedServer(endpoint, conversation), send_lines(endpoint) as client:
        feed(client, b"x\n")
        assert client.stdout.readline() == b"first\n"
        go.set()
        assert client.stdout.readline() == b"second\n"
        client.stdin.close()


def test_a_long_record_is_sent_as_it_is_read_and_ends_with_its_separator(endpoint):
    received = bytearray()

    def conversation(connection):
        while not received.endswith(b"0000"):
            received.extend(connection.recv(1 << 20))
        connection.sendall(message(b"done"))

    with ScriptedServer(endpoint, conversation), send_lines(endpoint) as client:
        feed(client, b"x" * 300_000)
        wait_until(lambda: len(received) > 300_000, "all that there is of the record")
        assert b"0000" not in received
        feed(client, b"y\n")
        assert client.stdout.readline() == b"done\n"
        client.stdin.close()
    assert received.endswith(b"0005y0000")


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("closes", [False, True], ids=["stays", "closes"])
def test_after_an_early_response_the_rest_of_the_record_is_dropped(endpoint, jobs, closes):
    """The server responds after the first byte, and in one case stops reading."""

    def conversation(connection):
        first = connection.recv(5)[4:]
        connection.sendall(message(first))
        if not closes:
            connection.recv(1)
            while connection.recv(1 << 20):
                pass

    given = b"".join(b"%d" % number * 800_000 + b"\n" for number in range(4)) + b"last"
    with ScriptedServer(endpoint, conversation):
        done = run_cli("send", endpoint, "--lines", "-j", jobs, input=given)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n1\n2\n3\nl\n", b"")


def test_the_rest_of_a_record_is_dropped_when_the_server_has_stopped_reading(endpoint):
    """The server still responds when the client has read the whole record."""
    shut, go = threading.Event(), threading.Event()

    def conversation(connection):
        first = connection.recv(5)[4:]
        if first == b"a":
            connection.shutdown(socket.SHUT_RD)
            shut.set()
            assert go.wait(TIMEOUT)
        connection.sendall(message(first))

    with ScriptedServer(endpoint, conversation), send_lines(endpoint) as client:
        feed(client, b"a" * 80_000)
        assert shut.wait(TIMEOUT)
        feed(client, b"a" * 5_000_000)
        go.set()
        feed(client, b"\nb\n")
        client.stdin.close()
        assert client.stdout.read() == b"a\nb\n"
        assert client.wait() == 0


@pytest.mark.parametrize("length", [100, 200_000], ids=["short", "long"])
@pytest.mark.parametrize("cut", ["stdin", "SIGTERM", "SIGINT"])
def test_a_record_whose_input_fails_is_never_completed(endpoint, length, cut):
    received = []

    def conversation(connection):
        wire = receive_wire(connection)
        received.append(wire)
        if wire.endswith(b"0000"):
            connection.sendall(message(b"done"))

    with ScriptedServer(endpoint, conversation):
        master, slave = pty.openpty()  # a terminal that closes is no end of input
        tty.setraw(slave)
        with send_lines(endpoint, stdin=slave, stderr=subprocess.PIPE) as client:
            os.close(slave)
            assert client.stderr.readline().endswith(CTRL_D)
            os.write(master, b"first\n")
            assert client.stdout.readline() == b"done\n"
            before = bytes_read(client.pid)
            left = b"x" * length
            while left:
                left = left[os.write(master, left) :]
            wait_until(lambda: bytes_read(client.pid) >= before + length, "all to be read")
            if cut == "stdin":
                os.close(master)
                assert client.wait() == 1
                errors = client.stderr.read()
                assert errors.startswith(b"sipc send: record 2: cannot read standard input: ")
                assert errors.count(b"\n") == 1
                assert client.stdout.read() == b"\n"
            else:
                client.send_signal(getattr(signal, cut))
                assert client.wait() == 128 + getattr(signal, cut)
                assert client.stderr.read() == b""
                os.close(master)
    assert received[0] == b"0009first0000"
    assert len(received) == (1 if length == 100 else 2)
    assert not any(wire.endswith(b"0000") for wire in received[1:])


def bytes_read(pid: int) -> int:
    """Return how many bytes a process has read, except from sockets."""
    return int(status(pid, "rchar", "io"))


# -- output ----------------------------------------------------------------------------


def test_output_to_a_file_appears_when_all_records_are_answered(endpoint, folder):
    go = threading.Event()

    def conversation(connection):
        payload = receive_request(connection)
        assert payload != b"2" or go.wait(TIMEOUT)
        connection.sendall(message(payload))

    with (
        ScriptedServer(endpoint, conversation),
        send_lines(endpoint, "-o", folder / "responses") as client,
    ):
        feed(client, b"1\n2\n")
        client.stdin.close()
        wait_until(lambda: is_partly_written(folder), "the first part")
        assert not (folder / "responses").exists()
        go.set()
        assert client.wait() == 0
    assert (folder / "responses").read_bytes() == b"1\n2\n"
    assert sorted(os.listdir(folder)) == ["responses", "sock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_partly_written_file(endpoint, folder, number):
    def conversation(connection):
        connection.sendall(packets(receive_request(connection)))
        wait_for_close(connection)

    with (
        ScriptedServer(endpoint, conversation),
        send_lines(endpoint, "-j", 2, "-o", folder / "responses") as client,
    ):
        feed(client, b"1\n2\n3\n")
        wait_until(lambda: is_partly_written(folder), "a part")
        client.send_signal(number)
        assert client.wait() == 128 + number
        assert os.listdir(folder) == ["sock"]


@pytest.mark.parametrize("jobs", [1, 8])
def test_sigpipe_ends_send_in_a_pipeline(endpoint, jobs):
    with (
        ScriptedServer(endpoint, echo),
        Program(["yes"], stdout=subprocess.PIPE) as yes,
        send_lines(endpoint, "-j", jobs, stdin=yes.stdout) as client,
    ):
        yes.stdout.close()
        assert client.stdout.readline() == b"y\n"
        client.stdout.close()
        assert client.wait() == -signal.SIGPIPE
        assert yes.wait() == -signal.SIGPIPE


def test_send_reports_a_full_disk_once_and_exits(endpoint):
    with EchoServer(endpoint) as server, open("/dev/full", "wb") as full:
        with send_lines(endpoint, stdout=full, stderr=subprocess.PIPE) as client:
            feed(client, b"1\n")
            assert client.wait() == 1
            line = client.stderr.read()
    assert line.startswith(b"sipc send: cannot write to standard output: No space")
    assert line.count(b"\n") == 1
    assert server.accepted == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_never_becomes_a_connection(endpoint, closed):
    def conversation(connection):
        receive_request(connection)
        # When the first response could not be written, the second is not read.
        connection.sendall(message(b"SECRET"))
        assert connection.recv(100) == b""

    command = f"{SIPC} send {endpoint} --lines -j 2 {closed}"
    with ScriptedServer(endpoint, conversation) as server:
        done = subprocess.run(["sh", "-c", command], input=b"1\n2\n", capture_output=True)
    if closed == "2>&-":
        assert (done.returncode, done.stdout, server.accepted) == (0, b"SECRET\n" * 2, 2)
    else:
        name = b"record 1: cannot read standard input" if closed == "<&-" else b"standard output"
        assert done.returncode == 1
        assert name in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert closed != "<&-" or not server.accepted


@pytest.mark.parametrize("blocking", [False, True])
def test_blocking_and_non_blocking_standard_streams_work_and_are_not_changed(endpoint, blocking):
    records = b"".join(b"%d" % number * 1000 + b"\n" for number in range(50))
    ours, its_input = os.pipe(), os.pipe()
    os.set_blocking(its_input[0], blocking)
    os.set_blocking(ours[1], blocking)
    with ScriptedServer(endpoint, echo), open(ours[0], "rb") as responses:
        with send_lines(endpoint, "-j", 2, stdin=its_input[0], stdout=ours[1]) as client:
            wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait for its input")
            feeder = threading.Thread(target=write_and_close, args=(its_input[1], records))
            feeder.start()
            line = responses.readline()
            assert os.get_blocking(its_input[0]) is blocking
            assert os.get_blocking(ours[1]) is blocking
            os.close(ours[1])
            assert line + responses.read() == records
            feeder.join()
            assert client.wait() == 0
    os.close(its_input[0])
