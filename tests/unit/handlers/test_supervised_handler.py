"""A handler with idle processes: a stop that hangs, and no thread for its supervisor."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest
from helpers.inprocess_server import InProcessServer, RecordingLog
from helpers.waiting import TIMEOUT
from helpers.wire import ask
from helpers.workers import WORKER

from simpleipc_cli.handlers.base import Program, SupervisedHandler, Supervisor
from simpleipc_cli.handlers.exec import PrestartHandler
from simpleipc_cli.handlers.worker_pool import WorkerPool
from simpleipc_cli.process.posix.spawn import Command
from simpleipc_cli.server.context import ServerConfig
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import new_wakeup_event


def program(command: str, log: RecordingLog) -> Program:
    line = Command(command, os.environ["PATH"])
    return Program(line, os.environ, DescriptorLimit(), log, 1000.0)


class Hanging(SupervisedHandler[SimpleNamespace]):
    """Has one idle process, whose stop takes until `end` is set."""

    def __init__(self) -> None:
        super().__init__(program("", RecordingLog()))
        self._idle = [SimpleNamespace(stderr=None)]
        self.begun, self.end = threading.Event(), threading.Event()

    def _stop(self, _idle, _kill_now):
        self.begun.set()
        self.end.wait()

    def _maintain(self, _kill_now):
        raise NotImplementedError

    _is_unusable = _remove = run = _maintain


def test_the_second_signal_ends_the_wait_for_a_stop_that_hangs():
    handler = Hanging()
    with closing(new_wakeup_event()) as kill_now:
        closer = threading.Thread(target=handler.close, args=(kill_now,))
        closer.start()
        assert handler.begun.wait(TIMEOUT)
        kill_now.set()
        closer.join(TIMEOUT)
        is_left = not closer.is_alive()
        handler.end.set()
        closer.join()
    assert is_left


HANDLERS = {
    "prestart": lambda log: PrestartHandler(program("cat", log), count=2),
    "worker": lambda log: WorkerPool(program(WORKER, log), max_workers=2, max_requests=None),
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_requests_are_answered_even_if_the_supervisor_gets_no_thread(endpoint, monkeypatch, kind):
    def fail(_supervisor):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Supervisor, "start", fail)
    log = RecordingLog()
    server = InProcessServer(str(endpoint), HANDLERS[kind](log), ServerConfig(), log)
    try:
        assert [ask(endpoint, b"echo x")[1] for _ in range(3)] == [True] * 3
        assert "cannot supervise idle handlers: can't start new thread" in log.lines
    finally:
        server.close()
