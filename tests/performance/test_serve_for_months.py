"""A short simulation of months of service: idle connections, and every outcome."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from statistics import median
from time import perf_counter

import pytest
from helpers.procfs import children, status, threads
from helpers.server import Server
from helpers.soak import SOAK
from helpers.waiting import wait_until
from helpers.wire import ask, connect, message, open_connections, receive_all

pytestmark = pytest.mark.performance

IDLE = 10_000
THREADS = 8  # at most, unless --threads says otherwise; each is started when it is needed
ROUNDS = 100 * int(os.environ.get("SIPC_PERFORMANCE", "1"))
REQUESTS = 400 * SOAK  # 100,000 with SIPC_SOAK=250


def memory(pid: int) -> int:
    """Return the current memory of a process in bytes."""
    return int(status(pid, "VmRSS")) * 1024


@contextmanager
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def idle_clients(server: Server, size: int):
    """Connect clients that send nothing; not more at once than the kernel's queue holds."""
    with ExitStack() as stack:
        for number in range(0, size, 500):
            stack.enter_context(open_connections(server.path, min(500, size - number)))
            there = min(size, number + 500)
            wait_until(lambda: len(server.connections()) >= there, "all to be accepted")  # noqa: B023
        yield


def latency(path) -> float:
    """Return the median time of some requests in turn, in seconds."""
    took = []
    for _ in range(ROUNDS):
        began = perf_counter()
        assert ask(path, b"hello") == (b"hello", True)
        took.append(perf_counter() - began)
    return median(took)


def test_ten_thousand_idle_connections_stay_open_while_requests_are_answered(endpoint, state):
    with many_descriptors() as allowed, Server(endpoint, "cat") as server:
        size = min(IDLE, allowed - 200)
        latency(endpoint)  # the threads have started, and have their memory
        before = memory(server.pid)
        with idle_clients(server, size):
            grown = memory(server.pid) - before
            busy = [latency(endpoint)]
            assert len(server.connections()) >= size
        server.wait_until_idle()
        alone = [latency(endpoint)]
        with idle_clients(server, size):
            busy.append(latency(endpoint))
        server.wait_until_idle()
        alone.append(latency(endpoint))
    state(
        f"{size} idle connections, median latency against none",
        " and ".join(f"{one / other:.2f}" for one, other in zip(busy, alone, strict=True)),
    )
    state(
        "memory of the server for each idle connection",
        f"{grown / size:.0f} bytes ({grown / 2**20:.1f} MiB in all)",
    )


def test_requests_of_every_outcome_leave_no_process_and_no_descriptor(endpoint, state):
    """No process is left, the number of threads does not grow, every request is counted."""
    script = 'read -r w; case $w in fail) exit 3;; hang) exec sleep 100;; *) echo "$w";; esac'
    options = ["--timeout", "1s", "--kill-after", "1s", "-q"]
    kinds = ["hello"] * 60 + ["fail"] * 20 + ["leave"] * 19 + ["hang"]
    wrong = []

    def client(first: int) -> None:
        for number in range(first, REQUESTS, 4):
            kind = kinds[number % 100]
            with connect(endpoint) as connection:
                connection.sendall(message(b"%s\n" % kind.encode()))
                if kind != "leave":
                    expected = message(b"hello\n") if kind == "hello" else b""
                    if receive_all(connection) != expected:
                        wrong.append(number)

    def load() -> None:
        clients = [threading.Thread(target=client, args=(first,)) for first in range(4)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        server.wait_until_idle()

    with Server(endpoint, script, *options) as server:
        for _ in range(50):
            ask(endpoint, b"hello\n")
        with open_connections(endpoint, THREADS) as clients:
            for one in clients:
                one.sendall(message(b"hang\n"))
            assert [receive_all(one) for one in clients] == [b""] * 8
        server.wait_until_idle()
        before = len(threads(server.pid)), len(children(server.pid)), memory(server.pid)
        load()
        after = len(threads(server.pid)), len(children(server.pid)), memory(server.pid)
        server.signal(signal.SIGUSR1)
        line = server.wait_for_log("counters:")
    assert wrong == []
    assert after[0] <= 1 + THREADS
    assert after[1] == before[1] == 0
    found = Counter({name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)})
    assert found["requests"] == 58 + REQUESTS
    assert found["answered"] + found["failed"] == found["requests"]
    hundreds = REQUESTS // 100
    assert (found["handler_failed"], found["handler_timeout"]) == (20 * hundreds, 8 + hundreds)
    state(
        f"{REQUESTS} requests: threads, children and MiB, before and after",
        f"{before[0]}, {before[1]}, {before[2] / 2**20:.1f} and "
        f"{after[0]}, {after[1]}, {after[2] / 2**20:.1f}",
    )
