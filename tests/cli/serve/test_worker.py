"""`sipc serve --worker`: one process for many requests."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest
from helpers.command import environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import children, peak_memory, processes, stop_process, waits_to_write
from helpers.soak import soak
from helpers.unread import unread_input
from helpers.waiting import wait_until
from helpers.wire import (
    MAX_PAYLOAD,
    ask,
    connect,
    decode,
    message,
    open_connections,
    packets,
    receive_all,
)
from helpers.workers import WORKER, ask_worker, serve_workers

MIB = 1 << 20
ECHO = "cat"
"""The smallest worker: it copies packets from its input to its output."""

PAYLOADS = {
    "empty": b"",
    "one byte": b"x",
    "NULs and flush packets": b"\0\0" + b"0000" * 3 + b"0001\xff\n\r",
    "one full packet": b"\xfe" * MAX_PAYLOAD,
    "one byte more": b"\xfe" * (MAX_PAYLOAD + 1),
    "three megabytes": os.urandom(3 * MIB),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("options", [(), ("--whole-request",)], ids=["streaming", "whole"])
def test_any_payload_is_answered_unchanged(shared_workers, payload, options):
    server = shared_workers(ECHO, *options)
    for _ in range(2):
        assert ask(server.path, payload) == (payload, True)
        assert len(children(server.pid)) == 1


def test_send_and_a_worker_exchange_megabytes_unchanged(shared_workers):
    payload = PAYLOADS["three megabytes"]
    done = sipc("send", shared_workers(ECHO).path, input=payload)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", payload)


def test_one_worker_answers_several_requests(shared_workers):
    server = shared_workers(WORKER)
    pids = {ask_worker(server.path, "pid") for _ in range(10)}
    assert pids == {b"%d" % children(server.pid)[0]}


def test_no_worker_is_started_before_the_first_request(endpoint):
    with serve_workers(endpoint) as server:
        with connect(endpoint):
            assert sipc("probe", endpoint).returncode == 0
            assert children(server.pid) == []


def test_as_many_workers_run_at_once_as_threads_allows_and_each_has_a_number(endpoint, folder):
    with (
        serve_workers(endpoint, "--threads", 3) as server,
        open_connections(endpoint, 5) as clients,
    ):
        for client in clients:
            client.sendall(message(f"wait {folder}/go".encode()))
        wait_until(lambda: len(children(server.pid)) == 3, "three workers")
        (folder / "go").touch()
        assert [receive_all(client) for client in clients] == [message(b"waited")] * 5
        running = processes(server.mark)
        found = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in running]
        numbers = [entry for each in found for entry in each if entry.startswith(b"SIPC_WORKER=")]
        assert sorted(numbers) == [b"SIPC_WORKER=%d" % number for number in (1, 2, 3)]


def test_a_replacement_gets_the_number_of_the_ended_worker(shared_workers):
    server = shared_workers(WORKER)
    for _ in range(2):
        assert b"SIPC_WORKER=1" in ask_worker(server.path, "environment").split()
        ask(server.path, b"exit 0")


def test_the_environment_of_a_worker_names_the_endpoint_and_no_request(endpoint, folder):
    stale = environment(UNIXREMOTEPID="7", SIPC_REQUEST_ID="old")
    with serve_workers("sock", cwd=folder, env=stale):
        lines = ask_worker(folder / "sock", "environment").decode().splitlines()
    assert "PROTO=UNIX" in lines
    assert f"UNIXLOCALPATH={endpoint}" in lines
    assert not [line for line in lines if re.match("UNIXREMOTE|SIPC_REQUEST_ID", line)]


def test_requests_and_responses_are_streamed(shared_workers):
    with connect(shared_workers(ECHO).path) as client:
        for word in (b"one", b"two", b"three"):
            client.sendall(packets(word))
            assert client.recv(100) == packets(word)
        client.sendall(b"0000")
        assert receive_all(client) == b"0000"


def test_a_request_and_a_response_that_arrive_byte_by_byte_are_understood(shared_workers):
    with connect(shared_workers(WORKER).path) as client:
        for byte in message(b"slow"):
            client.sendall(bytes([byte]))
        assert decode(receive_all(client)) == (b"slow", True)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(40 * MIB, id="40 MiB"),
        soak(100 * MIB, id="100 MiB"),
    ],
)
def test_a_long_request_from_a_client_that_writes_before_it_reads_is_not_held_in_memory(
    endpoint, size
):
    payload = os.urandom(size)
    with serve_workers(endpoint, worker=ECHO) as server:
        before = peak_memory(server.pid)
        assert ask(endpoint, payload) == (payload, True)
        assert peak_memory(server.pid) - before < 24 * MIB
        assert ask_worker(endpoint, "next") == b"next"
        assert len(children(server.pid)) == 1


PIPE = 65536
"""Return the capacity of a pipe in bytes."""


def test_the_flush_is_written_after_the_pipe_was_full_at_the_last_byte(worker_script):
    server = worker_script("exec cat")
    with connect(server.path) as client:
        assert ask_worker(server.path, "x") == b"x"
        (pid,) = children(server.pid)
        stop_process(pid)
        for full in range(4096, PIPE + 1, 4096):
            client.sendall(packets(bytes(4092)))
            wait_until(lambda: unread_input(pid) == full, "it to be in the pipe")  # noqa: B023
        client.sendall(b"0000")
        wait_until(lambda: waits_to_write(server.pid), "a wait")
        os.kill(pid, signal.SIGCONT)
        assert decode(receive_all(client)) == (bytes(16 * 4092), True)


def test_the_rest_of_a_packet_length_is_written_after_the_pipe_was_full_within_it(worker_script):
    """The kernel cuts a write of more than a page at the end of a page already in use."""
    payload = os.urandom(MAX_PAYLOAD + 2 * 4096 + 3 - 8)
    server = worker_script("exec cat", "--whole-request")
    with connect(server.path) as client:
        assert ask_worker(server.path, "x") == b"x"
        (pid,) = children(server.pid)
        stop_process(pid)
        client.sendall(message(payload))
        wait_until(lambda: unread_input(pid) == MAX_PAYLOAD + 4 + 3, "three bytes of a length")
        os.kill(pid, signal.SIGCONT)
        assert decode(receive_all(client)) == (payload, True)


def test_request_and_response_are_streamed_at_the_same_time(shared_workers):
    with connect(shared_workers(ECHO).path) as client:
        size = 8 * MIB
        sent = threading.Thread(target=lambda: client.sendall(message(bytes(size))))
        sent.start()
        payload, whole = decode(receive_all(client))
        sent.join()
        assert (len(payload), whole) == (size, True)


def test_a_client_that_half_closes_gets_its_response_and_the_worker_keeps_running(shared_workers):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    with connect(server.path) as client:
        client.sendall(message(b"echo hello"))
        client.shutdown(socket.SHUT_WR)
        assert decode(receive_all(client)) == (b"hello", True)
    assert ask_worker(server.path, "pid") == before


def test_bytes_after_a_request_do_not_reach_the_worker(shared_workers):
    server = shared_workers(WORKER)
    with connect(server.path) as client:
        client.sendall(message(b"echo one") + message(b"echo two") + bytes(1000))
        assert decode(receive_all(client)) == (b"one", True)
    assert ask_worker(server.path, "echo", "three") == b"three"


def test_with_whole_request_the_worker_gets_a_request_only_when_it_is_complete(endpoint):
    with serve_workers(endpoint, "--whole-request", "--threads", 2, worker=ECHO) as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            assert ask_worker(endpoint, "other") == b"other"
            assert len(children(server.pid)) == 1  # no worker for an incomplete request
            client.sendall(message(b" world"))
            assert decode(receive_all(client)) == (b"hello world", True)
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
        server.wait_for_log("request incomplete")
        assert ask_worker(endpoint, "x") == b"x"
    assert "replac" not in server.log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--exec CMD, --worker CMD, --call FUNCTION"),
        (("--exec", "cat", "--worker", "cat"), "cannot be combined"),
        (("--worker", " "), "--worker: the command is empty"),
        (("--exec", "cat", "--max-requests-per-worker", "5"), "requires --worker"),
    ],
    ids=["neither", "both", "empty", "of the other"],
)
def test_exactly_one_option_must_name_a_handler(endpoint, options, said):
    done = run_cli("serve", endpoint, *options)
    assert done.returncode == 2
    assert said in done.stderr.decode()
