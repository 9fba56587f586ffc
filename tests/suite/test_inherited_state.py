"""No test depends on the state that the run was started in."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import pytest
from helpers import state, subrun
from helpers.command import Program
from helpers.paths import TESTS
from helpers.procfs import children, is_running
from helpers.terminal import terminal
from helpers.waiting import wait_until

BLOCK = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
os.execv(sys.argv[1], sys.argv[1:])
"""

STATES = {
    "nohup": "trap '' HUP",
    "ignored signals": "trap '' INT HUP QUIT TERM CHLD PIPE USR1",
    "blocked signals": f"set -- {sys.executable} -c '{BLOCK}' \"$@\"",
    "umask": "umask 077",
    "locale": "export LC_ALL=C",
    "limits": "ulimit -n 256; ulimit -S -c unlimited",
    "no HOME": "unset HOME",
    "stdin closed": "exec <&-",
    "variables": "export GIT_DIR=/x LISTEN_FDS=1 LC_TIME=C NO_COLOR=1 PYTHONUTF8=0 COLUMNS=9"
    " XDG_RUNTIME_DIR=/x TZ=XST-3",
    "another folder": "cd /",
}
"""Commands of bash that enter a state. A run here never has a terminal."""

SIGNALS = ["nohup", "ignored signals"]
"""States in which the tests are left to a worker."""

SAMPLE = subrun.SAMPLES / "state.py"
BENCH = [TESTS / "cli/bench/test_ending.py", TESTS / "cli/bench/test_progress.py"]
SENSITIVE = [*BENCH, TESTS / "cli/serve/test_signals.py"]
"""Files with tests that have failed in some of these states."""


def run_in(*states: str, files: Sequence[object] = (), chosen: str = "") -> None:
    status, output = subrun.run(
        # Without -s, pytest itself replaces the standard input.
        *[SAMPLE, *files, "-s", "-k", f"state.py {chosen}"],
        shell="; ".join([*(STATES[name] for name in states), '"$@"']),
        env=subrun.plain_environment(SIPC_SOAK="7"),
        start_new_session=True,
    )
    assert status == 0, output


def test_a_run_resets_these_states_when_it_starts():
    run_in(*(name for name in STATES if name not in SIGNALS))


def test_sensitive_tests_pass_in_all_these_states_together():
    run_in(*STATES, files=BENCH, chosen="or signal or terminal")


def test_a_home_that_cannot_be_written_to_is_replaced(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null/home")
    state.set_home(str(folder / "home"))
    assert os.environ["HOME"] == str(folder / "home")
    assert (folder / "home").is_dir()


@pytest.mark.soak
@pytest.mark.parametrize("name", STATES)
def test_sensitive_tests_pass_in_each_of_these_states(name):
    run_in(name, files=SENSITIVE, chosen="or SIGINT or terminal_shows or signal_ends_the_load")


def test_a_job_in_the_background_survives_ctrl_c_and_the_end_of_its_terminal(folder):
    output = folder / "output"
    job = ["setsid", "--ctty", "bash", "-c", f'nohup "$@" >{output} 2>&1 & wait', "bash"]
    with terminal() as tty:
        with Program(
            [*job, *subrun.command(subrun.SAMPLES / "waits.py")],
            stdin=tty.slave,
            env=subrun.plain_environment(),
        ) as shell:
            (pid,) = wait_until(lambda: children(shell.pid), "the run to start")
            mark = subrun.mark_of(pid)
            wait_until((subrun.folder_of(mark) / "ready").exists, "the test to start its server")
            tty.type(b"\x03")
            assert shell.wait() == -signal.SIGINT, "as the whole group of processes was sent it"
    # The leader of its session has ended, so that the group was sent SIGHUP.
    (subrun.folder_of(mark) / "go").touch()
    wait_until(lambda: not is_running(pid), "the run to end")
    assert "= 1 passed in " in output.read_text()
    subrun.wait_until_nothing_is_left(mark)
