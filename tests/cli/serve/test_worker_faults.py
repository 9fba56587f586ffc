"""`sipc serve --worker`: workers that break the protocol, hang or end, and clients that close."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from helpers.patience import LINGER, without_limits
from helpers.procfs import children, processes, stop_process
from helpers.soak import soak
from helpers.unread import unread_input
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, packets, receive_all
from helpers.workers import WORKER, ask_worker, serve_workers, worker_counts

MIB = 1 << 20
ECHO = "cat"
"""The smallest worker: it copies packets from its input to its output."""
ANSWER_ONE = "head -c 13 >/dev/null; printf 0008done0000"
"""Read the request `hello` and answer it."""


@pytest.mark.parametrize("count", [8, soak(50)])
def test_a_worker_that_exits_after_its_response_is_replaced_and_no_request_is_lost(endpoint, count):
    """The server may give the worker the next request just before it exits."""
    with serve_workers(endpoint, "-v") as server:
        pids = [ask_worker(endpoint, "last") for _ in range(count)]
        assert len(set(pids)) == count
    counted = {"running": 0, "started": count, "failed": 0, "ended": count}
    assert worker_counts(server.log) == counted


@pytest.mark.parametrize("size", [5, 30_000])
def test_a_request_that_an_exiting_worker_has_not_read_is_given_to_the_next_worker(
    shared_workers, size
):
    server = shared_workers(WORKER)
    pid = int(ask_worker(server.path, "pid"))
    stop_process(pid)
    with connect(server.path) as client:
        client.sendall(message(b"echo " + b"x" * size))
        wait_until(lambda: unread_input(pid) >= size, "it to be handed over")
        os.kill(pid, signal.SIGKILL)
        assert decode(receive_all(client)) == (b"x" * size, True)


def test_the_timeout_covers_the_replacement_of_a_worker(endpoint, folder, clock):
    """The first worker answers one request and reads no second; no other worker answers."""
    worker = f"test -e {folder}/started && exec sleep 1000; : >{folder}/started; {ANSWER_ONE}"
    worker = f"{worker}; exec sleep 1000"
    options = ("--timeout", "2s")
    with serve_workers(endpoint, *options, worker=worker, program=clock.program) as server:
        assert ask(endpoint, b"hello") == (b"done", True)
        (pid,) = children(server.pid)
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            wait_until(lambda: unread_input(pid) > 0, "it to be handed over")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: {*children(server.pid)} - {pid}, "another worker")
            clock.advance_until(lambda: "handler timeout" in server.log, "the timeout")
            assert decode(receive_all(client)) == (b"", False)


def test_a_request_that_a_worker_has_begun_to_read_is_not_retried(shared_workers, folder):
    server = shared_workers(WORKER)
    ask_worker(server.path, "pid")
    assert ask(server.path, f"once {folder}/asked".encode()) == (b"", False)
    assert "exit status 5" in server.wait_for_log("handler failed")


@pytest.mark.parametrize(
    ("what", "begun", "said"),
    [
        ("exit 3", b"", "ended before its response was complete: exit status 3"),
        ("half", b"half", "ended before its response was complete: exit status 3"),
        ("kill", b"hal", "ended before its response was complete: killed by SIGKILL"),
        ("close", b"half", "closed its standard output before its response was complete"),
        ("nonsense", b"half", r'bad packet length .hell. at byte 8.*: "hello\\x07 world"'),
    ],
    ids=["no answer", "half an answer", "killed", "closed", "nonsense"],
)
def test_a_malformed_or_incomplete_response_reaches_the_client_truncated(
    shared_workers, what, begun, said
):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    assert ask(server.path, what.encode()) == (begun, False)
    assert re.search(said, server.wait_for_log("handler failed"))
    assert ask_worker(server.path, "pid") != before
    assert len(children(server.pid)) == 1


def test_output_of_a_worker_after_a_response_is_logged_and_reaches_no_client(shared_workers):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    assert ask_worker(server.path, "behind") == b"good"
    assert ask_worker(server.path, "pid") != before
    server.wait_for_log(r'wrote past the end of its response \("0007bad0000"\); replacing it')


def test_output_of_a_worker_between_requests_is_logged_and_reaches_no_client(
    shared_workers, folder
):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    assert ask_worker(server.path, "between", folder / "go", folder / "gone") == b"good"
    (folder / "go").touch()
    wait_until((folder / "gone").exists, "it to write")
    assert ask_worker(server.path, "pid") != before
    server.wait_for_log('wrote "0007bad0000" while idle')


def test_a_worker_that_hangs_is_killed_with_its_group_after_the_timeout(endpoint, clock):
    worker = f"sleep 1000 & {ANSWER_ONE}; exec cat >/dev/null"
    options = ("--timeout", "2s")
    with serve_workers(endpoint, *options, worker=worker, program=clock.program) as server:
        assert ask(endpoint, b"hello") == (b"done", True)
        # The shell may not have started both programs yet.
        wait_until(lambda: len(processes(server.mark)) == 3, "the worker and its child")
        before = set(processes(server.mark)) - {server.pid}
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            clock.advance_until(lambda: "handler timeout" in server.log, "the timeout")
            assert decode(receive_all(client)) == (b"", False)
        wait_until(lambda: not before & set(processes(server.mark)), "the end of both")
        assert ask(endpoint, b"hello") == (b"done", True)


def test_the_timeout_of_each_request_also_runs_while_the_client_does_not_read(endpoint, clock):
    options = ("--timeout", "2s")
    with serve_workers(endpoint, *options, worker=ECHO, program=clock.program) as server:
        with connect(endpoint) as client:
            client.sendall(message(bytes(5 * MIB)))
            clock.advance(3)
            server.wait_for_log("handler timeout")
            receive_all(client)
        for _ in range(3):
            assert ask_worker(endpoint, "x") == b"x"
    assert server.log.count("handler timeout") == 1


def test_a_worker_that_responds_early_gets_the_rest_of_the_request(endpoint):
    early = (
        f"{sys.executable} -ISuc 'import sys\n"
        "i, o = sys.stdin.buffer, sys.stdout.buffer\n"
        "while n := i.read(4):\n"
        '  o.write(b"0008done0000")\n'
        "  o.flush()\n"
        '  while n != b"0000": i.read(int(n, 16) - 4); n = i.read(4)\''
    )
    with serve_workers(endpoint, "-v", worker=early, program=without_limits(*LINGER)) as server:
        for _ in range(3):
            assert ask(endpoint, bytes(2 * MIB)) == (b"done", True)
        assert len(children(server.pid)) == 1
    assert "replac" not in server.log
    assert "did not read the rest" not in server.log


def test_a_worker_that_stops_reading_after_its_response_is_replaced(worker_script):
    worker = "head -c 4 >/dev/null; printf 0008done0000; exec sleep 1000"
    server = worker_script(worker)
    for _ in range(2):
        assert ask(server.path, bytes(2 * MIB)) == (b"done", True)
    server.wait_for_log("answered; the worker did not read the rest of its request within 1 s", 2)
    wait_until(lambda: not children(server.pid), "its end")


def test_a_worker_that_left_input_unread_is_replaced_before_the_next_request(worker_script):
    worker = "head -c 4 >/dev/null; printf 0008done0000; exec sleep 1000"
    server = worker_script(worker)
    for _ in range(2):
        assert ask(server.path, b"hello") == (b"done", True)
    server.wait_for_log("did not read the rest of its request within 1 s while idle")


def test_a_worker_that_responds_before_it_reads_the_flush_is_not_replaced(endpoint):
    slow = "while read -rN9 packet; do printf 0008done0000; read -rN4 flush; done"
    worker = f"exec bash -c '{slow}'"
    with serve_workers(endpoint, worker=worker, program=without_limits(*LINGER)) as server:
        assert ask(endpoint, b"hello") == (b"done", True)
        before = children(server.pid)
        assert ask(endpoint, b"hello") == (b"done", True)
        assert children(server.pid) == before


def test_a_worker_that_closes_its_input_between_requests_is_replaced(worker_script):
    worker = f"{ANSWER_ONE}; exec 0<&-; exec sleep 1000"
    server = worker_script(worker)
    assert ask(server.path, b"hello") == (b"done", True)
    (worker,) = children(server.pid)
    wait_until(lambda: not Path(f"/proc/{worker}/fd/0").exists(), "it to close its input")
    assert ask(server.path, b"hello") == (b"done", True)
    server.wait_for_log("closed its standard input while idle")


def test_the_response_of_a_worker_that_closes_its_input_is_delivered_before_its_replacement(
    worker_script,
):
    worker = "head -c 4 >/dev/null; exec 0<&-; printf 0008done0000; exec sleep 1000"
    server = worker_script(worker)
    for _ in range(2):
        assert ask(server.path, bytes(2 * MIB)) == (b"done", True)
    wait_until(lambda: not children(server.pid), "its end")


def test_a_worker_may_exit_between_its_response_and_the_rest_of_the_request(worker_script):
    server = worker_script("head -c 4 >/dev/null; printf 0008done0000")
    for _ in range(3):
        assert ask(server.path, bytes(2 * MIB)) == (b"done", True)


def test_a_truncated_request_ends_its_worker_before_that_reads_the_end_of_its_input(
    worker_script, folder
):
    server = worker_script(f"cat; touch {folder}/eof")
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        assert client.recv(100) == packets(b"hello")
        before = children(server.pid)
    server.wait_for_log("request incomplete")
    assert ask_worker(server.path, "next") == b"next"
    assert children(server.pid) != before
    assert not (folder / "eof").exists()


def test_a_client_that_closes_during_the_response_ends_its_worker(worker_script, folder):
    server = worker_script(f"{WORKER} ignore", "--kill-after", "100ms")
    before = ask_worker(server.path, "pid")
    with connect(server.path) as client:
        client.sendall(message(f"begin {folder}/never".encode()))
        assert client.recv(100) == packets(b"begun")
    server.wait_for_log("client closed")
    assert ask_worker(server.path, "pid") != before


def test_a_worker_that_may_finish_for_a_closed_client_is_not_replaced(endpoint, folder):
    with serve_workers(endpoint, "--on-hangup", "finish") as server:
        before = ask_worker(endpoint, "pid")
        with connect(endpoint) as client:
            client.sendall(message(f"wait {folder}/go {folder}/begun".encode()))
            wait_until((folder / "begun").exists, "it to be handed over")
        (folder / "go").touch()
        server.wait_for_log("client closed: the handler was allowed to finish")
        assert ask_worker(endpoint, "pid") == before


def test_a_client_that_closes_after_the_response_ends_no_worker(shared_workers):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    for _ in range(20):
        with connect(server.path) as client:
            client.sendall(message(b"echo hello"))
            assert client.recv(13, socket.MSG_WAITALL) == message(b"hello")
    assert ask_worker(server.path, "pid") == before
    assert "client closed" not in server.log


def test_a_request_that_becomes_malformed_ends_its_worker(shared_workers):
    server = shared_workers(ECHO)
    assert ask_worker(server.path, "x") == b"x"
    before = children(server.pid)
    with connect(server.path) as client:
        client.sendall(packets(b"hello"))
        assert client.recv(100) == packets(b"hello")
        client.sendall(b"zzzz")
        receive_all(client)
    server.wait_for_log("malformed")
    assert ask_worker(server.path, "next") == b"next"
    assert children(server.pid) != before
