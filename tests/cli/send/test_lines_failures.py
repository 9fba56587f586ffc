"""`sipc send --lines` where records fail, servers are missing, time or room runs out."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest
from helpers.command import SIPC, Program, environment, needs_root, sipc
from helpers.procfs import descriptors, is_in_syscall
from helpers.scripted_server import ScriptedServer, receive_request, receive_wire
from helpers.server import Server
from helpers.terminal import BAR, terminal, terminal_environment, wait_for_bar
from helpers.waiting import wait_until
from helpers.wire import connect, message, packets

MIB = 1 << 20


def send_lines(endpoint, *options, **popen) -> Program:
    popen.setdefault("stdin", subprocess.PIPE)
    popen.setdefault("stdout", subprocess.PIPE)
    popen.setdefault("stderr", subprocess.PIPE)
    return Program([SIPC, "send", endpoint, "--lines", *map(str, options)], **popen)


def failed_records(errors: bytes) -> list[int]:
    """The numbers of the records that were told of, each in a line as it should be."""
    found = [
        re.fullmatch(rb"sipc send: record (\d+): [^:]+: .+", line) for line in errors.splitlines()
    ]
    assert all(found), errors
    return [int(line[1]) for line in found]


WRONG = {
    "hangs up at once": (b"", b"\n"),
    "an empty packet": (b"0004", b"\n"),
    "cut off behind a packet": (packets(b"part"), b"part\n"),
    "cut off behind a line": (packets(b"part\n"), b"part\n"),
    "cut off in a packet": (b"0009pa", b"pa\n"),
    "cut off in a header": (packets(b"part") + b"00", b"part\n"),
    "nonsense": (b"HTTP/1.1 400 Bad Request\r\n", b"\n"),
    "nonsense behind a packet": (packets(b"part") + b"zzzz", b"part\n"),
    "a delim packet": (b"0001", b"\n"),
}


@pytest.mark.parametrize(("wire", "place"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("jobs", [1, 4])
def test_a_record_that_fails_is_told_of_and_the_rest_goes_on(endpoint, wire, place, read, jobs):
    def converse(connection):
        if connection.recv(5, socket.MSG_PEEK)[4:] != b"2":
            connection.sendall(message(receive_request(connection)))
            return
        if read:  # else the kernel resets the connection
            receive_request(connection)
        connection.sendall(wire)

    with ScriptedServer(endpoint, converse):
        done = sipc("send", endpoint, "--lines", "-j", jobs, input=b"1\n2\n3\n4")
    assert (done.returncode, done.stdout) == (7, b"1\n" + place + b"3\n4\n")
    assert failed_records(done.stderr) == [2]


def test_with_null_the_place_of_a_failed_record_ends_with_a_nul(endpoint):
    def converse(connection):
        connection.sendall(packets(b"part\n" * (len(receive_request(connection)) - 1)))

    with ScriptedServer(endpoint, converse):
        done = sipc("send", endpoint, "-0", input=b"1\x0022")
    assert (done.returncode, done.stdout) == (7, b"\0part\n\0")
    assert failed_records(done.stderr) == [1, 2]


def test_what_had_come_before_a_failure_is_the_same_out_of_turn(endpoint):
    """Whether a record's answer was passed on at once or had to wait makes no difference."""
    go = threading.Event()

    def converse(connection):
        number = receive_request(connection)
        if number == b"1":
            assert go.wait(30)
            connection.sendall(message(b"one"))
        else:
            connection.sendall(packets(b"x" * 200_000))

    with ScriptedServer(endpoint, converse), send_lines(endpoint, "-j", 2) as client:
        client.stdin.write(b"1\n2\n")
        client.stdin.close()
        assert failed_records(client.stderr.readline()) == [2]
        go.set()
        assert client.stdout.read() == b"one\n" + b"x" * 200_000 + b"\n"
        assert client.wait() == 7


def test_the_status_is_that_of_the_first_record_that_failed_and_not_of_the_first_failure(endpoint):
    go = threading.Event()

    def converse(connection):
        receive_request(connection)
        assert go.wait(30)

    with ScriptedServer(endpoint, converse) as server, send_lines(endpoint, "-j", 2) as client:
        client.stdin.write(b"1\n")
        client.stdin.flush()
        wait_until(lambda: server.accepted, "the first to be sent")
        os.rename(endpoint, f"{endpoint}.gone")
        client.stdin.write(b"2\n")
        client.stdin.close()
        assert failed_records(client.stderr.readline()) == [2]
        go.set()
        assert failed_records(client.stderr.read()) == [1]
        assert client.stdout.read() == b"\n\n"
        assert client.wait() == 7


def test_a_file_is_left_alone_when_one_record_has_failed(endpoint, folder):
    def converse(connection):
        payload = receive_request(connection)
        connection.sendall(packets(payload) if payload == b"2" else message(payload))

    output = folder / "answers"
    output.write_text("old")
    with ScriptedServer(endpoint, converse):
        done = sipc("send", endpoint, "--lines", "-o", output, input=b"1\n2\n3\n")
    assert (done.returncode, failed_records(done.stderr)) == (7, [2])
    assert output.read_text() == "old"
    assert sorted(os.listdir(folder)) == ["answers", "sock"]


def test_requests_and_answers_one_byte_at_a_time_are_understood(endpoint):
    def converse(connection):
        wire = b""
        while not wire.endswith(b"0000"):
            wire += connection.recv(1)
        for byte in b"0004" + wire:
            connection.sendall(bytes([byte]))

    records = b"".join(b"%d and more\n" % number for number in range(20))
    with ScriptedServer(endpoint, converse):
        for jobs in ("1", "8"):
            done = sipc("send", endpoint, "--lines", "-j", jobs, input=records)
            assert (done.returncode, done.stdout, done.stderr) == (0, records, b"")


def test_a_server_that_reads_nothing_of_one_record_keeps_no_other_waiting(endpoint):
    """As long as it fits into the buffers on its way: else those behind it are not seen yet."""
    go = threading.Event()
    others = []

    def converse(connection):
        if connection.recv(5, socket.MSG_PEEK)[4:] == b"b":
            assert go.wait(30)
            connection.sendall(message(b"%d" % len(receive_request(connection))))
            return
        others.append(receive_request(connection))
        connection.sendall(message(others[-1]))
        if len(others) == 3:
            go.set()

    with ScriptedServer(endpoint, converse):
        given = b"1\n" + b"b" * 100_000 + b"\n2\n3\n"
        done = sipc("send", endpoint, "--lines", "-j", 2, input=given)
    assert (done.returncode, done.stdout) == (0, b"1\n100000\n2\n3\n")


def test_figures_speak_of_the_failure(endpoint):
    with ScriptedServer(endpoint, receive_request):
        done = sipc("send", endpoint, "--lines", "--stats", input=b"1\n2\n")
    assert done.returncode == 7
    *errors, figures = done.stderr.splitlines()
    assert failed_records(b"\n".join(errors)) == [1, 2]
    found = json.loads(figures)
    assert (found["outcome"], found["status"]) == ("protocol", 7)
    assert "cut off" in found["error"]


def test_a_bar_gives_way_to_the_first_failure(endpoint):
    fail, go = threading.Event(), threading.Event()

    def converse(connection):
        if receive_request(connection) == b"1":
            assert go.wait(30)
            connection.sendall(b"0000")
        else:
            assert fail.wait(30)

    with ScriptedServer(endpoint, converse), terminal() as tty:
        options = ["-j", 2, "--progress"]
        with send_lines(endpoint, *options, stderr=tty.slave, env=terminal_environment()) as client:
            client.stdin.write(b"1\n2\n")
            client.stdin.close()
            wait_for_bar(tty)
            fail.set()
            wait_until(lambda: "record 2" in tty.screen.text, "the failure")
            assert not BAR.search(tty.screen.text)
            go.set()
            assert client.wait() == 7
        tty.finish()
    shown = "".join(tty.screen.text.split("\n"))
    assert failed_records(shown.encode()) == [2]


# -- nobody there ----------------------------------------------------------------------


def test_nobody_there_is_told_for_each_record(endpoint, folder):
    done = sipc("send", endpoint, "--lines", "-j", 2, input=b"1\n2\n3")
    assert (done.returncode, done.stdout) == (4, b"\n\n\n")
    assert failed_records(done.stderr) == [1, 2, 3]
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(endpoint))
        assert sipc("send", endpoint, "--lines", input=b"1\n").returncode == 3
    assert sipc("send", folder, "--lines", input=b"1\n").returncode == 5


def test_no_records_need_no_server(endpoint):
    done = sipc("send", endpoint, "--lines", input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("stale", [False, True])
def test_wait_sends_every_record_once_when_a_server_is_there(endpoint, stale):
    records = b"1\n2\n3\n4\n"
    if stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(endpoint))
    with send_lines(endpoint, "-j", 2, "--wait", "30s") as client:
        client.stdin.write(records)
        client.stdin.close()
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait")
        with Server(endpoint, "cat", "--count", 4) as server:
            assert client.stdout.read() == records
            assert client.wait() == 0
            assert server.wait() == 0
            assert server.log.count("in=1") == 4


def test_wait_has_an_end_for_each_record_and_the_rest_goes_on(endpoint):
    with send_lines(endpoint, "--wait", "50ms") as client:
        client.stdin.write(b"1\n2\n")
        client.stdin.flush()
        errors = client.stderr.readline() + client.stderr.readline()
        assert failed_records(errors) == [1, 2]
        with Server(endpoint, "cat"):
            client.stdin.write(b"3\n")
            client.stdin.close()
            assert client.stdout.read() == b"\n\n3\n"
            assert client.wait() == 4


def test_a_request_is_never_sent_twice(endpoint):
    """With --wait, too, a cut-off answer is a failure and no reason to try again."""
    seen = []

    with ScriptedServer(endpoint, lambda connection: seen.append(receive_request(connection))):
        done = sipc("send", endpoint, "--lines", "--wait", "1s", "-j", 2, input=b"1\n2\n3\n")
    assert (done.returncode, done.stdout) == (7, b"\n\n\n")
    assert sorted(seen) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("limit", [["--connect-timeout", "50ms"], ["--wait", "50ms"], ["-m", "1s"]])
def test_a_busy_server_is_not_listening_once_the_time_is_up(endpoint, limit):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            done = sipc("send", endpoint, "--lines", *limit, input=b"x\n")
    assert (done.returncode, done.stdout) == (3, b"\n")
    assert failed_records(done.stderr) == [1]
    assert b"busy" in done.stderr


def test_a_busy_server_is_waited_for(endpoint):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint), send_lines(endpoint, "--connect-timeout", "0") as client:
            client.stdin.write(b"x\n")
            client.stdin.close()
            wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait")
            busy.accept()[0].close()
            with busy.accept()[0] as connection:
                connection.sendall(message(receive_request(connection)))
            assert client.stdout.read() == b"x\n"
            assert client.wait() == 0


def test_without_descriptors_a_record_waits_for_those_before_it(endpoint):
    """The limit is taken away while it runs; the first exchange gives its descriptor back."""
    go = threading.Event()

    def converse(connection):
        number = receive_request(connection)
        assert number != b"1" or go.wait(30)
        connection.sendall(message(number))

    with ScriptedServer(endpoint, converse) as server, send_lines(endpoint, "-j", 2) as client:
        client.stdin.write(b"1\n")
        client.stdin.flush()
        wait_until(lambda: server.accepted, "the first to be sent")
        limit = len(os.listdir(f"/proc/{client.pid}/fd"))
        subprocess.run(["prlimit", "--pid", str(client.pid), f"--nofile={limit}:"], check=True)
        client.stdin.write(b"2\n")
        client.stdin.flush()
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait")
        assert server.accepted == 1
        go.set()
        assert client.stdout.readline() == b"1\n"
        assert client.stdout.readline() == b"2\n"
        client.stdin.close()
        assert client.wait() == 0


# -- no time ---------------------------------------------------------------------------


def test_max_time_is_for_everything_and_what_is_complete_is_delivered(endpoint):
    def converse(connection):
        number = receive_request(connection)
        if number in b"24":
            connection.sendall(message(number))
        else:
            assert connection.recv(1) == b""

    with ScriptedServer(endpoint, converse):
        options = ["-j", "4", "-m", "2s"]
        done = sipc("send", endpoint, "--lines", *options, input=b"1\n2\n3\n4\n")
    assert (done.returncode, done.stdout) == (6, b"\n2\n\n4\n")
    assert failed_records(done.stderr) == [1, 3]


def test_max_time_ends_a_wait_for_input(endpoint):
    with Server(endpoint, "cat"), send_lines(endpoint, "-m", "2s") as client:
        client.stdin.write(b"1\nhalf")
        client.stdin.flush()
        assert client.stdout.read() == b"1\n"
        assert client.wait() == 6
        errors = client.stderr.read()
    assert failed_records(errors) == [2]
    assert b"standard input" in errors


def test_silent_input_and_nobody_there_is_nobody_there(endpoint):
    with send_lines(endpoint, "-m", "100ms") as client:
        assert client.wait() == 4


def test_max_time_ends_a_wait_for_whoever_takes_the_output(endpoint):
    with Server(endpoint, "head -c 10000000 /dev/zero"):
        for jobs in (1, 2):
            with send_lines(endpoint, "-j", jobs, "-m", "700ms") as client:
                client.stdin.write(b"1\n2\n3\n")
                client.stdin.close()
                assert client.wait() == 6
                assert 1 in failed_records(client.stderr.read())


@pytest.mark.parametrize("wire", [packets(bytes(4 * MIB)), b"0004" * MIB], ids=["data", "empty"])
def test_max_time_ends_an_endless_answer(endpoint, folder, wire):
    def converse(connection):
        receive_request(connection)
        try:
            while True:
                connection.sendall(wire)
        except (BrokenPipeError, ConnectionResetError):
            pass

    with ScriptedServer(endpoint, converse), open("/dev/null", "wb") as null:
        with send_lines(endpoint, "-m", "500ms", "-j", 2, stdout=null) as client:
            client.stdin.write(b"1\n2\n")
            client.stdin.close()
            assert client.wait() == 6
            assert failed_records(client.stderr.read()) == [1, 2]


# -- no room ---------------------------------------------------------------------------


@needs_root
def test_a_full_disk_fails_one_answer_that_waits_and_no_other(endpoint, folder):
    spool = folder / "small"
    spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", spool], check=True)
    try:
        done = answer_out_of_turn(endpoint, spool)
    finally:
        subprocess.run(["umount", spool], check=True)
    assert done.returncode == 1
    assert failed_records(done.stderr) == [2]
    assert b"No space left on device" in done.stderr
    one, two, three, rest = done.stdout.split(b"\n")
    assert (one, three, rest) == (b"one", b"three", b"")
    assert 0 < len(two) < 3_000_000
    assert not two.strip(b"x")


def test_a_missing_folder_for_answers_fails_one_that_waits_and_no_other(endpoint, folder):
    done = answer_out_of_turn(endpoint, folder / "missing")
    assert done.returncode == 1
    assert failed_records(done.stderr) == [2]
    assert b"TMPDIR" in done.stderr
    assert done.stdout.startswith(b"one\nx")
    assert done.stdout.endswith(b"x\nthree\n")


def answer_out_of_turn(endpoint, spool) -> subprocess.CompletedProcess[bytes]:
    """Three records; the second one's long answer comes first, and is cut off by our hanging up."""
    cut = threading.Event()

    def converse(connection):
        number = receive_request(connection)
        if number == b"2":
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                connection.sendall(message(b"x" * 3_000_000))
            cut.set()
        else:
            assert cut.wait(30)
            connection.sendall(message(b"one" if number == b"1" else b"three"))

    with ScriptedServer(endpoint, converse):
        env = environment(TMPDIR=str(spool))
        return sipc("send", endpoint, "--lines", "-j", 3, input=b"1\n2\n3\n", env=env)


def test_a_long_path_works_and_leaves_nothing_open(folder):
    path = folder / ("d" * 100) / ("s" * 100)
    path.parent.mkdir()
    with Server(path, "cat"), send_lines(path, "-j", 2) as client:
        client.stdin.write(b"1\n2\n3\n")
        client.stdin.flush()
        assert [client.stdout.readline() for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
        assert not any("dddd" in name for name in descriptors(client.pid))
        client.stdin.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_completes_no_request(endpoint, number):
    """Eight are in flight: one is half sent, the others are being answered."""
    seen = []

    def converse(connection):
        seen.append(receive_wire(connection))
        assert connection.recv(1) == b""

    with ScriptedServer(endpoint, converse) as server, send_lines(endpoint, "-j", 8) as client:
        client.stdin.write(b"1\n2\n3\n4\n5\n6\n7\n" + b"x" * 100_000)
        client.stdin.flush()
        wait_until(lambda: len(seen) == 7 and server.accepted == 8, "all to be in flight")
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait for more input")
        client.send_signal(number)
        assert client.wait() == 128 + number
        assert client.stderr.read() == b""
    assert sum(wire.endswith(b"0000") for wire in seen) == 7
    assert sum(len(wire) > 100_000 for wire in seen) == 1
