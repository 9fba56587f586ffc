"""Processes that make load together: what they count, and that none is left."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from collections import deque
from contextlib import contextmanager
from itertools import repeat
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from helpers.procfs import children
from helpers.resource_tracker import stop_resource_tracker
from helpers.scripted_server import RespondingServer
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message

from simpleipc_cli.bench.generator import LoadPlan, monotonic_ns
from simpleipc_cli.bench.processes import GeneratorProcesses, Progress, _run_generator, split
from simpleipc_cli.errors import SipcError

SECOND = 1_000_000_000

pytestmark = pytest.mark.filterwarnings(
    "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)


@contextmanager
def answering_server(path):
    with RespondingServer(path, lambda _: message(b"yes")) as server:
        yield server


@contextmanager
def silent_server(path):
    """A server that reads requests and does not response."""
    with RespondingServer(path) as server:
        server.go_on.clear()
        yield server


def makers() -> list[int]:
    """Our children, those that Python itself keeps left out."""
    # What subprocess and the resource tracker start is not a generator's.
    helper = resource_tracker._resource_tracker._pid
    return [pid for pid in children(os.getpid()) if pid != helper]


@pytest.fixture(autouse=True, scope="module")
def _no_resource_tracker_is_left():
    yield
    stop_resource_tracker()


@pytest.fixture(autouse=True)
def _none_is_left():
    before = set(makers())
    yield
    assert not multiprocessing.active_children()
    assert set(makers()) <= before


def plans_of(path, processes=2, **plan) -> list[LoadPlan]:
    plan = {"concurrency": 6, "timeout": int(TIMEOUT) * SECOND, "payload": b"hi", **plan}
    return split(LoadPlan(str(path), **plan), processes)


ENDLESS = {"duration": 3600 * SECOND}


def ignore(progress: Progress) -> None: ...


class Enough(Exception):
    pass


def run_until(running: GeneratorProcesses, state) -> None:
    """Make load until a state."""

    def on_progress(progress):
        if state():
            raise Enough

    with pytest.raises(Enough):
        running.run(on_progress, 0.01)


def test_a_plan_is_split_completely():
    plans = plans_of("/x", 4, concurrency=6, requests=10)
    assert [plan.concurrency for plan in plans] == [2, 2, 1, 1]
    assert [plan.requests for plan in plans] == [3, 3, 2, 2]
    assert len(plans_of("/x", 4, concurrency=3)) == 3
    assert len(plans_of("/x", 4, requests=2)) == 2


def test_the_counts_of_three_processes_add_up_to_those_of_the_server(endpoint):
    reports: list[Progress] = []
    with (
        answering_server(endpoint) as server,
        GeneratorProcesses(plans_of(endpoint, 3, requests=50)) as running,
    ):
        running.run(reports.append, 0.1)
        results = running.results()
        assert 0 < running.results().cpu_share <= 1.1
    assert results.started == results.total.count == len(server.requests) == 50
    assert (results.bytes_out, results.bytes_in) == (100, 150)
    assert (reports[-1].answered, reports[-1].failed) == (50, 0)


def test_failures_of_all_processes_add_up(endpoint):
    with GeneratorProcesses(plans_of(endpoint, requests=9)) as running:
        running.run(ignore, 0.1)
        results = running.results()
    assert (results.started, results.failures["refused"].count) == (9, 9)


def test_stopping_early_gives_the_counts_so_far(endpoint):
    with (
        silent_server(endpoint) as server,
        GeneratorProcesses(plans_of(endpoint, **ENDLESS)) as load,
    ):
        run_until(load, lambda: len(server.requests) == 6)
        load.stop()
        results = load.results()
    assert (results.started, results.unfinished, results.failures) == (6, 6, {})


def test_stopping_before_the_start_or_after_the_end_changes_nothing(endpoint):
    with (
        answering_server(endpoint) as server,
        GeneratorProcesses(plans_of(endpoint, requests=6)) as running,
    ):
        running.stop()
        assert running.results().started == 0
        running.run(ignore, 0.1)
        running.stop()
        assert running.results().started == len(server.requests) == 6


def test_a_killed_process_is_an_error(endpoint):
    with silent_server(endpoint) as server:
        with GeneratorProcesses(plans_of(endpoint, **ENDLESS)) as running:
            victims = [process.pid for process in running._processes]

            def on_progress(progress):
                if len(server.requests) == 6 and victims:
                    os.kill(victims.pop(), signal.SIGKILL)

            with pytest.raises(SipcError, match="a load generator process died"):
                running.run(on_progress, 0.01)


def test_a_process_killed_before_its_start_is_an_error(endpoint):
    with GeneratorProcesses(plans_of(endpoint, **ENDLESS)) as running:
        os.kill(running._processes[1].pid, signal.SIGKILL)
        with pytest.raises(SipcError, match="process died"):
            running.run(ignore, 0.01)


@pytest.mark.parametrize(
    ("left", "words"),
    [(0, "cannot generate load: Too many open"), (1, "descriptor limit")],
)
def test_a_process_out_of_descriptors_is_an_error_without_a_traceback(endpoint, capfd, left, words):
    with answering_server(endpoint), GeneratorProcesses(plans_of(endpoint, **ENDLESS)) as running:
        for connection in running._connections:
            assert wait([connection], TIMEOUT)  # it is ready
        pid = running._processes[0].pid
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        # The first that is free is for the poller, the second for a connection.
        limit = sorted(set(range(len(used) + 2)) - used)[left]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        with pytest.raises(SipcError) as caught:
            running.run(ignore, 0.01)
    assert words in caught.value.text
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("when", ["at once", "ready", "running"])
def test_closing_alone_leaves_no_process(endpoint, when):
    with silent_server(endpoint) as server:
        running = GeneratorProcesses(plans_of(endpoint, **ENDLESS))
        pids = [process.pid for process in running._processes]
        if when == "ready":
            wait(running._connections, TIMEOUT)
        elif when == "running":
            run_until(running, lambda: len(server.requests) == 6)
        running.close()
        running.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_processes_out_of_descriptors_are_an_error_and_leave_no_process(endpoint):
    plans = plans_of(endpoint, 20, concurrency=20, **ENDLESS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, hard))
    try:
        with pytest.raises(SipcError, match="cannot start another process: Too many open files"):
            GeneratorProcesses(plans)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_processes_that_cannot_start_leave_no_process(endpoint, monkeypatch):
    plans = plans_of(endpoint, **ENDLESS)
    unsendable = LoadPlan(str(endpoint), expect=threading.Lock())
    with pytest.raises(TypeError):
        GeneratorProcesses([*plans, unsendable])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_of_the_terminal_do_not_end_the_processes(endpoint, number, capfd):
    with silent_server(endpoint) as server:
        with GeneratorProcesses(plans_of(endpoint, **ENDLESS)) as running:
            pids = [process.pid for process in running._processes]
            for pid in pids:  # while they start
                os.kill(pid, number)
            run_until(running, lambda: len(server.requests) == 6)
            for pid in pids:
                os.kill(pid, number)
            assert wait(running._connections, 0) == []
            assert sorted(set(makers()) & set(pids)) == sorted(pids)
            running.stop()
            assert running.results().unfinished == 6
    assert "Traceback" not in capfd.readouterr().err


def test_sigint_is_not_blocked_once_all_processes_are_started(endpoint):
    with GeneratorProcesses(plans_of(endpoint, **ENDLESS)):
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        wait_until(lambda: len(makers()) >= 2, "two processes")


def test_the_load_goes_on_while_its_reports_are_not_read(endpoint):
    """A terminal that was halted with Ctrl-S must not halt the clock of a request."""
    reader, writer = multiprocessing.Pipe()
    os.set_blocking(writer.fileno(), False)
    with reader, writer, answering_server(endpoint) as server:
        with pytest.raises(BlockingIOError):
            deque(map(writer.send, repeat(b"")))  # until there is no room
        os.set_blocking(writer.fileno(), True)
        (plan,) = plans_of(endpoint, 1, requests=5)
        assert _run_generator(plan, monotonic_ns(), writer).started == len(server.requests) == 5
