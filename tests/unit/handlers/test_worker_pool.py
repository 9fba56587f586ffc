"""The pool of workers: reload and counters, with the server in the same process."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager

from helpers.inprocess_server import InProcessServer, RecordingLog
from helpers.procfs import state
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, receive_all
from helpers.workers import WORKER, ask_worker

from simpleipc_cli.handlers.base import Program, handler_environment
from simpleipc_cli.handlers.worker import Worker
from simpleipc_cli.handlers.worker_pool import WorkerPool
from simpleipc_cli.process.posix.spawn import Command, best_spawn
from simpleipc_cli.server.context import ServerConfig
from simpleipc_cli.system.fd_limit import DescriptorLimit


@contextmanager
def serving(path, command: str = WORKER, threads: int = 2):
    """Run a server in a thread; yield its handler."""
    log, descriptors = RecordingLog(), DescriptorLimit()
    environment = handler_environment(os.environ, str(path))
    program = Program(Command(command, os.environ["PATH"]), environment, descriptors, log, 2.0)
    handler = WorkerPool(program, max_workers=threads, max_requests=None)
    config = ServerConfig(max_concurrency=threads)
    server = InProcessServer(str(path), handler, config, log, descriptors)
    try:
        yield handler
    finally:
        server.close()
    numbers = handler.stats()
    assert numbers["workers_running"] == 0, log.lines
    assert numbers["workers_started"] == numbers["workers_ended"], log.lines


def test_the_spawn_function_is_loaded_before_the_first_request(endpoint):
    """Loading it needs a descriptor; without one the slower function would be used for ever."""
    best_spawn.cache_clear()
    with serving(endpoint):
        wait_until(lambda: best_spawn.cache_info().currsize, "it to be loaded")


def test_reloading_ends_idle_workers_and_the_next_request_starts_one(endpoint):
    with serving(endpoint) as handler:
        before = int(ask_worker(endpoint, "pid"))
        handler.reload()
        wait_until(lambda: handler.stats()["workers_running"] == 0, "its end")
        assert state(before) == "X"
        assert int(ask_worker(endpoint, "pid")) != before


def test_after_reloading_no_request_is_answered_by_an_old_worker(endpoint):
    with serving(endpoint) as handler:
        for _ in range(5):
            before = ask_worker(endpoint, "pid")
            handler.reload()
            assert ask_worker(endpoint, "pid") != before


def test_a_worker_that_has_a_request_finishes_it_before_it_is_replaced(endpoint, folder):
    with serving(endpoint, threads=1) as handler:
        before = int(ask_worker(endpoint, "pid"))
        with connect(endpoint) as client:
            client.sendall(message(f"wait {folder}/go {folder}/begun".encode()))
            wait_until((folder / "begun").exists, "it to begin")
            handler.reload()
            (folder / "go").touch()
            assert decode(receive_all(client)) == (b"waited", True)
        wait_until(lambda: state(before) == "X", "its end")
        assert int(ask_worker(endpoint, "pid")) != before


def test_repeated_reloads_of_workers_lose_no_request(endpoint):
    done = threading.Event()
    with serving(endpoint, "cat", threads=4) as handler:  # a program that starts fast

        def reload() -> None:
            while not done.wait(0.01):
                handler.reload()

        def send(number: int) -> None:
            for count in range(40):
                text = f"{number}.{count}"
                answers.append((text, ask(endpoint, text.encode())))

        answers: list[tuple[str, tuple[bytes, bool]]] = []
        reloading = threading.Thread(target=reload)
        reloading.start()
        clients = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        done.set()
        reloading.join()
        assert len(answers) == 160
        assert [answer for text, answer in answers if answer != (text.encode(), True)] == []


def test_reloading_before_the_first_worker_does_nothing(endpoint):
    with serving(endpoint) as handler:
        handler.reload()
        assert ask_worker(endpoint, "echo", "hello") == b"hello"
        assert handler.stats()["workers_started"] == 1


def test_a_worker_that_exits_before_it_is_idle_is_replaced_before_the_next_request(
    endpoint, monkeypatch
):
    """The supervisor sees the exit before the worker is in its list."""
    with serving(endpoint) as handler:

        def exit_first(worker):
            os.kill(worker.process.pid, signal.SIGKILL)
            supervisor = handler._supervisor
            wait_until(lambda: not supervisor._processes, "the supervisor to have seen its exit")

        monkeypatch.setattr(Worker, "mark_idle", exit_first)
        ask_worker(endpoint, "pid")
        wait_until(lambda: handler.stats()["workers_running"] == 0, "the worker to be removed")


def test_a_start_without_memory_leaves_room_for_another_worker(endpoint, monkeypatch):
    with serving(endpoint, threads=1) as handler:

        def fail(*_: object):
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(Worker, "__init__", fail)
            assert ask(endpoint, b"pid") == (b"", False)
        ask_worker(endpoint, "pid")
        assert handler.stats()["workers_failed_to_start"] == 1


def test_failed_workers_are_counted_under_the_lock(endpoint, monkeypatch):
    """Several threads count at the same time."""
    unlocked = []
    record = WorkerPool._record_failure

    def check(pool, reason):
        if pool._lock.acquire(blocking=False):
            pool._lock.release()
            unlocked.append(reason)
        record(pool, reason)

    def fail(*_: object):
        raise MemoryError

    monkeypatch.setattr(WorkerPool, "_record_failure", check)
    with serving(endpoint, "exit 1") as handler:
        assert ask(endpoint, b"") == (b"", False)
        wait_until(lambda: handler.stats()["workers_running"] == 0, "its end")
        monkeypatch.setattr(Worker, "__init__", fail)
        assert ask(endpoint, b"") == (b"", False)
        assert handler.stats()["workers_failed_to_start"] == 2
    assert unlocked == []


def test_running_started_failed_and_ended_workers_are_counted(endpoint, folder):
    command = f"test -e {folder}/good || exit 1; exec {WORKER}"
    with serving(endpoint, command, threads=1) as handler:
        assert ask(endpoint, b"pid") == (b"", False)
        wait_until(lambda: handler.stats()["workers_running"] == 0, "its end")
        (folder / "good").touch()
        ask_worker(endpoint, "pid")
        ask(endpoint, b"exit 1")
        wait_until(lambda: handler.stats()["workers_running"] == 0, "its end")
        ask_worker(endpoint, "pid")
        assert handler.stats() == {
            "workers_running": 1,
            "workers_started": 3,
            "workers_failed_to_start": 1,
            "workers_ended": 2,
        }
