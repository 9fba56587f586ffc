"""`sipc send --lines`: records that fail are reported, and the others are sent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from functools import partial

import pytest
from helpers import sending
from helpers.command import environment, needs_root, sipc
from helpers.inprocess_cli import run_cli
from helpers.mounts import small_disk
from helpers.procfs import is_in_syscall
from helpers.scripted_server import ScriptedServer, receive_request
from helpers.sending import failed_records, feed
from helpers.terminal import BAR, terminal, terminal_environment, wait_for_bar
from helpers.unread import has_read_all
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets, receive_wire

send_lines = partial(sending.send_lines, stderr=subprocess.PIPE)

WRONG = {
    "closes at once": (b"", b"\n"),
    "an empty packet": (b"0004", b"\n"),
    "cut off after a packet": (packets(b"part"), b"part\n"),
    "cut off after a line": (packets(b"part\n"), b"part\n"),
    "cut off in a packet": (b"0009pa", b"pa\n"),
    "cut off in a header": (packets(b"part") + b"00", b"part\n"),
    "malformed": (b"HTTP/1.1 400 Bad Request\r\n", b"\n"),
    "malformed after a packet": (packets(b"part") + b"zzzz", b"part\n"),
    "a delim packet": (b"0001", b"\n"),
}


@pytest.mark.parametrize(("wire", "place"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("jobs", [1, 4])
def test_a_record_that_fails_is_reported_and_the_others_are_sent(endpoint, wire, place, read, jobs):
    def conversation(connection):
        if connection.recv(5, socket.MSG_PEEK)[4:] != b"2":
            connection.sendall(message(receive_request(connection)))
            return
        if read:  # else the kernel resets the connection
            receive_request(connection)
        connection.sendall(wire)

    with ScriptedServer(endpoint, conversation):
        done = run_cli("send", endpoint, "--lines", "-j", jobs, input=b"1\n2\n3\n4")
    assert (done.returncode, done.stdout) == (7, b"1\n" + place + b"3\n4\n")
    assert failed_records(done.stderr) == [2]


def test_null_writes_a_nul_after_the_response_of_a_failed_record(endpoint):
    def conversation(connection):
        connection.sendall(packets(b"part\n" * (len(receive_request(connection)) - 1)))

    with ScriptedServer(endpoint, conversation):
        done = run_cli("send", endpoint, "-0", input=b"1\x0022")
    assert (done.returncode, done.stdout) == (7, b"\0part\n\0")
    assert failed_records(done.stderr) == [1, 2]


def test_the_received_part_of_a_failed_response_is_written_in_order(endpoint):
    """The result is the same if the failed response waited for an older one."""
    go = threading.Event()

    def conversation(connection):
        number = receive_request(connection)
        if number == b"1":
            assert go.wait(TIMEOUT)
            connection.sendall(message(b"one"))
        else:
            connection.sendall(packets(b"x" * 200_000))

    with ScriptedServer(endpoint, conversation), send_lines(endpoint, "-j", 2) as client:
        feed(client, b"1\n2\n")
        client.stdin.close()
        assert failed_records(client.stderr.readline()) == [2]
        go.set()
        assert client.stdout.read() == b"one\n" + b"x" * 200_000 + b"\n"
        assert client.wait() == 7


def test_the_status_is_that_of_the_failed_record_with_the_lowest_number(endpoint):
    """Here the second record fails before the first."""
    go = threading.Event()

    def conversation(connection):
        receive_request(connection)
        assert go.wait(TIMEOUT)

    with ScriptedServer(endpoint, conversation) as server, send_lines(endpoint, "-j", 2) as client:
        feed(client, b"1\n")
        wait_until(lambda: server.accepted, "the first to be sent")
        os.rename(endpoint, f"{endpoint}.gone")
        feed(client, b"2\n")
        client.stdin.close()
        assert failed_records(client.stderr.readline()) == [2]
        go.set()
        assert failed_records(client.stderr.read()) == [1]
        assert client.stdout.read() == b"\n\n"
        assert client.wait() == 7


def test_a_file_is_not_replaced_when_one_record_has_failed(endpoint, folder):
    def conversation(connection):
        payload = receive_request(connection)
        connection.sendall(packets(payload) if payload == b"2" else message(payload))

    output = folder / "responses"
    output.write_text("old")
    with ScriptedServer(endpoint, conversation):
        done = run_cli("send", endpoint, "--lines", "-o", output, input=b"1\n2\n3\n")
    assert (done.returncode, failed_records(done.stderr)) == (7, [2])
    assert output.read_text() == "old"
    assert sorted(os.listdir(folder)) == ["responses", "sock"]


@pytest.mark.parametrize("jobs", [1, 8])
def test_requests_and_responses_that_arrive_byte_by_byte_are_understood(endpoint, jobs):
    def conversation(connection):
        wire = b""
        while not wire.endswith(b"0000"):
            wire += connection.recv(1)
        for byte in b"0004" + wire:
            connection.sendall(bytes([byte]))

    records = b"".join(b"%d and more\n" % number for number in range(20))
    with ScriptedServer(endpoint, conversation):
        done = run_cli("send", endpoint, "--lines", "-j", jobs, input=records)
    assert (done.returncode, done.stdout, done.stderr) == (0, records, b"")


def test_a_record_that_the_server_does_not_read_delays_no_other_record(endpoint):
    """This applies to a record that fits into the buffers; only then are later ones read."""
    go = threading.Event()
    others = []

    def conversation(connection):
        if connection.recv(5, socket.MSG_PEEK)[4:] == b"b":
            assert go.wait(TIMEOUT)
            connection.sendall(message(b"%d" % len(receive_request(connection))))
            return
        others.append(receive_request(connection))
        connection.sendall(message(others[-1]))
        if len(others) == 3:
            go.set()

    with ScriptedServer(endpoint, conversation):
        given = b"1\n" + b"b" * 100_000 + b"\n2\n3\n"
        done = run_cli("send", endpoint, "--lines", "-j", 2, input=given)
    assert (done.returncode, done.stdout) == (0, b"1\n100000\n2\n3\n")


def test_the_statistics_include_the_failure(endpoint):
    with ScriptedServer(endpoint, receive_request):
        done = run_cli("send", endpoint, "--lines", "--stats", input=b"1\n2\n")
    assert done.returncode == 7
    *errors, figures = done.stderr.splitlines()
    assert failed_records(b"\n".join(errors)) == [1, 2]
    found = json.loads(figures)
    assert (found["outcome"], found["status"]) == ("protocol", 7)
    assert "cut off" in found["error"]


def test_the_first_failure_removes_the_progress_bar(endpoint):
    fail, go = threading.Event(), threading.Event()

    def conversation(connection):
        if receive_request(connection) == b"1":
            assert go.wait(TIMEOUT)
            connection.sendall(b"0000")
        else:
            assert fail.wait(TIMEOUT)

    with ScriptedServer(endpoint, conversation), terminal() as tty:
        options = ["-j", 2, "--progress"]
        with send_lines(endpoint, *options, stderr=tty.slave, env=terminal_environment()) as client:
            feed(client, b"1\n2\n")
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


def test_a_record_without_a_descriptor_waits_until_an_earlier_record_frees_one(endpoint):
    """The limit is lowered while the client runs; the first exchange frees a descriptor."""
    go = threading.Event()

    def conversation(connection):
        number = receive_request(connection)
        assert number != b"1" or go.wait(TIMEOUT)
        connection.sendall(message(number))

    with ScriptedServer(endpoint, conversation) as server, send_lines(endpoint, "-j", 2) as client:
        feed(client, b"1\n")
        wait_until(lambda: server.accepted, "the first to be sent")
        limit = len(os.listdir(f"/proc/{client.pid}/fd"))
        subprocess.run(["prlimit", "--pid", str(client.pid), f"--nofile={limit}:"], check=True)
        feed(client, b"2\n")
        wait_until(lambda: has_read_all(client), "it to read the second")
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait")
        assert server.accepted == 1
        go.set()
        assert client.stdout.readline() == b"1\n"
        assert client.stdout.readline() == b"2\n"
        client.stdin.close()
        assert client.wait() == 0


@needs_root
def test_a_full_disk_fails_only_the_response_that_is_stored_on_it(endpoint, folder):
    with small_disk(folder / "small") as spool:
        done = respond_out_of_turn(endpoint, spool)
    assert done.returncode == 1
    assert failed_records(done.stderr) == [2]
    assert b"No space left on device" in done.stderr
    one, two, three, rest = done.stdout.split(b"\n")
    assert (one, three, rest) == (b"one", b"three", b"")
    assert 0 < len(two) < 3_000_000
    assert not two.strip(b"x")


def test_a_waiting_response_is_stored_in_another_folder_if_tmpdir_does_not_exist(endpoint, folder):
    sent = threading.Event()

    def conversation(connection):
        number = receive_request(connection)
        if number == b"2":
            connection.sendall(message(b"x" * 3_000_000))
            sent.set()
        else:
            assert sent.wait(TIMEOUT)
            connection.sendall(message(number))

    with ScriptedServer(endpoint, conversation):
        env = environment(TMPDIR=str(folder / "missing"))
        done = sipc("send", endpoint, "--lines", "-j", 3, input=b"1\n2\n3\n", env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"1\n" + b"x" * 3_000_000 + b"\n3\n"


def respond_out_of_turn(endpoint, spool) -> subprocess.CompletedProcess[bytes]:
    """Send three records; the long response to the second arrives first, and the client closes."""
    cut = threading.Event()

    def conversation(connection):
        number = receive_request(connection)
        if number == b"2":
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                connection.sendall(message(b"x" * 3_000_000))
            cut.set()
        else:
            assert cut.wait(TIMEOUT)
            connection.sendall(message(b"one" if number == b"1" else b"three"))

    with ScriptedServer(endpoint, conversation):
        env = environment(TMPDIR=str(spool))
        return sipc("send", endpoint, "--lines", "-j", 3, input=b"1\n2\n3\n", env=env)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_send_and_completes_no_request(endpoint, number):
    """Eight requests are in flight: one is half sent, the server is answering the others."""
    received = []

    def conversation(connection):
        received.append(receive_wire(connection))
        assert connection.recv(1) == b""

    with ScriptedServer(endpoint, conversation) as server, send_lines(endpoint, "-j", 8) as client:
        feed(client, b"1\n2\n3\n4\n5\n6\n7\n" + b"x" * 100_000)
        wait_until(lambda: len(received) == 7 and server.accepted == 8, "all to be in flight")
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait for more input")
        client.send_signal(number)
        assert client.wait() == 128 + number
        assert client.stderr.read() == b""
    assert sum(wire.endswith(b"0000") for wire in received) == 7
    assert sum(len(wire) > 100_000 for wire in received) == 1
