"""`sipc send --lines --jobs N`: many requests at once, with responses in order."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.command import SIPC, sipc
from helpers.inprocess_cli import run_cli
from helpers.scripted_server import ScriptedServer, receive_request
from helpers.sending import numbers, start_send
from helpers.server import Server
from helpers.soak import SOAK, soak
from helpers.state import needs_files
from helpers.waiting import TIMEOUT
from helpers.wire import message


class Meeting(ScriptedServer):
    """Responds when this many connections are open, and records the maximum."""

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
def test_as_many_requests_as_allowed_are_in_flight_and_no_more(endpoint, options, size):
    records = numbers(3 * size)
    with Meeting(endpoint, size) as server:
        assert run_cli("send", endpoint, "--lines", *options, input=records).stdout == records
    assert server.most == size


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_responses_are_written_in_the_order_of_the_records(endpoint, run):
    """The server responds to each eight requests in the opposite order."""
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


@needs_files(4096)
def test_send_raises_the_limit_of_descriptors_for_many_jobs(endpoint):
    with Meeting(endpoint, 100):
        command = ["prlimit", "--nofile=64:4096", SIPC, "send", endpoint, "--lines", "-j", "100"]
        done = subprocess.run(command, input=numbers(100), capture_output=True)
    assert (done.returncode, done.stdout) == (0, numbers(100))


@pytest.mark.parametrize("round_", [0, *map(soak, range(1, SOAK + 1))])
def test_the_output_does_not_depend_on_the_order_of_events(endpoint, round_):
    """Requests, responses and input arrive in pieces of any size, after pauses of any length."""
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
