"""`sipc serve --worker`: one process for many requests, whatever it does."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
from helpers.command import environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import (
    children,
    descriptors,
    peak_memory,
    processes,
    stop_process,
    waits_to_write,
)
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
from helpers.workers import WORKER, ask_worker, serve_workers, worker_counts

MIB = 1 << 20
ECHO = "cat"
"""Packets in are packets out: the least of all workers."""
ANSWER_ONE = "head -c 13 >/dev/null; printf 0008done0000"
"""Read the request `hello` and answer it."""

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
def test_any_payload_goes_through_unchanged(shared_workers, payload, options):
    server = shared_workers(ECHO, *options)
    for _ in range(2):
        assert ask(server.path, payload) == (payload, True)
        assert len(children(server.pid)) == 1


def test_send_and_a_worker_exchange_megabytes_unchanged(shared_workers):
    payload = PAYLOADS["three megabytes"]
    done = sipc("send", shared_workers(ECHO).path, input=payload)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", payload)


def test_one_process_answers_request_after_request(shared_workers):
    server = shared_workers(WORKER)
    pids = {ask_worker(server.path, "pid") for _ in range(10)}
    assert pids == {b"%d" % children(server.pid)[0]}


def test_no_worker_is_started_before_there_is_a_request(endpoint):
    with serve_workers(endpoint) as server:
        with connect(endpoint):
            assert sipc("probe", endpoint).returncode == 0
            assert children(server.pid) == []


def test_as_many_workers_as_threads_work_at_once_and_are_numbered(endpoint, folder):
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


def test_a_worker_knows_the_endpoint_and_nothing_of_a_request(endpoint, folder):
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


def test_a_request_and_an_answer_one_byte_at_a_time_are_understood(shared_workers):
    with connect(shared_workers(WORKER).path) as client:
        for byte in message(b"slow"):
            client.sendall(bytes([byte]))
        assert decode(receive_all(client)) == (b"slow", True)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(40 * MIB, id="40 MiB"),
        pytest.param(100 * MIB, id="100 MiB", marks=pytest.mark.soak),
    ],
)
def test_a_long_request_from_a_client_that_writes_before_it_reads_stays_out_of_memory(
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
"""Bytes that a pipe holds."""


def test_the_flush_is_written_after_a_pipe_was_full_at_the_last_byte(worker_script):
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


def test_the_rest_of_a_length_is_written_after_a_pipe_was_full_in_the_middle_of_it(worker_script):
    """A write of more than a page is cut where the page ends that was begun before."""
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


def test_both_directions_stream_at_once(shared_workers):
    with connect(shared_workers(ECHO).path) as client:
        size = 8 * MIB
        sent = threading.Thread(target=lambda: client.sendall(message(bytes(size))))
        sent.start()
        payload, whole = decode(receive_all(client))
        sent.join()
        assert (len(payload), whole) == (size, True)


def test_a_half_closed_client_gets_its_response_and_the_worker_stays(shared_workers):
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


def test_a_whole_request_reaches_the_worker_only_when_it_is_complete(endpoint):
    with serve_workers(endpoint, "--whole-request", "--threads", 2, worker=ECHO) as server:
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
            assert ask_worker(endpoint, "other") == b"other"
            assert len(children(server.pid)) == 1  # none for an incomplete request
            client.sendall(message(b" world"))
            assert decode(receive_all(client)) == (b"hello world", True)
        with connect(endpoint) as client:
            client.sendall(packets(b"hello"))
        server.wait_for_log("request incomplete")
        assert ask_worker(endpoint, "x") == b"x"
    assert "replac" not in server.log


# -- what a worker may do wrong --------------------------------------------------------------


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.soak)])
def test_a_worker_that_exits_after_its_response_is_replaced_and_no_request_is_lost(endpoint, count):
    """The next request may be handed over in the moment before it ends."""
    with serve_workers(endpoint, "-v") as server:
        pids = [ask_worker(endpoint, "last") for _ in range(count)]
        assert len(set(pids)) == count
    counted = {"running": 0, "started": count, "failed": 0, "ended": count}
    assert worker_counts(server.log) == counted


@pytest.mark.parametrize("size", [5, 30_000])
def test_a_request_that_a_dying_worker_has_not_read_goes_to_the_next(shared_workers, size):
    server = shared_workers(WORKER)
    pid = int(ask_worker(server.path, "pid"))
    stop_process(pid)
    with connect(server.path) as client:
        client.sendall(message(b"echo " + b"x" * size))
        wait_until(lambda: unread_input(pid) >= size, "it to be handed over")
        os.kill(pid, signal.SIGKILL)
        assert decode(receive_all(client)) == (b"x" * size, True)


def test_the_timeout_covers_the_replacement_of_a_worker(worker_script, folder):
    """The first worker answers its first request; it reads no second one, and no other answers."""
    worker = f"test -e {folder}/started && exec sleep 1000; : >{folder}/started; {ANSWER_ONE}"
    server = worker_script(f"{worker}; exec sleep 1000", "--timeout", "2s")
    assert ask(server.path, b"hello") == (b"done", True)
    (pid,) = children(server.pid)
    with connect(server.path) as client:
        client.sendall(message(b"hello"))
        wait_until(lambda: unread_input(pid) > 0, "it to be handed over")
        os.kill(pid, signal.SIGKILL)
        assert decode(receive_all(client)) == (b"", False)
    server.wait_for_log("handler timeout")


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
def test_a_malformed_or_incomplete_response_is_truncated_and_its_worker_replaced(
    shared_workers, what, begun, said
):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    assert ask(server.path, what.encode()) == (begun, False)
    assert re.search(said, server.wait_for_log("handler failed"))
    assert ask_worker(server.path, "pid") != before
    assert len(children(server.pid)) == 1


def test_output_after_a_response_is_logged_and_reaches_no_client(shared_workers):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    assert ask_worker(server.path, "behind") == b"good"
    assert ask_worker(server.path, "pid") != before
    server.wait_for_log(r'wrote past the end of its response \("0007bad0000"\); replacing it')


def test_output_between_requests_is_logged_and_reaches_no_client(shared_workers, folder):
    server = shared_workers(WORKER)
    before = ask_worker(server.path, "pid")
    assert ask_worker(server.path, "between", folder / "go", folder / "gone") == b"good"
    (folder / "go").touch()
    wait_until((folder / "gone").exists, "it to write")
    assert ask_worker(server.path, "pid") != before
    server.wait_for_log('wrote "0007bad0000" while idle')


def test_a_worker_that_hangs_is_killed_with_its_group_after_the_timeout(worker_script):
    worker = f"sleep 1000 & {ANSWER_ONE}; exec cat >/dev/null"
    server = worker_script(worker, "--timeout", "2s")
    assert ask(server.path, b"hello") == (b"done", True)
    # The shell may not have started both programs yet.
    wait_until(lambda: len(processes(server.mark)) == 3, "the worker and its child")
    before = set(processes(server.mark)) - {server.pid}
    assert ask(server.path, b"hello") == (b"", False)
    server.wait_for_log("handler timeout")
    wait_until(lambda: not before & set(processes(server.mark)), "the end of both")
    assert ask(server.path, b"hello") == (b"done", True)


def test_the_timeout_starts_with_each_request_and_runs_while_the_client_does_not_read(
    worker_script,
):
    server = worker_script(ECHO, "--timeout", "2s")
    with connect(server.path) as client:
        client.sendall(message(bytes(5 * MIB)))
        server.wait_for_log("handler timeout")
        receive_all(client)
    for _ in range(3):
        assert ask_worker(server.path, "x") == b"x"
    assert server.log.count("handler timeout") == 1


def test_a_worker_that_answers_early_gets_the_rest_of_the_request(worker_script):
    early = (
        f"{sys.executable} -ISuc 'import sys\n"
        "i, o = sys.stdin.buffer, sys.stdout.buffer\n"
        "while n := i.read(4):\n"
        '  o.write(b"0008done0000")\n'
        "  o.flush()\n"
        '  while n != b"0000": i.read(int(n, 16) - 4); n = i.read(4)\''
    )
    server = worker_script(early)
    for _ in range(3):
        assert ask(server.path, bytes(2 * MIB)) == (b"done", True)
    assert len(children(server.pid)) == 1
    assert "replac" not in server.log
    assert "did not read the rest" not in server.log


def test_a_worker_that_does_not_read_on_after_its_response_is_replaced(worker_script):
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


def test_a_worker_that_answers_before_it_has_read_the_flush_stays(worker_script):
    slow = "while read -rN9 packet; do printf 0008done0000; read -rN4 flush; done"
    server = worker_script(f"exec bash -c '{slow}'")
    assert ask(server.path, b"hello") == (b"done", True)
    before = children(server.pid)
    assert ask(server.path, b"hello") == (b"done", True)
    assert children(server.pid) == before


def test_a_worker_that_closes_its_input_between_requests_is_replaced(worker_script):
    worker = f"{ANSWER_ONE}; exec 0<&-; exec sleep 1000"
    server = worker_script(worker)
    assert ask(server.path, b"hello") == (b"done", True)
    (worker,) = children(server.pid)
    wait_until(lambda: not Path(f"/proc/{worker}/fd/0").exists(), "it to close its input")
    assert ask(server.path, b"hello") == (b"done", True)
    server.wait_for_log("closed its standard input while idle")


def test_a_worker_that_closes_its_input_and_answers_is_replaced_and_the_response_delivered(
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


# -- clients that go away ----------------------------------------------------------------------


def test_a_truncated_request_ends_its_worker_which_does_not_read_the_end_of_its_input(
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


def test_a_worker_that_may_finish_for_a_closed_client_stays(endpoint, folder):
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


# -- start and end -----------------------------------------------------------------------------


def test_workers_that_fail_to_start_are_started_with_backoff(endpoint, folder):
    worker = f"echo x >>{folder}/starts; exit 3"
    with serve_workers(endpoint, "-v", worker=worker) as server:
        for _ in range(30):
            assert ask(endpoint, b"hello") == (b"", False)
        wait_until(lambda: not children(server.pid), "the last to end")
        line = server.wait_for_log("spawn failed: workers fail to start")
        assert "exit status 3" in line
        assert "next attempt in" in line
        starts = len((folder / "starts").read_text().split())
        assert 2 <= starts < 15
    assert worker_counts(server.log) == {
        "running": 0,
        "started": starts,
        "failed": starts,
        "ended": starts,
    }


def test_requests_that_end_workers_fail_no_other_request(shared_workers):
    server = shared_workers(WORKER)
    for number in range(3):
        assert ask(server.path, b"exit 1") == (b"", False)
        assert ask(server.path, b"half") == (b"half", False)
        assert ask_worker(server.path, "echo", number) == b"%d" % number
    assert "fail to start" not in server.log


def test_a_response_resets_the_backoff(endpoint, folder):
    worker = f"test -e {folder}/good || exit 3; exec cat"
    with serve_workers(endpoint, worker=worker) as server:
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"", False)
        (folder / "good").touch()
        wait_until(lambda: ask(endpoint, b"hello") == (b"hello", True), "a worker that answers")
        (folder / "good").unlink()
        wait_until(lambda: server.counters()["in_flight"] == 0, "the worker to wait for requests")
        os.kill(children(server.pid)[0], signal.SIGKILL)
        wait_until(lambda: not children(server.pid), "its end")
        failed = server.log.count("handler failed")
        for number in (1, 2):  # as at the start: the second alone brings a pause
            assert ask(endpoint, b"hello") == (b"", False)
            server.wait_for_log("handler failed", failed + number)


def test_a_command_that_is_no_worker_is_logged(endpoint):
    with serve_workers(endpoint, worker="echo hello") as server:
        assert ask(endpoint, b"x") == (b"", False)
        assert "wrote a malformed packet" in server.wait_for_log("handler failed")
        server.wait_for_log(re.escape(r'"hello\n"'))


def test_a_missing_command_is_logged(endpoint):
    with serve_workers(endpoint, worker="no-such-command-here") as server:
        assert "command not found: no-such-command-here" in server.log
        assert ask(endpoint, b"x") == (b"", False)


def test_a_worker_is_replaced_after_the_maximum_of_requests(endpoint):
    with serve_workers(endpoint, "--max-requests-per-worker", 2, "-v") as server:
        pids = [ask_worker(endpoint, "pid") for _ in range(5)]
        assert [pids.count(pid) for pid in sorted(set(pids), key=pids.index)] == [2, 2, 1]
    assert worker_counts(server.log)["started"] == 3


def test_a_worker_that_ends_between_requests_leaves_no_zombie(shared_workers):
    server = shared_workers(WORKER)
    pid = int(ask_worker(server.path, "pid"))
    wait_until(lambda: server.counters()["in_flight"] == 0, "the worker to wait for requests")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not children(server.pid), "it to be reaped")
    server.wait_for_log(rf"worker 1 \(process {pid}\) ended: killed by SIGKILL")
    assert int(ask_worker(server.path, "pid")) != pid


@pytest.mark.parametrize("ignored", ["", " ignore"], ids=["heeded", "ignored"])
def test_workers_end_with_the_server_by_the_end_of_their_input(endpoint, folder, ignored):
    worker = f"sleep 1000 & {WORKER}{ignored}; echo $? >{folder}/status"
    with serve_workers(endpoint, worker=worker) as server:
        ask_worker(endpoint, "pid")
        server.signal()
        server.wait()
    assert (folder / "status").read_text() == "0\n"


def test_workers_that_do_not_end_are_killed_with_the_server(endpoint):
    worker = "trap '' TERM; cat; sleep 1000; sleep 1000"
    with serve_workers(endpoint, "--kill-after", "100ms", "--threads", 4, worker=worker) as server:
        with open_connections(endpoint, 4) as clients:
            for client in clients:
                client.sendall(packets(b"x"))
                assert client.recv(10) == packets(b"x")
            for client in clients:
                client.sendall(b"0000")
                assert receive_all(client) == b"0000"
        server.wait_until_idle()
        assert len(children(server.pid)) == 4


def test_a_second_signal_leaves_workers_no_time(endpoint):
    worker = "trap '' TERM; cat; sleep 1000; sleep 1000"
    with serve_workers(endpoint, "--kill-after", "1000s", worker=worker) as server:
        assert ask_worker(endpoint, "x") == b"x"
        server.signal()
        wait_until(lambda: "stopped" in server.log or not Path(server.path).exists(), "the stop")
        server.signal()
        server.wait()


def test_a_request_in_flight_is_answered_before_the_server_ends(endpoint, folder):
    with serve_workers(endpoint) as server, connect(endpoint) as client:
        client.sendall(message(f"wait {folder}/go {folder}/begun".encode()))
        wait_until((folder / "begun").exists, "it to be handed over")
        server.signal()
        wait_until(lambda: not Path(server.path).exists(), "the stop")
        (folder / "go").touch()
        assert decode(receive_all(client)) == (b"waited", True)


def test_descriptors_of_workers_are_given_back(endpoint):
    with serve_workers(endpoint, "--threads", 2) as server:
        ask_worker(endpoint, "pid")
        before = len(descriptors(server.pid))
        for what in ("exit 1", "half", "close", "nonsense", "behind", "last", "kill"):
            ask(endpoint, what.encode())
            ask_worker(endpoint, "pid")
        server.wait_until_idle()
        wait_until(
            lambda: len(descriptors(server.pid)) <= before + 3, "those of a second worker at most"
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--exec CMD or --worker CMD"),
        (("--exec", "cat", "--worker", "cat"), "cannot be combined"),
        (("--worker", " "), "--worker: the command is empty"),
        (("--exec", "cat", "--max-requests-per-worker", "5"), "requires --worker"),
    ],
    ids=["neither", "both", "empty", "of the other"],
)
def test_exactly_one_handler_must_be_given(endpoint, options, said):
    done = run_cli("serve", endpoint, *options)
    assert done.returncode == 2
    assert said in done.stderr.decode()
