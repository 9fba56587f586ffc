"""A test that starts programs that run for an hour, and hangs; a later one passes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

from helpers import leftovers, subrun
from helpers.command import SIPC, environment, sipc
from helpers.server import Server


def stay() -> None:
    while True:
        signal.pause()


def test_starts_programs(endpoint, folder):
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Without the run's mark the guardian finds it only while its parent runs.
        other = os.spawnlp(os.P_NOWAIT, "env", "env", "-i", "sleep", "1h")
    elif not (other := os.fork()):
        stay()
    arguments = ["serve", folder / "daemon", "--exec", "cat", "--background"]
    assert sipc(*arguments).returncode == 0
    with Server(endpoint, "exec sleep 1h") as server:
        bench = subprocess.Popen([SIPC, "bench", endpoint, "-z", "1h", "-q"], env=environment())
        (folder / "locked").mkdir(mode=0)
        assert folder.parent == leftovers.folder()
        pids = [os.getpid(), server.pid, bench.pid, other]
        (leftovers.folder() / "new").write_text(" ".join(map(str, pids)))
        (leftovers.folder() / "new").rename(leftovers.folder() / "pids")
        threading.Event().wait()


def test_after_it():
    pass


def test_leaves_a_program():
    os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1h")


def test_runs_another(folder):
    """Wait in a run of the tests for a run of the first of these."""
    with subrun.start(__file__, "-k", "starts_programs", "-n", 0) as run:
        (leftovers.folder() / "new").write_text(str(run.pid))
        (leftovers.folder() / "new").rename(leftovers.folder() / "pids")
        run.communicate()
