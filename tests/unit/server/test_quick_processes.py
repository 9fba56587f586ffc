"""Requests to processes that are answered without an exchange. The test runs the event loop."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios
from contextlib import closing
from functools import partial

import pytest
from helpers.event_loop import ProcessLoop, ask, response
from helpers.procfs import state
from helpers.waiting import wait_until
from helpers.wire import decode, message
from helpers.workers import WORKER

from simpleipc_cli.handlers import exec as exec_handlers
from simpleipc_cli.handlers.exec import ProcessRun
from simpleipc_cli.handlers.worker_pool import WorkerPool
from simpleipc_cli.server import dispatcher, quick_exchange

LIMIT = 4096
"""Bytes of a response that is written without an exchange."""


@pytest.fixture
def worker_loop(endpoint):
    new_pool = partial(WorkerPool, max_workers=1, max_requests=None)
    with closing(ProcessLoop(endpoint, new_pool, WORKER, b"echo first")) as loop:
        yield loop


def test_an_idle_worker_answers_a_small_request_without_an_exchange(
    worker_loop, endpoint, monkeypatch
):
    monkeypatch.setattr(type(worker_loop.server._dispatcher), "_new_exchange", None)
    monkeypatch.setattr(quick_exchange, "_MAX_TIME", 3600.0)  # the worker may be slow
    client = ask(endpoint, message(b"echo hello"))
    worker_loop.run_to_the_end()
    assert response(client) == message(b"hello")
    assert worker_loop.pool.stats()["workers_started"] == 1
    assert (worker_loop.counters()["bytes_in"], worker_loop.counters()["bytes_out"]) == (20, 10)


@pytest.mark.parametrize(
    ("words", "payload", "outcome"),
    [
        ("half", b"half", "handler_failed"),
        ("kill", b"hal", "handler_failed"),
        ("nonsense", b"half", "handler_failed"),
        ("behind", b"good", "answered"),
        ("slow", b"slow", "answered"),
    ],
    ids=["half", "kill", "nonsense", "behind", "slow"],
)
def test_an_exchange_continues_what_a_worker_does_not_answer_in_one_packet(
    worker_loop, endpoint, words, payload, outcome
):
    client = ask(endpoint, message(words.encode()))
    answered = worker_loop.counters()["answered"]
    worker_loop.run_to_the_end()
    assert decode(response(client)) == (payload, outcome == "answered")
    assert worker_loop.counters()["answered"] == answered + (outcome == "answered")
    assert outcome == "answered" or worker_loop.counters()[outcome] == 1
    assert worker_loop.pool.stats()["workers_started"] == 1


def test_another_worker_answers_a_request_that_the_first_has_not_read(worker_loop, endpoint):
    (worker,) = worker_loop.pool._idle
    os.kill(worker.process.pid, signal.SIGSTOP)
    wait_until(lambda: state(worker.process.pid) == "T", "it to be stopped")
    client = ask(endpoint, message(b"echo hello"))
    worker_loop.run_until(lambda: worker_loop.quick)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker_loop.run_to_the_end()
    assert response(client) == message(b"hello")
    assert worker_loop.pool.stats()["workers_started"] == 2


def test_a_client_that_leaves_ends_a_worker_that_takes_long(worker_loop, endpoint, folder):
    client = ask(endpoint, message(f"wait {folder}/go {folder}/begun".encode()))
    worker_loop.run_until(lambda: worker_loop.server._dispatcher._on_loop)
    client.close()
    worker_loop.run_to_the_end()
    assert worker_loop.counters()["client_closed"] == 1
    assert worker_loop.pool.stats()["workers_running"] == 0


def test_a_worker_that_takes_long_can_answer_when_the_server_drains(worker_loop, endpoint, folder):
    client = ask(endpoint, message(f"wait {folder}/go".encode()))
    worker_loop.run_until(lambda: worker_loop.quick)
    worker_loop.server.stop()
    worker_loop.run_until(lambda: worker_loop.server._dispatcher._on_loop)
    (folder / "go").touch()
    worker_loop.run_to_the_end()
    assert response(client) == message(b"waited")


HANDLER = 'IFS= read -r what; eval "$what"'
"""Runs the first line of the request as a command, whose input is the rest."""


@pytest.fixture
def exec_loop(endpoint, monkeypatch):
    """A loop that starts a process for each request, which may be slow, and takes it for quick."""
    for limit in ("_QUICK", "_QUICK_FOR"):
        monkeypatch.setattr(exec_handlers, limit, 3600.0)
    monkeypatch.setattr(quick_exchange, "_MAX_TIME", 3600.0)
    new_handler = exec_handlers.ProcessHandler
    with closing(ProcessLoop(endpoint, new_handler, HANDLER, b"printf first\n")) as loop:
        loop.server._dispatcher._quick_from = 0.0  # the output of the first may have waited
        yield loop


@pytest.mark.parametrize("size", [0, 5, LIMIT - 4, LIMIT])
def test_a_process_answers_a_small_request_without_an_exchange(
    exec_loop, endpoint, monkeypatch, size
):
    """A request of more than 4096 bytes is not written before the start."""
    monkeypatch.setattr(type(exec_loop.server._dispatcher), "_new_exchange", None)
    client = ask(endpoint, message(b"cat\n" + bytes(size)))
    exec_loop.run_to_the_end()
    assert response(client) == message(bytes(size))
    assert exec_loop.counters()["answered"] == 2
    assert exec_loop.counters()["bytes_out"] == 5 + size


@pytest.mark.parametrize(
    ("command", "payload", "outcome"),
    [
        ("printf half; exit 3", b"half", "handler_failed"),
        ("printf half; kill -9 $$", b"half", "handler_failed"),
        ("exec >&-; exit 3", b"", "handler_failed"),
        ("printf good; sleep 1000 >/dev/null &", b"good", "answered"),
        ("printf good; sleep 1000 &", b"good", "answered"),
        (f"head -c {LIMIT + 1} /dev/zero", bytes(LIMIT + 1), "answered"),
    ],
    ids=["exit", "kill", "silent", "a child", "a child that writes", "much"],
)
def test_an_exchange_continues_what_is_left_to_do_after_the_exit_of_a_process(
    exec_loop, endpoint, command, payload, outcome
):
    client = ask(endpoint, message(command.encode() + b"\n"))
    answered = exec_loop.counters()["answered"]
    exec_loop.run_to_the_end()
    assert decode(response(client)) == (payload, outcome == "answered")
    assert exec_loop.counters()["answered"] == answered + (outcome == "answered")
    assert outcome == "answered" or exec_loop.counters()[outcome] == 1


@pytest.mark.parametrize("taken", [0, 1, LIMIT, 65_004])
def test_an_exchange_writes_what_the_pipe_to_a_process_does_not_take_at_once(
    exec_loop, endpoint, monkeypatch, taken
):
    client = ask(endpoint, message(b"cat\n" + bytes(65_000)))
    write = ProcessRun.write

    def write_some(run, payload, *, last):
        """Write as if the pipe had space for so many bytes, but only now."""
        monkeypatch.setattr(ProcessRun, "write", write)
        if not taken:
            raise BlockingIOError
        return write(run, [payload[0][:taken]], last=last)

    monkeypatch.setattr(ProcessRun, "write", write_some)
    exec_loop.run_to_the_end()
    assert decode(response(client)) == (bytes(65_000), True)


def test_an_exchange_continues_a_process_whose_output_waits(
    exec_loop, endpoint, folder, monkeypatch
):
    """It passes on the output as it is produced. So do the exchanges of the next requests."""
    monkeypatch.setattr(dispatcher, "_SLOW_FOR", 3600.0)
    command = f"printf begun; : >{folder}/begun; "
    command += f"until test -e {folder}/go; do sleep 0.01; done; printf done\n"
    with ask(endpoint, message(command.encode())) as client:
        exec_loop.run_until(lambda: exec_loop.quick)
        wait_until((folder / "begun").exists, "it to write")
        (quick,) = exec_loop.quick
        quick.due = exec_loop.server._dispatcher.due = 0.0
        exec_loop.run_until(lambda: unread_by_client(client))
        assert client.recv(100) == b"0009begun"
        monkeypatch.setattr(dispatcher, "QuickExchange", None)
        with ask(endpoint, message(b"cat\nnext")) as other:
            exec_loop.run_until(lambda: exec_loop.counters()["answered"] == 2)
            assert other.recv(100) == message(b"next")
        (folder / "go").touch()
        exec_loop.run_until(lambda: exec_loop.counters()["answered"] == 3)
        assert response(client) == message(b"done")


def unread_by_client(connection):
    """Return how many bytes the client has not read yet."""
    found = fcntl.ioctl(connection, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def test_a_client_that_leaves_ends_a_process_that_takes_long(exec_loop, endpoint, monkeypatch):
    monkeypatch.setattr(quick_exchange, "_MAX_TIME", 0.0)
    client = ask(endpoint, message(b"exec sleep 1000\n"))
    exec_loop.run_until(lambda: exec_loop.server._dispatcher._on_loop)
    client.close()
    exec_loop.run_to_the_end()
    assert exec_loop.counters()["client_closed"] == 1
