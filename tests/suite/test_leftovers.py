"""After each kind of end of a run, no process and no temporary folder of it is left."""

from __future__ import annotations

import os
import re
import signal

import pytest
from helpers import subrun
from helpers.procfs import is_running
from helpers.soak import soak
from helpers.waiting import wait_until

SAMPLE = subrun.SAMPLES / "leaves.py"


def started(mark: str) -> list[int]:
    """Wait until the sample has started all programs; return its pid and theirs."""
    file = subrun.folder_of(mark) / "pids"
    wait_until(file.exists, "the sample to start its programs")
    return [int(pid) for pid in file.read_text().split()]


@pytest.mark.parametrize(
    ("end", "workers"),
    [
        soak("SIGKILL", 0),
        ("SIGKILL", 1),
        ("SIGTERM", 1),
        ("SIGINT and again", 1),
        soak("SIGTERM", 0),
        soak("SIGINT and again", 0),
    ],
)
def test_no_process_outlives_a_run_that_is_ended(end, workers):
    arguments = [SAMPLE, "-k", "starts_programs", "-n", workers]
    with subrun.start(*arguments, start_new_session=True) as run:
        mark = subrun.mark_of(run.pid)
        pids = started(mark)
        assert len(subrun.processes_of(mark)) >= 3 + workers
        assert all(map(is_running, pids))
        number = signal.Signals[end.split()[0]]
        os.killpg(run.pid, number)
        if number == signal.SIGINT:
            wait_until(lambda: run.send_signal(number) or run.poll() is not None, "the end")
        run.communicate()
        subrun.wait_until_nothing_is_left(mark, *pids)


def test_no_process_outlives_a_run_whose_worker_is_killed():
    with subrun.start(SAMPLE, "-k", "starts_programs or after_it", "-n", 1) as run:
        mark = subrun.mark_of(run.pid)
        pids = started(mark)
        os.kill(pids[0], signal.SIGKILL)
        output, _ = run.communicate()
    assert re.search("1 failed, 1 passed", output.splitlines()[-1]), output
    left = output.partition("processes that the run left, and killed")[2]
    assert " bench " in left, output
    os.kill(pids.pop(), signal.SIGKILL)  # without the mark, and its parent has ended
    subrun.wait_until_nothing_is_left(mark, *pids)


@pytest.mark.soak
def test_a_program_that_a_passing_test_left_fails_the_run():
    status, output = subrun.run(SAMPLE, "-k", "leaves_a_program")
    assert status == 1
    assert re.search(r" 1 passed, .*", output.splitlines()[-1]), output
    assert re.search(r"processes that the run left, and killed =+\n\d+ sleep 1h", output), output


@pytest.mark.soak
def test_no_process_outlives_a_run_whose_parent_run_is_killed():
    with subrun.start(SAMPLE, "-k", "runs_another", "-n", 1) as outer:
        (inner,) = started(subrun.mark_of(outer.pid))
        mark = subrun.mark_of(inner)
        pids = started(mark)
        outer.kill()
        outer.communicate()
        subrun.wait_until_nothing_is_left(mark, *pids)
