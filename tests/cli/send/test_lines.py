"""`sipc send --lines` and `--null`: which requests records become, and what comes out."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import threading
import tty
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, sipc
from helpers.procfs import is_in_syscall
from helpers.scripted_server import ScriptedServer, receive_request, receive_wire
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import MAX_PAYLOAD, message, packets


class Echo(ScriptedServer):
    """Answers with what it was asked, and remembers that."""

    def __init__(self, path, answer=lambda payload: payload, **options) -> None:
        super().__init__(path, self._echo, **options)
        self.requests: list[bytes] = []
        self._answer = answer

    def _echo(self, connection) -> None:
        payload = receive_request(connection)
        self.requests.append(payload)
        connection.sendall(message(self._answer(payload)))


def send_lines(endpoint, *options, **popen) -> Program:
    """A `send --lines` that is fed by hand."""
    popen.setdefault("stdin", subprocess.PIPE)
    popen.setdefault("stdout", subprocess.PIPE)
    return Program([SIPC, "send", endpoint, "--lines", *map(str, options)], **popen)


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
def test_every_record_is_a_request_of_its_own(endpoint, option, given, expected):
    with Echo(endpoint) as server:
        done = sipc("send", endpoint, option, input=given)
    assert server.requests == expected
    assert server.accepted == len(expected)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_wire_is_what_git_expects(endpoint):
    seen = []

    def converse(connection):
        wire = b""
        while piece := connection.recv(100):  # to the end: nothing comes behind the flush
            wire += piece
            if wire.endswith(b"0000"):
                connection.sendall(b"0000")
        seen.append(wire)

    with ScriptedServer(endpoint, converse, in_turn=True):
        assert sipc("send", endpoint, "--lines", input=b"ping\n\n").stdout == b"\n\n"
    assert seen == [b"0008ping0000", b"0000"]


@pytest.mark.parametrize("jobs", [[], ["-j", "3"]], ids=["one", "three at once"])
@pytest.mark.parametrize(
    ("option", "separator", "expected"),
    [("--lines", b"\n", b"a\nb\n\n\nc\n\nd\0\n"), ("-0", b"\0", b"a\0b\n\0\0\n\0c\n\n\0d\0\0")],
    ids=["--lines", "-0"],
)
def test_answers_are_told_apart_by_their_ends(endpoint, jobs, option, separator, expected):
    answers = [b"a", b"b\n", b"", b"\n", b"c\n\n", b"d\0"]
    records = separator.join(b"%d" % number for number in range(len(answers)))
    with Echo(endpoint, lambda payload: answers[int(payload)]):
        done = sipc("send", endpoint, option, *jobs, input=records)
    assert (done.returncode, done.stdout) == (0, expected)


@pytest.mark.parametrize("name", ["-", "records"])
def test_records_come_from_where_it_is_said(endpoint, folder, name):
    (folder / "records").write_bytes(b"a\nb\n")
    with Echo(endpoint):
        options = ["--lines", "--data-file", name]
        done = sipc("send", endpoint, *options, cwd=folder, input=b"a\nb\n" if name == "-" else b"")
    assert (done.returncode, done.stdout) == (0, b"a\nb\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lines", "-d", "x"], b"not --data"),
        (["-0", "-d", "x"], b"not --data"),
        (["--lines", "-0"], b"not both"),
        (["--lines", "-d", "x", "--data-file", "y"], b"not both"),
        (["-j", "2"], b"--lines or --null"),
        (["--lines", "-j", "0"], b"--jobs"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(endpoint, options, words):
    done = sipc("send", endpoint, *options)
    assert done.returncode == 2
    assert words in done.stderr


# -- as it comes -----------------------------------------------------------------------


def test_each_record_is_answered_as_soon_as_it_is_there(endpoint):
    """As somebody types, or `tail -f` tells: no waiting for more, nor for half a line."""
    with Echo(endpoint) as server, send_lines(endpoint, "-j", 4) as client:
        for number in range(3):
            client.stdin.write(b"%d\nhalf of " % number)
            client.stdin.flush()
            expected = b"half of %d\n" % number if number else b"0\n"
            assert client.stdout.readline() == expected
        assert server.accepted == 3
        client.stdin.close()
        assert client.stdout.read() == b"half of \n"
        assert client.wait() == 0
    assert server.requests[-1] == b"half of "


def test_on_a_terminal_each_line_is_answered(endpoint):
    with Echo(endpoint):
        master, slave = pty.openpty()
        with send_lines(endpoint, stdin=slave, stderr=subprocess.PIPE) as client:
            os.close(slave)
            assert client.stderr.readline().endswith(b"records from the terminal: " + CTRL_D)
            os.write(master, b"one\n")
            assert client.stdout.readline() == b"one\n"
            os.write(master, b"two\n\x04")
            assert client.stdout.read() == b"two\n"
            assert client.wait() == 0
        os.close(master)


CTRL_D = b"end it with Ctrl-D\n"


def test_an_answer_is_passed_on_as_it_comes(endpoint):
    go = threading.Event()

    def converse(connection):
        receive_request(connection)
        connection.sendall(packets(b"first\n"))
        assert go.wait(30)
        connection.sendall(message(b"second"))

    with ScriptedServer(endpoint, converse), send_lines(endpoint) as client:
        client.stdin.write(b"x\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"first\n"
        go.set()
        assert client.stdout.readline() == b"second\n"
        client.stdin.close()


def test_a_long_record_is_sent_as_it_comes_and_ends_with_its_separator(endpoint):
    seen = bytearray()

    def converse(connection):
        while not seen.endswith(b"0000"):
            seen.extend(connection.recv(1 << 20))
        connection.sendall(message(b"done"))

    with ScriptedServer(endpoint, converse), send_lines(endpoint) as client:
        client.stdin.write(b"x" * 300_000)
        client.stdin.flush()
        wait_until(lambda: len(seen) > 300_000, "all that there is of the record")
        assert b"0000" not in seen
        client.stdin.write(b"y\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"done\n"
        client.stdin.close()
    assert seen.endswith(b"0005y0000")


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("hangs_up", [False, True], ids=["waits", "hangs up"])
def test_an_early_answer_is_an_answer_and_the_rest_of_the_record_is_dropped(
    endpoint, jobs, hangs_up
):
    """The server answers after the first byte, and perhaps reads no more."""

    def converse(connection):
        first = connection.recv(5)[4:]
        connection.sendall(message(first))
        if not hangs_up:
            connection.recv(1)
            while connection.recv(1 << 20):
                pass

    given = b"".join(b"%d" % number * 2_000_000 + b"\n" for number in range(5)) + b"last"
    with ScriptedServer(endpoint, converse):
        done = sipc("send", endpoint, "--lines", "-j", jobs, input=given)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n1\n2\n3\n4\nl\n", b"")


def test_the_rest_of_a_record_is_dropped_when_the_server_reads_no_more(endpoint):
    """It answers all the same, when nothing of the record is left in the input."""
    shut, go = threading.Event(), threading.Event()

    def converse(connection):
        first = connection.recv(5)[4:]
        if first == b"a":
            connection.shutdown(socket.SHUT_RD)
            shut.set()
            assert go.wait(30)
        connection.sendall(message(first))

    with ScriptedServer(endpoint, converse), send_lines(endpoint) as client:
        client.stdin.write(b"a" * 80_000)
        client.stdin.flush()
        assert shut.wait(30)
        client.stdin.write(b"a" * 5_000_000)
        client.stdin.flush()
        go.set()
        client.stdin.write(b"\nb\n")
        client.stdin.close()
        assert client.stdout.read() == b"a\nb\n"
        assert client.wait() == 0


@pytest.mark.parametrize("length", [100, 200_000], ids=["short", "long"])
@pytest.mark.parametrize("cut", ["stdin", "SIGTERM", "SIGINT"])
def test_a_record_that_could_not_be_read_to_its_end_is_never_sent_whole(endpoint, length, cut):
    seen = []

    def converse(connection):
        wire = receive_wire(connection)
        seen.append(wire)
        if wire.endswith(b"0000"):
            connection.sendall(message(b"done"))

    with ScriptedServer(endpoint, converse):
        master, slave = pty.openpty()  # when it goes away, that is no end of input
        tty.setraw(slave)
        client = send_lines(endpoint, stdin=slave, stderr=subprocess.PIPE)
        os.close(slave)
        with client:
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
    assert seen[0] == b"0009first0000"
    assert len(seen) == (1 if length == 100 else 2)
    assert not any(wire.endswith(b"0000") for wire in seen[1:])


def bytes_read(pid: int) -> int:
    """How many bytes a process has read so far, other than from sockets."""
    return int(re.match(r"rchar: (\d+)", Path(f"/proc/{pid}/io").read_text())[1])


# -- where it goes ---------------------------------------------------------------------


def test_output_to_a_file_appears_when_all_are_answered(endpoint, folder):
    go = threading.Event()

    def converse(connection):
        payload = receive_request(connection)
        assert payload != b"2" or go.wait(30)
        connection.sendall(message(payload))

    with (
        ScriptedServer(endpoint, converse),
        send_lines(endpoint, "-o", folder / "answers") as client,
    ):
        client.stdin.write(b"1\n2\n")
        client.stdin.close()
        wait_until(
            lambda: any(p.stat().st_size for p in folder.glob(".answers.sipc-*")), "the first part"
        )
        assert not (folder / "answers").exists()
        go.set()
        assert client.wait() == 0
    assert (folder / "answers").read_bytes() == b"1\n2\n"
    assert sorted(os.listdir(folder)) == ["answers", "sock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_half_a_file(endpoint, folder, number):
    with Server(endpoint, "cat; sleep 1000"):
        with send_lines(endpoint, "-j", 2, "-o", folder / "answers") as client:
            client.stdin.write(b"1\n2\n3\n")
            client.stdin.flush()
            wait_until(
                lambda: any(p.stat().st_size for p in folder.glob(".answers.sipc-*")), "a part"
            )
            client.send_signal(number)
            assert client.wait() == 128 + number
            assert sorted(os.listdir(folder)) == ["sock"]


@pytest.mark.parametrize("jobs", [1, 8])
def test_in_a_pipeline_it_ends_by_sigpipe(endpoint, jobs):
    with Server(endpoint, "cat"):
        yes = Program(["yes"], stdout=subprocess.PIPE)
        client = send_lines(endpoint, "-j", jobs, stdin=yes.stdout)
        yes.stdout.close()
        assert client.stdout.readline() == b"y\n"
        client.stdout.close()
        assert client.wait() == -signal.SIGPIPE
        assert yes.wait() == -signal.SIGPIPE


def test_a_full_disk_is_said_once_and_is_the_end(endpoint):
    with Echo(endpoint) as server, open("/dev/full", "wb") as full:
        with send_lines(endpoint, stdout=full, stderr=subprocess.PIPE) as client:
            client.stdin.write(b"1\n")
            client.stdin.flush()
            assert client.wait() == 1
            line = client.stderr.read()
    assert line.startswith(b"sipc send: cannot write to standard output: No space")
    assert line.count(b"\n") == 1
    assert server.accepted == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_never_becomes_a_connection(endpoint, closed):
    def converse(connection):
        receive_request(connection)
        # When the first answer could not be written, the second is not read.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(message(b"SECRET"))
            assert connection.recv(100) == b""

    command = f"{SIPC} send {endpoint} --lines -j 2 {closed}"
    with ScriptedServer(endpoint, converse) as server:
        done = subprocess.run(["sh", "-c", command], input=b"1\n2\n", capture_output=True)
    if closed == "2>&-":
        assert (done.returncode, done.stdout, server.accepted) == (0, b"SECRET\n" * 2, 2)
    else:
        name = b"record 1: cannot read standard input" if closed == "<&-" else b"standard output"
        assert done.returncode == 1
        assert name in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert server.accepted == (0 if closed == "<&-" else server.accepted)


@pytest.mark.parametrize("blocking", [False, True])
def test_standard_streams_work_and_stay_as_somebody_made_them(endpoint, blocking):
    records = b"".join(b"%d" % number * 100 + b"\n" for number in range(300))
    ours, its_input = os.pipe(), os.pipe()
    os.set_blocking(its_input[0], blocking)
    os.set_blocking(ours[1], blocking)
    with Server(endpoint, "cat"), open(ours[0], "rb") as answers:
        with send_lines(endpoint, "-j", 2, stdin=its_input[0], stdout=ours[1]) as client:
            wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait for its input")
            feeder = threading.Thread(target=write_and_close, args=(its_input[1], records))
            feeder.start()
            feeder.join()
            line = answers.readline()
            assert os.get_blocking(its_input[0]) is blocking
            assert os.get_blocking(ours[1]) is blocking
            os.close(ours[1])
            assert line + answers.read() == records
            assert client.wait() == 0
    os.close(its_input[0])


def write_and_close(descriptor: int, payload: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(payload)
