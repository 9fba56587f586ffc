"""Servers with workers, and requests to them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from helpers.procfs import descriptors
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask

WORKER = f"{sys.executable} -IS {Path(__file__).with_name('worker_program.py')}"


class WorkerServer(Server):
    """A server that may keep its workers when it has nothing to do."""

    def wait_until_idle(self) -> None:
        """Wait until every connection is closed. A worker may still be ended or replaced."""

        def sockets(names: list[str]) -> int:
            return sum(name.startswith("socket:") for name in names)

        at_start = sockets(self.open_at_start)
        wait_until(lambda: sockets(descriptors(self.pid)) <= at_start, "connections to be closed")


def serve_workers(endpoint, *options, worker: str = WORKER, **more) -> WorkerServer:
    """Start a server of one worker, unless the options say otherwise."""
    if "--threads" not in options:
        options = (*options, "--threads", 1)
    return WorkerServer(endpoint, None, "--worker", worker, *options, **more)


def ask_worker(endpoint, *words: object) -> bytes:
    """What a worker answers, in full."""
    payload, whole = ask(endpoint, " ".join(map(str, words)).encode())
    assert whole, payload
    return payload


def worker_counts(log: str) -> dict[str, int]:
    """Return the numbers of workers in the log of a server that has ended; it needs -v."""
    numbers = re.findall(r"^(\d+) workers running, (\d+) workers started, (\d+) workers "
                         r"failed to start, (\d+) workers ended$", log, re.M)  # fmt: skip
    names = ("running", "started", "failed", "ended")
    return dict(zip(names, map(int, numbers[-1]), strict=True))
