"""Workers from within: what a signal handler and the log's counters ask for."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from helpers.paths import TESTS
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, decode, message, receive_all
from helpers.workers import ask_worker

from simpleipc_cli.handlers.command import Command
from simpleipc_cli.handlers.worker_pool import WorkerPool
from simpleipc_cli.server.config import ServerConfig
from simpleipc_cli.server.descriptors import DescriptorLimit
from simpleipc_cli.server.log import Log
from simpleipc_cli.server.server import Server
from simpleipc_cli.transport import listen

ACTOR = f"{sys.executable} {TESTS / 'helpers/worker_program.py'}"


class Lines(Log):
    """A log to look at."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def request(self, record):
        self.lines.append(f"{record.outcome.value}: {record.detail}")

    def warning(self, text):
        self.lines.append(text)

    info = debug = warning

    def stats(self, figures):
        raise AssertionError("nobody asks")

    def reopen(self):
        raise AssertionError("nobody asks")


@contextmanager
def serving(path, command: str = ACTOR, threads: int = 2):
    """A server in a thread; the handler."""
    log = Lines()
    descriptors = DescriptorLimit()
    handler = WorkerPool(
        Command(command, os.environ["PATH"]),
        os.environ,
        descriptors,
        log,
        max_workers=threads,
        max_requests=None,
        grace_period=2.0,
    )
    listener = listen(str(path), mode=0o600, backlog=100)
    config = ServerConfig(max_concurrency=threads)
    server = Server(
        listener, str(path), handler=handler, config=config, log=log, descriptors=descriptors
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield handler
    finally:
        server.stop()
        thread.join(TIMEOUT)
        server.close()
    numbers = handler.stats()
    assert numbers["workers_running"] == 0, log.lines
    assert numbers["workers_started"] == numbers["workers_ended"], log.lines


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_renewing_ends_an_idle_worker_and_the_next_request_gets_a_new_one(endpoint):
    with serving(endpoint) as handler:
        before = int(ask_worker(endpoint, "pid"))
        handler.reload()
        wait_until(lambda: not lives(before), "its end")
        assert handler.stats()["workers_running"] == 0
        assert int(ask_worker(endpoint, "pid")) != before


def test_after_renewing_no_request_is_answered_by_an_old_worker(endpoint):
    with serving(endpoint) as handler:
        for _ in range(20):
            before = ask_worker(endpoint, "pid")
            handler.reload()
            assert ask_worker(endpoint, "pid") != before


def test_a_worker_that_has_a_request_finishes_it_before_it_is_renewed(endpoint, folder):
    with serving(endpoint, threads=1) as handler:
        before = int(ask_worker(endpoint, "pid"))
        with connect(endpoint) as client:
            client.sendall(message(f"wait {folder}/go {folder}/begun".encode()))
            wait_until((folder / "begun").exists, "it to begin")
            handler.reload()
            (folder / "go").touch()
            assert decode(receive_all(client)) == (b"waited", True)
        wait_until(lambda: not lives(before), "its end")
        assert int(ask_worker(endpoint, "pid")) != before


def test_no_request_is_lost_when_workers_are_renewed_all_the_time(endpoint):
    done = threading.Event()
    with serving(endpoint, threads=4) as handler:

        def renew() -> None:
            while not done.wait(0.01):
                handler.reload()

        def send(number: int) -> None:
            for count in range(40):
                text = f"{number}.{count}"
                answers.append((text, ask(endpoint, f"echo {text}".encode())))

        answers: list[tuple[str, tuple[bytes, bool]]] = []
        renewing = threading.Thread(target=renew)
        renewing.start()
        clients = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        done.set()
        renewing.join()
        assert len(answers) == 160
        assert [answer for text, answer in answers if answer != (text.encode(), True)] == []


def test_renewing_before_there_is_a_worker_does_nothing(endpoint):
    with serving(endpoint) as handler:
        handler.reload()
        assert ask_worker(endpoint, "echo", "hello") == b"hello"
        assert handler.stats()["workers_started"] == 1


def test_the_counts_tell_what_runs_what_was_started_and_what_failed(endpoint, folder):
    command = f"test -e {folder}/good || exit 1; exec {ACTOR}"
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
