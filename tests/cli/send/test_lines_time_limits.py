"""`sipc send --lines --max-time`: one limit for all records."""

from __future__ import annotations

import os
import select
import threading

import pytest
from helpers.inprocess_cli import run_cli
from helpers.scripted_server import ScriptedServer, receive_request, wait_for_close
from helpers.sending import EchoServer, failed_records
from helpers.wire import message, packets

MIB = 1 << 20


@pytest.fixture
def fifo(folder):
    """A named pipe with a writer, `fifo.write`, and a reader, so that it never ends."""
    os.mkfifo(folder / "fifo")
    with open(os.open(folder / "fifo", os.O_RDWR), "wb", buffering=0) as file:
        yield file


def test_max_time_limits_all_records_together_and_complete_responses_are_written(
    endpoint, max_time
):
    done_with = []

    def conversation(connection):
        number = receive_request(connection)
        if number in b"24":
            connection.sendall(message(number))
        else:
            done_with.append(number)
        wait_for_close(connection)
        done_with.append(number)

    max_time.is_over = lambda: len(done_with) >= 4
    with ScriptedServer(endpoint, conversation):
        options = ["-j", "4", "-m", "1h"]
        done = run_cli("send", endpoint, "--lines", *options, input=b"1\n2\n3\n4\n")
    assert (done.returncode, done.stdout) == (6, b"\n2\n\n4\n")
    assert failed_records(done.stderr) == [1, 3]


def test_max_time_ends_a_wait_for_input(endpoint, max_time, fifo):
    answered = threading.Event()

    def conversation(connection):
        connection.sendall(message(receive_request(connection)))
        wait_for_close(connection)
        answered.set()

    max_time.is_over = answered.is_set
    fifo.write(b"1\nhalf")
    with ScriptedServer(endpoint, conversation):
        options = ["--data-file", "fifo", "-m", "1h"]
        done = run_cli("send", endpoint, "--lines", *options, cwd=endpoint.parent)
    assert (done.returncode, done.stdout) == (6, b"1\n")
    assert failed_records(done.stderr) == [2]
    assert b"no more data arrived from fifo in time" in done.stderr


@pytest.mark.usefixtures("fifo")
def test_missing_input_with_a_missing_server_is_reported_as_a_missing_server(endpoint):
    options = ["--data-file", "fifo", "-m", "20ms"]
    assert run_cli("send", endpoint, "--lines", *options, cwd=endpoint.parent).returncode == 4


@pytest.mark.parametrize("jobs", [1, 2])
def test_max_time_ends_a_wait_for_a_reader_of_the_output(endpoint, max_time, fifo, jobs):
    max_time.is_over = lambda: not select.select([], [fifo], [], 0)[1]  # it is full
    with EchoServer(endpoint, lambda _: bytes(5 * MIB)):
        options = ["-j", jobs, "-m", "1h", "-o", "fifo"]
        records = b"1\n2\n3\n"
        done = run_cli("send", endpoint, "--lines", *options, input=records, cwd=endpoint.parent)
    assert done.returncode == 6
    assert 1 in failed_records(done.stderr)


@pytest.mark.parametrize("wire", [packets(bytes(60_000)), b"0004" * 15_000], ids=["data", "empty"])
def test_max_time_ends_an_endless_response(endpoint, max_time, wire):
    sent = []

    def conversation(connection):
        receive_request(connection)
        while True:
            connection.sendall(wire)
            sent.append(connection)

    max_time.is_over = lambda: len(set(sent)) == 2
    with ScriptedServer(endpoint, conversation):
        options = ["-m", "1h", "-j", 2]
        done = run_cli("send", endpoint, "--lines", *options, input=b"1\n2\n")
    assert done.returncode == 6
    assert failed_records(done.stderr) == [1, 2]
