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
from helpers.paths import TESTS
from helpers.procfs import descriptors, peak_memory
from helpers.scripted_server import ScriptedServer, receive_request, wait_until_unchanged
from helpers.server import Server
from helpers.state import needs_files
from helpers.waiting import wait_until
from helpers.wire import message, packets

MIB = 1 << 20
SPOOL_FOLDER = os.environ.get("TMPDIR", "/var/tmp")
ECHO_AT_ONCE = str(TESTS / "helpers/echo_server.py")


def numbers(count: int, start: int = 1) -> bytes:
    return b"".join(b"%d\n" % number for number in range(start, start + count))


def send_lines(endpoint, *options, wrapper=(), **popen) -> Program:
    popen.setdefault("stdin", subprocess.PIPE)
    popen.setdefault("stdout", subprocess.PIPE)
    return Program([*wrapper, SIPC, "send", endpoint, "--lines", *map(str, options)], **popen)


def spools(pid: int) -> list[str]:
    """The files without a name in which a process lets something wait."""
    return [name for name in descriptors(pid) if name.startswith(SPOOL_FOLDER)]


class Meeting(ScriptedServer):
    """Answers nobody before so many are there, and counts how many there are at most."""

    def __init__(self, path, size: int, **options) -> None:
        super().__init__(path, self._meet, **options)
        self._barrier = threading.Barrier(size, timeout=30)
        self._count = threading.Lock()
        self.present = self.most = 0

    def _meet(self, connection) -> None:
        payload = receive_request(connection)
        with self._count:
            self.present += 1
            self.most = max(self.most, self.present)
        self._barrier.wait()
        with self._count:
            self.present -= 1
        connection.sendall(message(payload))


@pytest.mark.parametrize(
    ("options", "size"),
    [([], 1), (["-j", 1], 1), (["-j", 4], 4), (["--jobs", 30], 30)],
    ids=["default", "1", "4", "30"],
)
def test_so_many_are_in_flight_at_once_and_no_more(endpoint, options, size):
    records = numbers(3 * size)
    with Meeting(endpoint, size) as server:
        assert sipc("send", endpoint, "--lines", *options, input=records).stdout == records
    assert server.most == size


def test_answers_come_in_the_order_of_the_records(endpoint):
    """Those of each round of eight are given in the opposite order."""
    turn = threading.Condition()
    answered = set()

    def converse(connection):
        number = int(receive_request(connection))
        with turn:
            later = number + 1
            assert turn.wait_for(lambda: number % 8 == 7 or later in answered, 30)
            answered.add(number)
            connection.sendall(message(b"%d" % number * 50_000))
            turn.notify_all()

    with ScriptedServer(endpoint, converse):
        done = sipc("send", endpoint, "--lines", "-j", 8, input=numbers(24, start=0))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [b"%d" % number * 50_000 for number in range(24)]


class OneThread:
    """A server with one thread that has read so many requests before it answers the first.

    It answers in the order that is asked for, each in full before the next.
    """

    def __init__(self, path, order: list[int], answer) -> None:
        self._order = order
        self._answer = answer
        self._server = ScriptedServer(path, self._collect, in_turn=True)
        self._collected: dict[int, object] = {}
        self.given: list[int] = []

    def _collect(self, connection) -> None:
        number = int(receive_request(connection))
        self._collected[number] = connection.dup()
        if len(self._collected) == len(self._order):
            for wanted in self._order:
                with self._collected[wanted] as answering:
                    answering.settimeout(30)
                    answering.sendall(message(self._answer(wanted)))
                self.given.append(wanted)

    def __enter__(self) -> OneThread:
        self._server.__enter__()
        return self

    def __exit__(self, *failure) -> None:
        self._server.__exit__(*failure)


@pytest.mark.parametrize("order", [[8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_a_server_with_one_thread_is_not_locked_up(endpoint, order):
    """It gives answers that fit into no buffer, whether they have their turn or not."""
    with OneThread(endpoint, order, lambda number: b"%d" % number * 5_000_000):
        with send_lines(endpoint, "-j", 8) as client:
            client.stdin.write(numbers(8))
            client.stdin.close()
            for number in range(1, 9):
                assert client.stdout.readline() == b"%d" % number * 5_000_000 + b"\n"
            assert client.wait() == 0


@pytest.mark.parametrize("stream", ["stdout", "stdout and stderr in one"])
def test_nor_is_it_while_nobody_takes_our_output(endpoint, stream):
    """All but the last answer, which keeps nobody waiting, are read before anything is taken."""
    order = [2, 1, 3, 4]

    def answer(number):
        return b"%d" % number * 3_000_000

    joined = {"stderr": subprocess.STDOUT} if "stderr" in stream else {}
    with (
        OneThread(endpoint, order, answer) as server,
        send_lines(endpoint, "-j", 4, **joined) as client,
    ):
        client.stdin.write(numbers(4))
        client.stdin.close()
        wait_until(lambda: server.given == [2, 1, 3], "all answers but one")
        assert client.stdout.read() == b"".join(answer(n) + b"\n" for n in (1, 2, 3, 4))
        assert client.wait() == 0


@pytest.mark.parametrize("options", [[], ["--progress"]], ids=["alone", "with a bar"])
def test_nor_is_it_while_our_terminal_is_stopped(endpoint, options):
    """Which has room for less than it is asked to take, at some point."""
    order = [2, 1, 3, 4]

    def answer(number):
        return b"%d\n" % number * 500_000

    with OneThread(endpoint, order, answer) as server:
        master, slave = pty.openpty()
        tty.setraw(slave)  # but with the newlines that a terminal has
        mode = termios.tcgetattr(slave)
        mode[1] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        with send_lines(endpoint, "-j", 4, *options, stdout=slave, stderr=slave) as client:
            os.close(slave)
            client.stdin.write(numbers(4))
            client.stdin.close()
            wait_until(lambda: server.given == [2, 1, 3], "all answers but one")
            expected = b"".join(answer(number) for number in (1, 2, 3, 4)).replace(b"\n", b"\r\n")
            shown = read_terminal(master)
            assert shown[shown.index(expected[:10]) :][: len(expected)] == expected
            assert client.wait() == 0


def read_terminal(master: int) -> bytes:
    """All that is written to a terminal until nobody holds it any more."""
    shown = bytearray()
    try:
        while piece := os.read(master, MIB):
            shown += piece
    except OSError:
        pass  # EIO: nobody does
    os.close(master)
    return bytes(shown)


def test_a_failure_that_nobody_reads_of_keeps_no_other_waiting(endpoint):
    """Errors go where the answers go, and that is full."""
    full, failed, answered = threading.Event(), threading.Event(), threading.Event()

    def converse(connection):
        number = int(receive_request(connection))
        if number == 1:
            connection.sendall(packets(b"x" * 3_000_000))
            full.set()
            assert answered.wait(30)
            connection.sendall(b"0000")
        elif number == 2:
            assert full.wait(30)
            connection.sendall(b"nonsense")
            assert connection.recv(1) == b""
            failed.set()
        else:
            assert failed.wait(30)
            connection.sendall(message(b"y" * 3_000_000))
            answered.set()

    with ScriptedServer(endpoint, converse):
        with send_lines(endpoint, "-j", 3, stderr=subprocess.STDOUT) as client:
            client.stdin.write(numbers(3))
            client.stdin.close()
            assert answered.wait(30)
            out = client.stdout.read()
            assert client.wait() == 7
    error = re.search(rb"sipc send: record 2: [^\n]*\n", out)[0]
    assert out.replace(error, b"") == b"x" * 3_000_000 + b"\n\n" + b"y" * 3_000_000 + b"\n"


def test_one_at_a_time_a_stopped_reader_stops_the_server_and_fills_no_disk(endpoint):
    sent = [0]

    def converse(connection):
        receive_request(connection)
        for _ in range(300):
            sent[0] += connection.send(packets(b"x" * 60_000))
        connection.sendall(b"0000")

    with ScriptedServer(endpoint, converse), send_lines(endpoint) as client:
        client.stdin.write(b"go\n")
        client.stdin.close()
        assert client.stdout.read(1) == b"x"
        wait_until_unchanged(lambda: sent[0])
        assert sent[0] < 3 * MIB
        assert not spools(client.pid)
        assert len(client.stdout.read()) == 300 * 60_000
        assert client.wait() == 0


def test_nothing_more_is_begun_while_nobody_takes_the_output(endpoint):
    def converse(connection):
        connection.sendall(message(receive_request(connection) * 10_000))

    with ScriptedServer(endpoint, converse) as server, send_lines(endpoint, "-j", 2) as client:
        client.stdin.write(b"x\n" * 500)
        client.stdin.close()
        wait_until_unchanged(lambda: server.accepted)
        assert 10 < server.accepted < 100
        assert client.stdout.read() == (b"x" * 10_000 + b"\n") * 500
        assert client.wait() == 0


def test_answers_that_wait_for_an_older_one_are_not_without_end(endpoint):
    """The first record is not answered: after a thousand, no other is begun."""
    go = threading.Event()

    def converse(connection):
        number = receive_request(connection)
        assert number != b"1" or go.wait(30)
        connection.sendall(message(number))

    with ScriptedServer(endpoint, converse) as server, send_lines(endpoint, "-j", 4) as client:
        feeder = threading.Thread(target=feed, args=(client, [numbers(5000)]))
        feeder.start()

        wait_until(lambda: server.accepted >= 1000, "as many as may wait")
        wait_until_unchanged(lambda: server.accepted)
        assert server.accepted == 1000
        go.set()
        for number in range(1, 5001):
            assert client.stdout.readline() == b"%d\n" % number
        feeder.join()
        client.stdin.close()


def test_answers_out_of_turn_of_any_size_stay_out_of_memory(endpoint):
    size = 200_000_000
    piece = message(bytes(MIB))[:-4]

    def converse(connection):
        first = receive_request(connection) == b"1"
        if first:
            assert go.wait(60)
        for _ in range(size // MIB):
            connection.sendall(piece)
        connection.sendall(b"0000")
        go.set()

    go = threading.Event()
    with ScriptedServer(endpoint, converse), send_lines(endpoint, "-j", 2) as client:
        client.stdin.write(b"1\n2\n")
        client.stdin.flush()
        received = 0
        while received < 2 * (size // MIB * MIB + 1):
            received += len(client.stdout.read1(MIB))
        assert peak_memory(client.pid) < 64 * MIB
        assert not spools(client.pid)
        client.stdin.close()
        assert client.wait() == 0


def test_a_record_of_100_megabytes_and_an_answer_of_a_gigabyte_stay_out_of_memory(endpoint):
    gigabyte, piece = 1_000_000_000, packets(bytes(1_000_000))

    def converse(connection):
        length = 0
        while (got := connection.recv(MIB, 0)) and not got.endswith(b"0000"):
            length += len(got)
        if length > MIB:
            assert length + len(got) > 100_000_000
            for _ in range(gigabyte // 1_000_000):
                connection.sendall(piece)
        connection.sendall(b"0000")

    with ScriptedServer(endpoint, converse), send_lines(endpoint, "-j", 2) as client:
        feeder = threading.Thread(target=feed, args=(client, 100 * [b"x" * 1_000_000] + [b"\ny\n"]))
        feeder.start()
        received = 0
        while received < gigabyte + 2:
            received += len(client.stdout.read1(MIB))
        peak = peak_memory(client.pid)
        feeder.join()
        client.stdin.close()
        assert client.wait() == 0
    assert received == gigabyte + 2
    assert peak < 64 * MIB


def feed(client, pieces) -> None:
    for piece in pieces:
        client.stdin.write(piece)
    client.stdin.flush()


def test_endless_input_takes_no_more_memory_than_a_short_one(endpoint, folder):
    """With a server that answers at once, and after it has gone, when every record fails."""
    with Program([sys.executable, ECHO_AT_ONCE, endpoint], stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"listening\n"
        with open(folder / "errors", "wb") as errors:
            client = send_lines(endpoint, "-j", 8, stderr=errors)
        with client:
            feeder = threading.Thread(target=feed, args=(client, [numbers(30_000)]))
            feeder.start()
            lines = iter(client.stdout.readline, b"")
            for number in range(1, 30_001):
                assert next(lines) == b"%d\n" % number
                if number == 5000:
                    early = peak_memory(client.pid)
            feeder.join()
            assert peak_memory(client.pid) < early + 2 * MIB
            server.kill()
            server.wait()
            feeder = threading.Thread(target=feed, args=(client, [numbers(20_000)]))
            feeder.start()
            for _ in range(20_000):
                assert next(lines) == b"\n"
            feeder.join()
            assert peak_memory(client.pid) < early + 4 * MIB
            client.stdin.close()
            assert client.wait() == 3


# -- descriptors -----------------------------------------------------------------------


def test_few_descriptors_are_enough_for_many_jobs(endpoint):
    """Also when all but the first answer have to wait on disk, each in a file of its own."""
    go = threading.Event()
    most = [0]

    def converse(connection):
        number = int(receive_request(connection))
        if number == 1:
            assert go.wait(30)
        connection.sendall(message(b"%d" % number * 100_000))

    records = numbers(100)
    with ScriptedServer(endpoint, converse) as server:
        with send_lines(
            endpoint, "-j", 100, wrapper=["prlimit", "--nofile=48:48"], stderr=subprocess.PIPE
        ) as client:
            feeder = threading.Thread(target=feed, args=(client, [records]))
            feeder.start()

            def is_full() -> bool:
                most[0] = max(most[0], len(descriptors(client.pid)))
                return len(spools(client.pid)) > 10

            wait_until(is_full, "many answers on disk")
            assert server.accepted < 100
            go.set()
            for number in range(1, 101):
                assert client.stdout.readline() == b"%d" % number * 100_000 + b"\n"
            feeder.join()
            client.stdin.close()
            assert client.stderr.read() == b""
            assert client.wait() == 0
    assert most[0] <= 48


@needs_files(4096)
def test_many_jobs_raise_the_limit_as_far_as_they_may(endpoint):
    with Meeting(endpoint, 200):
        command = ["prlimit", "--nofile=64:4096", SIPC, "send", endpoint, "--lines", "-j", "200"]
        done = subprocess.run(command, input=numbers(200), capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, numbers(200))


def test_nothing_is_left_open(endpoint):
    with Server(endpoint, "cat"), send_lines(endpoint, "-j", 4) as client:
        client.stdin.write(b"1\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"1\n"
        before = descriptors(client.pid)
        for _ in range(20):
            client.stdin.write(numbers(10))
            client.stdin.flush()
            for number in range(1, 11):
                assert client.stdout.readline() == b"%d\n" % number
        wait_until(lambda: descriptors(client.pid) == before, "all connections to be closed")
        client.stdin.close()


# -- everything at once ----------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("round_", range(int(os.environ.get("SIPC_SOAK", "3"))))
def test_whatever_the_order_of_things_the_output_is_the_same(endpoint, folder, round_):
    """Requests, answers and input come in pieces of any size, after pauses of any length."""
    seed = random.randrange(1 << 32)
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    separator = chance.choice([b"\n", b"\0"])
    sizes = [0, 1, 10, 1000, 65_515, 65_516, 65_517, 70_000, 300_000]
    records = [chance.randbytes(chance.choice(sizes)).replace(separator, b"x") for _ in range(40)]
    jobs = chance.choice([1, 2, 3, 8, 40])
    in_turn = chance.random() < 0.2

    def converse(connection):
        luck = random.Random(chance.random())
        early = luck.random() < 0.3
        payload = receive_slowly(connection, luck)
        left = memoryview(message(payload))
        while left:
            if luck.random() < 0.1 and early:
                time.sleep(luck.random() * 0.02)
            piece = left[: luck.choice([1, 3, 4, 5, 1000, 70_000, 400_000])]
            connection.sendall(piece)
            left = left[len(piece) :]

    given = separator.join(records) + separator
    option = "--lines" if separator == b"\n" else "--null"
    command = [SIPC, "send", endpoint, option, "-j", str(jobs)]
    with ScriptedServer(endpoint, converse, in_turn=in_turn, backlog=chance.choice([0, 3, 1000])):
        with (
            Program(
                [*command, "--connect-timeout", "0"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
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
    records = numbers(50)
    with Server(endpoint, "cat", "--threads", 2), ThreadPoolExecutor(4) as pool:
        options = ["--lines", "-j", "8", "--connect-timeout", "30s"]
        runs = [pool.submit(sipc, "send", endpoint, *options, input=records) for _ in range(4)]
        assert [run.result().stdout for run in runs] == [records] * 4


def test_with_a_queue_for_one_all_get_in(endpoint):
    def converse(connection):
        payload = receive_request(connection)
        time.sleep(0.003)
        connection.sendall(message(payload))

    with ScriptedServer(endpoint, converse, in_turn=True, backlog=0):
        options = ["--lines", "-j", "8", "--wait", "30s", "--connect-timeout", "10ms"]
        done = sipc("send", endpoint, *options, input=numbers(60))
    assert (done.returncode, done.stdout, done.stderr) == (0, numbers(60), b"")
