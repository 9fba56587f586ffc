"""`sipc send --lines --jobs N`: many at once, in order, and within bounds."""

from __future__ import annotations

import os
import pty
import random
import re
import subprocess
import sys
import termios
import threading
import time
import tty
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.command import SIPC, Program, sipc
from helpers.inprocess_cli import run_cli
from helpers.paths import TESTS
from helpers.procfs import descriptors, peak_memory
from helpers.scripted_server import (
    ScriptedServer,
    receive_request,
    wait_for_close,
    wait_until_unchanged,
)
from helpers.sending import EchoServer, feed, send_lines, start_send
from helpers.server import Server
from helpers.state import needs_files
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message, packets

from simpleipc_cli.batch import batch as module

MIB = 1 << 20
SOAK = int(os.environ.get("SIPC_SOAK", "3"))
SPOOL_FOLDER = os.environ.get("TMPDIR", "/var/tmp")
ECHO_PROGRAM = str(TESTS / "helpers/echo_server.py")


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


def numbers(count: int, start: int = 1) -> bytes:
    return b"".join(b"%d\n" % number for number in range(start, start + count))


def spools(pid: int) -> list[str]:
    """The files without a name in which responses of a process wait."""
    return [name for name in descriptors(pid) if name.startswith(SPOOL_FOLDER)]


# -- order and number ------------------------------------------------------------------


class Meeting(ScriptedServer):
    """Responds when there are this many connections, and counts how many there are at most."""

    def __init__(self, path, size: int, **options) -> None:
        super().__init__(path, self._meet, **options)
        self._barrier = threading.Barrier(size, timeout=TIMEOUT)
        self._lock = threading.Lock()
        self._present = self.most = 0

    def _meet(self, connection) -> None:
        payload = receive_request(connection)
        with self._lock:
            self._present += 1
            self.most = max(self.most, self._present)
        self._barrier.wait()
        with self._lock:
            self._present -= 1
        connection.sendall(message(payload))


@pytest.mark.parametrize(
    ("options", "size"), [([], 1), (["-j", 4], 4), (["--jobs", 20], 20)], ids=["default", "4", "20"]
)
def test_as_many_as_allowed_are_in_flight_and_no_more(endpoint, options, size):
    records = numbers(3 * size)
    with Meeting(endpoint, size) as server:
        assert run_cli("send", endpoint, "--lines", *options, input=records).stdout == records
    assert server.most == size


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_responses_are_written_in_the_order_of_the_records(endpoint, run):
    """Those of each round of eight are given in the opposite order."""
    turn = threading.Condition()
    answered = set()

    def conversation(connection):
        number = int(receive_request(connection))
        with turn:
            later = number + 1
            assert turn.wait_for(lambda: number % 8 == 7 or later in answered, TIMEOUT)
            answered.add(number)
            connection.sendall(message(b"%d" % number * 50_000))
            turn.notify_all()

    with ScriptedServer(endpoint, conversation):
        done = run("send", endpoint, "--lines", "-j", 8, input=numbers(16, start=0))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [b"%d" % number * 50_000 for number in range(16)]


# -- no deadlock -----------------------------------------------------------------------


class OneThread:
    """A server with one thread that reads all requests before it responds to the first.

    It responds in the order that is asked for, to each in full before the next.
    """

    def __init__(self, path, order: list[int], response) -> None:
        self._order = order
        self._response = response
        self._server = ScriptedServer(path, self._collect, in_turn=True)
        self._collected: dict[int, object] = {}
        self.answered: list[int] = []

    def _collect(self, connection) -> None:
        number = int(receive_request(connection))
        self._collected[number] = connection.dup()
        if len(self._collected) == len(self._order):
            for wanted in self._order:
                with self._collected[wanted] as answering:
                    answering.settimeout(TIMEOUT)
                    answering.sendall(message(self._response(wanted)))
                self.answered.append(wanted)

    def __enter__(self) -> OneThread:
        self._server.__enter__()
        return self

    def __exit__(self, *failure) -> None:
        self._server.__exit__(*failure)


@pytest.mark.parametrize("order", [[8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_a_server_with_one_thread_is_not_locked_up(endpoint, order):
    """Its responses fit into no buffer, whether they have their turn or not."""
    with OneThread(endpoint, order, lambda number: b"%d" % number * 1_000_000):
        done = run_cli("send", endpoint, "--lines", "-j", 8, input=numbers(8))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [b"%d" % number * 1_000_000 for number in range(1, 9)]


@pytest.mark.parametrize("stream", ["stdout", "stdout and stderr in one"])
def test_a_server_with_one_thread_is_not_locked_up_by_a_stopped_reader(endpoint, stream):
    """All but the last response, which keeps no other waiting, are read before any is written."""
    order = [2, 1, 3, 4]

    def response(number):
        return b"%d" % number * 2_000_000

    joined = {"stderr": subprocess.STDOUT} if "stderr" in stream else {}
    with (
        OneThread(endpoint, order, response) as server,
        send_lines(endpoint, "-j", 4, **joined) as client,
    ):
        feed(client, numbers(4))
        client.stdin.close()
        wait_until(lambda: server.answered == [2, 1, 3], "all responses but one")
        assert client.stdout.read() == b"".join(response(n) + b"\n" for n in (1, 2, 3, 4))
        assert client.wait() == 0


@pytest.mark.parametrize("options", [[], ["--progress"]], ids=["alone", "with a bar"])
def test_a_server_with_one_thread_is_not_locked_up_by_a_stopped_terminal(endpoint, options):
    """At some point a terminal has room for less than a write asks for."""
    order = [2, 1, 3, 4]

    def response(number):
        return b"%d\n" % number * 150_000

    with OneThread(endpoint, order, response) as server:
        master, slave = pty.openpty()
        tty.setraw(slave)  # but with the newlines that a terminal has
        mode = termios.tcgetattr(slave)
        mode[1] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        with send_lines(endpoint, "-j", 4, *options, stdout=slave, stderr=slave) as client:
            os.close(slave)
            feed(client, numbers(4))
            client.stdin.close()
            wait_until(lambda: server.answered == [2, 1, 3], "all responses but one")
            expected = b"".join(response(number) for number in (1, 2, 3, 4))
            expected = expected.replace(b"\n", b"\r\n")
            shown = read_terminal(master)
            assert shown[shown.index(expected[:10]) :][: len(expected)] == expected
            assert client.wait() == 0


def read_terminal(master: int) -> bytes:
    """All that is written to a terminal until no process has it open."""
    shown = bytearray()
    try:
        while piece := os.read(master, MIB):
            shown += piece
    except OSError:
        pass  # EIO
    os.close(master)
    return bytes(shown)


def test_a_message_that_is_not_read_keeps_no_other_record_waiting(endpoint):
    """Messages go where the responses go, and that is full."""
    full, failed, answered = threading.Event(), threading.Event(), threading.Event()

    def conversation(connection):
        number = int(receive_request(connection))
        if number == 1:
            connection.sendall(packets(b"x" * 2_000_000))
            full.set()
            assert answered.wait(TIMEOUT)
            connection.sendall(b"0000")
        elif number == 2:
            assert full.wait(TIMEOUT)
            connection.sendall(b"nonsense")
            wait_for_close(connection)
            failed.set()
        else:
            assert failed.wait(TIMEOUT)
            connection.sendall(message(b"y" * 2_000_000))
            answered.set()

    with ScriptedServer(endpoint, conversation):
        with send_lines(endpoint, "-j", 3, stderr=subprocess.STDOUT) as client:
            feed(client, numbers(3))
            client.stdin.close()
            assert answered.wait(TIMEOUT)
            out = client.stdout.read()
            assert client.wait() == 7
    error = re.search(rb"sipc send: record 2: [^\n]*\n", out)[0]
    assert out.replace(error, b"") == b"x" * 2_000_000 + b"\n\n" + b"y" * 2_000_000 + b"\n"


# -- bounds ----------------------------------------------------------------------------


def test_one_at_a_time_a_stopped_reader_stops_the_server_and_fills_no_disk(endpoint):
    sent = [0]

    def conversation(connection):
        receive_request(connection)
        for _ in range(100):
            sent[0] += connection.send(packets(b"x" * 60_000))
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
    """The first record is not answered: after so many, no other is begun."""
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
def test_a_large_response_that_waits_for_an_older_one_stays_out_of_memory(endpoint, size):
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
def test_a_large_record_and_a_large_response_stay_out_of_memory(endpoint, given, wanted):
    """Sizes are in megabytes."""
    piece = packets(bytes(1_000_000))

    def conversation(connection):
        length = 0
        while (got := connection.recv(MIB, 0)) and not got.endswith(b"0000"):
            length += len(got)
        if length > MIB:
            assert length + len(got) > given * 1_000_000
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
    """With a server that responds at once, and after it has ended, when every record fails."""
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


# -- descriptors -----------------------------------------------------------------------


def test_few_descriptors_are_enough_for_many_jobs(endpoint):
    """Also when all but the first response have to wait on disk, each in a file of its own."""
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
            wrapper=["prlimit", "--nofile=48:48"],
            stderr=subprocess.PIPE,
        ) as client:
            feeder = threading.Thread(target=feed, args=(client, numbers(100)))
            feeder.start()

            def is_full() -> bool:
                most[0] = max(most[0], len(descriptors(client.pid)))
                return len(spools(client.pid)) > 10

            wait_until(is_full, "many responses on disk")
            assert server.accepted < 100
            go.set()
            for number in range(1, 101):
                assert client.stdout.readline() == b"%03d" % number * 25_000 + b"\n"
            feeder.join()
            client.stdin.close()
            assert client.stderr.read() == b""
            assert client.wait() == 0
    assert most[0] <= 48


@needs_files(4096)
def test_many_jobs_raise_the_limit_of_descriptors(endpoint):
    with Meeting(endpoint, 100):
        command = ["prlimit", "--nofile=64:4096", SIPC, "send", endpoint, "--lines", "-j", "100"]
        done = subprocess.run(command, input=numbers(100), capture_output=True)
    assert (done.returncode, done.stdout) == (0, numbers(100))


def test_no_descriptor_stays_open_after_a_record(endpoint):
    with EchoServer(endpoint), send_lines(endpoint, "-j", 4) as client:
        feed(client, b"1\n")
        assert client.stdout.readline() == b"1\n"
        before = descriptors(client.pid)
        for _ in range(5):
            feed(client, numbers(10))
            for number in range(1, 11):
                assert client.stdout.readline() == b"%d\n" % number
        wait_until(lambda: descriptors(client.pid) == before, "all connections to be closed")
        client.stdin.close()


# -- everything at once ----------------------------------------------------------------


@pytest.mark.parametrize("round_", [0, *map(soak, range(1, SOAK + 1))])
def test_the_output_does_not_depend_on_the_order_of_events(endpoint, round_):
    """Requests, responses and input come in pieces of any size, after pauses of any length."""
    seed = random.randrange(1 << 32) if round_ else 0
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    separator = chance.choice([b"\n", b"\0"])
    sizes = [0, 1, 10, 1000, 65_515, 65_516, 65_517, 70_000, 300_000]
    records = [chance.randbytes(chance.choice(sizes)).replace(separator, b"x") for _ in range(40)]
    jobs = chance.choice([1, 2, 3, 8, 40])
    in_turn = chance.random() < 0.2

    def conversation(connection):
        luck = random.Random(chance.random())
        pauses = luck.random() < 0.3
        payload = receive_slowly(connection, luck)
        left = memoryview(message(payload))
        while left:
            if luck.random() < 0.1 and pauses:
                time.sleep(luck.random() * 0.02)
            piece = left[: luck.choice([1, 3, 4, 5, 1000, 70_000, 400_000])]
            connection.sendall(piece)
            left = left[len(piece) :]

    given = separator.join(records) + separator
    option = "--lines" if separator == b"\n" else "--null"
    backlog = chance.choice([0, 3, 1000])
    with (
        ScriptedServer(endpoint, conversation, in_turn=in_turn, backlog=backlog),
        start_send(
            *(endpoint, option, "-j", jobs, "--connect-timeout", "0"), stderr=subprocess.PIPE
        ) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        feeding = pool.submit(feed_slowly, client, given, random.Random(seed))
        out = client.stdout.read()
        feeding.result()
        assert client.stderr.read() == b""
        assert client.wait() == 0
    ends = [b"" if separator == b"\n" and r.endswith(b"\n") else separator for r in records]
    assert out == b"".join(r + end for r, end in zip(records, ends, strict=True))


def receive_slowly(connection, luck) -> bytes:
    wire = bytearray()
    payload = b""
    while True:
        while len(wire) >= 4 and (length := int(wire[:4], 16)) <= len(wire):
            if length == 0:
                return payload
            payload += wire[4:length]
            del wire[:length]
        if luck.random() < 0.05:
            time.sleep(luck.random() * 0.02)
        piece = connection.recv(luck.choice([1, 100, 100_000]))
        assert piece, "the request was cut off"
        wire += piece


def feed_slowly(client, given: bytes, luck) -> None:
    left = memoryview(given)
    while left:
        if luck.random() < 0.3:
            time.sleep(luck.random() * 0.01)
        piece = left[: luck.choice([1, 10, 1000, 100_000, 1_000_000])]
        client.stdin.write(piece)
        client.stdin.flush()
        left = left[len(piece) :]
    client.stdin.close()


def test_many_clients_share_a_server(endpoint):
    records = numbers(12)
    with Server(endpoint, "cat", "--threads", 2), ThreadPoolExecutor(3) as pool:
        options = ["--lines", "-j", "8", "--connect-timeout", "0"]
        runs = [pool.submit(sipc, "send", endpoint, *options, input=records) for _ in range(3)]
        assert [run.result().stdout for run in runs] == [records] * 3


def test_all_records_are_sent_to_a_server_whose_backlog_is_one(endpoint):
    def conversation(connection):
        payload = receive_request(connection)
        time.sleep(0.003)
        connection.sendall(message(payload))

    with ScriptedServer(endpoint, conversation, in_turn=True, backlog=0):
        options = ["-j", "8", "--wait", "1h", "--connect-timeout", "10ms"]
        done = run_cli("send", endpoint, "--lines", *options, input=numbers(40))
    assert (done.returncode, done.stdout, done.stderr) == (0, numbers(40), b"")
