"""`sipc send --lines`: its use of memory, disk and descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter

import pytest
from helpers.command import Program
from helpers.inprocess_cli import run_cli
from helpers.paths import TESTS
from helpers.procfs import descriptors, is_in_syscall, peak_memory
from helpers.scripted_server import ScriptedServer, receive_request, wait_until_unchanged
from helpers.sending import EchoServer, feed, numbers, send_lines, start_send
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets

from simpleipc_cli.batch import batch as module

MIB = 1 << 20
SPOOL_FOLDER = os.environ.get("TMPDIR", "/var/tmp")
ECHO_PROGRAM = str(TESTS / "helpers/echo_server.py")


def spools(pid: int) -> list[str]:
    """Return the unnamed files in which a process stores responses."""
    return [name for name in descriptors(pid) if name.startswith(SPOOL_FOLDER)]


def test_with_one_job_a_stopped_reader_stops_the_server_and_send_fills_no_disk(endpoint):
    sent = [0]

    def conversation(connection):
        receive_request(connection)
        for _ in range(100):
            connection.sendall(packets(b"x" * 60_000))
            sent[0] += 60_000
        connection.sendall(b"0000")

    with ScriptedServer(endpoint, conversation), send_lines(endpoint) as client:
        feed(client, b"go\n")
        client.stdin.close()
        assert client.stdout.read(1) == b"x"
        wait_until_unchanged(lambda: sent[0])
        assert sent[0] < 3 * MIB
        assert not spools(client.pid)
        assert len(client.stdout.read()) == 100 * 60_000
        assert client.wait() == 0


def test_no_record_is_begun_while_the_output_is_not_read(endpoint):
    with (
        EchoServer(endpoint, lambda payload: payload * 10_000) as server,
        send_lines(endpoint, "-j", 2) as client,
    ):
        feed(client, b"x\n" * 300)
        client.stdin.close()
        wait_until(lambda: server.accepted > 10, "the output to fill")
        wait_until_unchanged(lambda: server.accepted)
        assert server.accepted < 100
        assert client.stdout.read() == (b"x" * 10_000 + b"\n") * 300
        assert client.wait() == 0


@pytest.mark.parametrize("window", [50, soak(module.MAX_RESPONSES)])
def test_a_limited_number_of_responses_waits_for_an_older_one(endpoint, monkeypatch, window):
    """The first record is not answered: the client then starts no further record."""
    monkeypatch.setattr(module, "MAX_RESPONSES", window)

    def conversation(connection):
        number = receive_request(connection)
        if number == b"1":
            wait_until(lambda: server.accepted >= window, "as many as may wait")
            wait_until_unchanged(lambda: server.accepted)
            assert server.accepted == window
        connection.sendall(message(number))

    records = numbers(3 * window)
    with ScriptedServer(endpoint, conversation) as server:
        done = run_cli("send", endpoint, "--lines", "-j", 4, input=records)
    assert (done.returncode, done.stdout) == (0, records)


@pytest.mark.parametrize("size", [80, soak(200)])
def test_a_large_response_that_waits_for_an_older_one_is_not_held_in_memory(endpoint, size):
    go = threading.Event()

    def conversation(connection):
        if receive_request(connection) == b"1":
            assert go.wait(TIMEOUT)
        else:
            piece = packets(bytes(MIB))
            for _ in range(size):
                connection.sendall(piece)
            go.set()
        connection.sendall(b"0000")

    with ScriptedServer(endpoint, conversation), send_lines(endpoint, "-j", 2) as client:
        feed(client, b"1\n2\n")
        received = 0
        while received < 1 + size * MIB + 1:
            received += len(client.stdout.read1(MIB))
        assert peak_memory(client.pid) < 64 * MIB
        assert not spools(client.pid)
        client.stdin.close()
        assert client.wait() == 0


@pytest.mark.parametrize(("given", "wanted"), [(80, 100), soak(100, 1000)])
def test_a_large_record_and_a_large_response_are_not_held_in_memory(endpoint, given, wanted):
    """Sizes are in megabytes."""
    piece = packets(bytes(1_000_000))

    def conversation(connection):
        length, end = 0, b""
        while end != b"0000" and (got := connection.recv(MIB)):
            length += len(got)
            end = (end + got)[-4:]
        if length > MIB:
            assert length > given * 1_000_000
            for _ in range(wanted):
                connection.sendall(piece)
        connection.sendall(b"0000")

    with ScriptedServer(endpoint, conversation), send_lines(endpoint, "-j", 2) as client:
        pieces = [*(given * [b"x" * 1_000_000]), b"\ny\n"]
        feeder = threading.Thread(target=feed, args=(client, *pieces))
        feeder.start()
        received = 0
        while received < wanted * 1_000_000 + 2:
            received += len(client.stdout.read1(MIB))
        peak = peak_memory(client.pid)
        feeder.join()
        client.stdin.close()
        assert client.wait() == 0
    assert received == wanted * 1_000_000 + 2
    assert peak < 64 * MIB


@pytest.mark.parametrize("thousands", [5, soak(30)])
def test_many_records_take_no_more_memory_than_few(endpoint, folder, thousands):
    """Both with a server that responds at once, and without a server: every record fails."""
    count = thousands * 1000
    with Program([sys.executable, ECHO_PROGRAM, endpoint], stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"listening\n"
        with open(folder / "errors", "wb") as errors:
            client = send_lines(endpoint, "-j", 8, stderr=errors)
        with client:
            feeder = threading.Thread(target=feed, args=(client, numbers(count)))
            feeder.start()
            lines = iter(client.stdout.readline, b"")
            for number in range(1, count + 1):
                assert next(lines) == b"%d\n" % number
                if number == 2000:
                    early = peak_memory(client.pid)
            feeder.join()
            assert peak_memory(client.pid) < early + 2 * MIB
            server.kill()
            server.wait()
            feeder = threading.Thread(target=feed, args=(client, numbers(count)))
            feeder.start()
            for _ in range(count):
                assert next(lines) == b"\n"
            feeder.join()
            assert peak_memory(client.pid) < early + 4 * MIB
            client.stdin.close()
            assert client.wait() == 3


INHERIT = 'n=0; while [ $((n += 1)) -le $0 ]; do exec {fd}</dev/null; done; exec "$@"'


@pytest.mark.parametrize("inherited", [0, 40])
def test_few_descriptors_are_enough_for_many_jobs(endpoint, inherited):
    """Also if all responses but the first wait on disk, each in a separate file."""
    go = threading.Event()
    most = [0]

    def conversation(connection):
        number = int(receive_request(connection))
        if number == 1:
            assert go.wait(TIMEOUT)
        connection.sendall(message(b"%03d" % number * 25_000))

    with ScriptedServer(endpoint, conversation) as server:
        with start_send(
            *(endpoint, "--lines", "-j", 100),
            wrapper=["bash", "-c", INHERIT, str(inherited), "prlimit", f"-n{48 + inherited}"],
            stderr=subprocess.PIPE,
        ) as client:
            feeder = threading.Thread(target=feed, args=(client, numbers(100)))
            feeder.start()

            def is_full() -> bool:
                most[0] = max(most[0], len(descriptors(client.pid)))
                return len(spools(client.pid)) > 10 and is_in_syscall(client.pid, "poll")

            wait_until(is_full, "many responses on disk")
            assert server.accepted < 100
            go.set()
            for number in range(1, 101):
                assert client.stdout.readline() == b"%03d" % number * 25_000 + b"\n"
            feeder.join()
            client.stdin.close()
            assert client.stderr.read() == b""
            assert client.wait() == 0
    assert most[0] <= 48 + inherited


def test_no_descriptor_stays_open_after_a_record(endpoint):
    with EchoServer(endpoint), send_lines(endpoint, "-j", 4) as client:
        feed(client, b"1\n")
        assert client.stdout.readline() == b"1\n"
        before = Counter(descriptors(client.pid))  # the connection may not be closed yet
        for _ in range(5):
            feed(client, numbers(10))
            for number in range(1, 11):
                assert client.stdout.readline() == b"%d\n" % number
        wait_until(lambda: Counter(descriptors(client.pid)) <= before, "connections to be closed")
        client.stdin.close()
