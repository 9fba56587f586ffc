"""Processes that generate load together: their counts, and that all of them end."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.procfs import children
from helpers.scripted_server import RespondingServer
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message

from simpleipc_cli.bench import processes
from simpleipc_cli.bench.generator import LoadPlan, Progress
from simpleipc_cli.bench.processes import GeneratorProcesses, split
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
    """A server that reads requests and does not respond."""
    with RespondingServer(path) as server:
        server.go_on.clear()
        yield server


def processes_and_threads() -> set[object]:
    return {*children(os.getpid()), *threading.enumerate()}


@pytest.fixture(autouse=True)
def _none_is_left():
    before = processes_and_threads()  # those of other tests may still end
    yield
    assert processes_and_threads() <= before


@pytest.fixture(autouse=True)
def _may_stop_slowly(monkeypatch):
    """A process that is killed has no results."""
    monkeypatch.setattr(processes, "_STOP_TIMEOUT", TIMEOUT)


def plans_of(path, processes=2, **plan) -> list[LoadPlan]:
    plan = {"concurrency": 6, "timeout": int(TIMEOUT) * SECOND, "payload": b"hi", **plan}
    return split(LoadPlan(str(path), **plan), processes)


ENDLESS = {"duration": 3600 * SECOND}


def never(_progress: Progress) -> bool:
    return False


@contextmanager
def started(plans):
    with GeneratorProcesses() as running:
        assert not running.start(plans, never)
        yield running


class Enough(Exception):
    pass


def pids_of(running) -> list[int]:
    return [process._popen.pid for process in running._processes]


def wait_until_ready(running) -> None:
    """Wait until each process has said that it is ready."""
    count = len(running._processes)
    wait_until(lambda: running._reports.qsize() == count, "all processes to be ready")


def test_the_parts_of_a_split_plan_add_up_to_the_plan():
    plans = plans_of("/x", 4, concurrency=6, requests=10)
    assert [plan.concurrency for plan in plans] == [2, 2, 1, 1]
    assert [plan.requests for plan in plans] == [3, 3, 2, 2]
    assert len(plans_of("/x", 4, concurrency=3)) == 3
    assert len(plans_of("/x", 4, requests=2)) == 2


def test_the_counts_of_three_processes_add_up_to_those_of_the_server(endpoint):
    reports: list[Progress] = []
    with (
        answering_server(endpoint) as server,
        started(plans_of(endpoint, 3, requests=50)) as running,
    ):
        running.run(reports.append)
        results = running.results
        assert 0 < running.results.cpu_share <= 1.1
    assert results.started == results.total.count == len(server.requests) == 50
    assert (results.bytes_out, results.bytes_in) == (100, 150)
    assert (reports[-1].answered, reports[-1].failed) == (50, 0)


def test_the_failures_of_all_processes_are_added(endpoint):
    with started(plans_of(endpoint, requests=9)) as running:
        running.run(never)
        results = running.results
    assert (results.started, results.failures["refused"].count) == (9, 9)


def test_a_load_that_is_stopped_early_returns_its_counts_up_to_then(endpoint):
    with (
        silent_server(endpoint) as server,
        started(plans_of(endpoint, **ENDLESS)) as load,
    ):
        assert load.run(lambda _progress: len(server.requests) == 6)
        results = load.results
    assert (results.started, results.unfinished, results.failures) == (6, 6, {})


@pytest.mark.parametrize("when", ["starting", "started"])
def test_a_load_that_is_stopped_before_its_start_makes_no_request(endpoint, when):
    with answering_server(endpoint) as server, GeneratorProcesses() as running:
        assert running.start(plans_of(endpoint), lambda _progress: when == "starting") or (
            running.run(lambda _progress: True)
        )
    assert (running.results.started, server.requests) == (0, [])


def test_a_killed_process_is_an_error(endpoint):
    with silent_server(endpoint) as server:
        with started(plans_of(endpoint, **ENDLESS)) as running:
            victims = pids_of(running)

            def on_progress(progress):
                if len(server.requests) == 6 and victims:
                    os.kill(victims.pop(), signal.SIGKILL)

            with pytest.raises(SipcError, match="process died, killed by SIGKILL"):
                running.run(on_progress)


def test_a_process_killed_before_its_start_is_an_error(endpoint):
    with started(plans_of(endpoint, **ENDLESS)) as running:
        os.kill(pids_of(running)[1], signal.SIGKILL)
        with pytest.raises(SipcError, match="process died"):
            running.run(never)


@pytest.mark.parametrize(
    ("left", "words"),
    [(0, "cannot generate load: Too many open"), (1, "descriptor limit")],
)
def test_a_process_out_of_descriptors_is_an_error_without_a_traceback(endpoint, capfd, left, words):
    # In an open loop the poller needs a descriptor, too. Requests are due at once.
    plans = plans_of(endpoint, **ENDLESS, interval=1)
    with answering_server(endpoint), started(plans) as running:
        wait_until_ready(running)
        pid = pids_of(running)[0]
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        # The first free descriptor is for the poller, the second for a connection.
        limit = sorted(set(range(len(used) + 2)) - used)[left]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        with pytest.raises(SipcError) as caught:
            running.run(never)
    assert words in caught.value.text
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("when", ["at once", "ready", "running"])
def test_no_process_outlives_its_parent(endpoint, when):
    with silent_server(endpoint) as server:
        with started(plans_of(endpoint, **ENDLESS)) as running:
            pids = pids_of(running)

            def on_progress(progress):
                if len(server.requests) == 6:
                    raise Enough

            if when == "ready":
                wait_until_ready(running)
            elif when == "running":
                with pytest.raises(Enough):
                    running.run(on_progress)
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_processes_out_of_descriptors_are_an_error_and_leave_no_process(endpoint):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, hard))
    try:
        with pytest.raises(SipcError, match="cannot start another process: Too many open files"):
            with started(plans_of(endpoint, 20, concurrency=20, **ENDLESS)):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_whose_program_does_not_exist_is_an_error(endpoint, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/missing/python")
    with pytest.raises(SipcError, match="cannot start another process: No such file"):
        with started(plans_of(endpoint)):
            pass


def test_a_process_whose_reading_thread_cannot_start_is_an_error(endpoint, monkeypatch):
    class NoThread(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    first, second = plans_of(endpoint)
    with started([first]) as running:
        monkeypatch.setattr(processes, "Thread", NoThread)
        with pytest.raises(SipcError, match="cannot start another thread"):
            running.start([second], never)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import missing", "exit status 1, and wrote: ModuleNotFoundError: No module named"),
        (
            "import os; os.write(2, b'x: error 24' + bytes([10])); os._exit(127)",
            "exit status 127, and wrote: x: error 24: check the limits",
        ),
        ("import os; os.abort()", "killed by SIGABRT: check whether the system killed it"),
        ("print('x' * 999_999)", "exit status 0: check"),
        (
            "import sys, pickle; pickle.load(sys.stdin.buffer); sys.exit('an error: 1')",
            "exit status 1, and wrote: an error: 1",
        ),
        ("import os; os.write(1, bytes(1) + b'gA'); os.abort()", "killed by SIGABRT: check"),
    ],
    ids=["module", "line", "signal", "much output", "plan", "half a report"],
)
def test_a_process_that_cannot_start_causes_an_error_of_one_line(
    endpoint, monkeypatch, capfd, program, words
):
    monkeypatch.setattr(processes, "_PROGRAM", program)
    payload = bytes(1 << 20)  # more than the pipe holds
    with started(plans_of(endpoint, payload=payload)) as running:
        with pytest.raises(SipcError, match="a load generator process died, ") as caught:
            running.run(never)
    assert words in caught.value.text
    assert "\n" not in caught.value.text
    assert capfd.readouterr() == ("", "")


def test_output_of_python_between_the_reports_is_ignored(endpoint, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONVERBOSE", "2")  # more than a pipe holds
    with answering_server(endpoint), started(plans_of(endpoint, requests=6)) as running:
        running.run(never)
    assert running.results.started == 6
    assert capfd.readouterr() == ("", "")


def test_the_path_of_python_may_have_a_space(endpoint, folder, monkeypatch):
    (folder / "a b").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(folder / "a b/bin/python"))
    with answering_server(endpoint), started(plans_of(endpoint, requests=6)) as running:
        running.run(never)
    assert running.results.started == 6


def test_load_processes_find_modules_where_this_process_finds_them(endpoint, folder, monkeypatch):
    (folder / "found.py").write_text("")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(
        processes, "_PROGRAM", processes._PROGRAM.replace("from", "import found; from")
    )
    with answering_server(endpoint), started(plans_of(endpoint, requests=6)) as running:
        running.run(never)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_of_the_terminal_do_not_end_the_processes(endpoint, number):
    with silent_server(endpoint) as server:
        with started(plans_of(endpoint, **ENDLESS)) as running:
            pids = pids_of(running)
            for pid in pids:  # while the processes start
                os.kill(pid, number)

            def on_progress(progress):
                if len(server.requests) < 6:
                    return False
                for pid in pids:
                    os.kill(pid, number)
                return True

            assert running.run(on_progress)
            assert running.results.unfinished == 6


def test_sigint_is_not_blocked_after_all_processes_have_started(endpoint):
    with started(plans_of(endpoint, **ENDLESS)):
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
