"""`sipc serve --worker`: how workers start and end."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from helpers.patience import without_limits
from helpers.procfs import children, descriptors
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, open_connections, packets, receive_all
from helpers.workers import WORKER, ask_worker, serve_workers, worker_counts


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
        for number in (1, 2):  # as at the start: only the second failure causes a pause
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
def test_a_server_that_stops_ends_its_workers_by_closing_their_input(endpoint, folder, ignored):
    worker = f"sleep 1000 & {WORKER}{ignored}; echo $? >{folder}/status"
    more = {"worker": worker, "program": without_limits("handlers.worker._EXIT_TIMEOUT")}
    with serve_workers(endpoint, "--kill-after", "1000s", **more) as server:
        ask_worker(endpoint, "pid")
        server.signal()
        server.wait()
    assert (folder / "status").read_text() == "0\n"


def test_a_server_that_stops_kills_workers_that_do_not_end(endpoint):
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


def test_a_second_signal_kills_workers_at_once(endpoint):
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


def test_the_server_closes_the_descriptors_of_ended_workers(endpoint):
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
