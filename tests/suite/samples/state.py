"""The state of the tests and their programs, with any state in which the run was started."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time

import pytest
from helpers.command import environment
from helpers.paths import ROOT


@pytest.fixture(scope="module")
def program() -> str:
    """Return the state that a program started by a test reports."""
    command = "cat /proc/self/status; umask; ulimit -Sn; ulimit -Hn; ulimit -c"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout


def test_signals(program):
    ignored = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
    assert set(ignored) == {signal.SIGPIPE, signal.SIGXFSZ}, "Python's own"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert set(re.findall(r"^Sig(?:Ign|Blk):\t(\w+)$", program, re.M)) == {"0" * 16}


def test_umask_and_limits(program):
    files, hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert files == min(1024, hard_files)
    assert re.findall(r"^(0\d+|\d+)$", program, re.M) == ["0022", str(files), str(hard_files), "0"]


def test_variables():
    for variables in (os.environ, environment()):
        odd = [name for name in variables if re.match("LC_|XDG_R|PYTHON|GIT_|LISTEN|NO_C", name)]
        assert odd == ["LC_ALL"]
        assert (variables["LANG"], variables["LC_ALL"]) == ("C.UTF-8", "C.UTF-8")
        assert "COLUMNS" not in variables
        assert variables["SIPC_SOAK"] == "7"
        assert time.tzname == ("UTC", "UTC")
        assert os.access(variables["HOME"], os.W_OK)


def test_folder_and_standard_input():
    assert os.getcwd() == str(ROOT)
    assert os.path.samestat(os.fstat(0), os.stat(os.devnull))
