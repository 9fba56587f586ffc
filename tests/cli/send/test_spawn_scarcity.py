"""`sipc send --spawn` without free descriptors or processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.command import assert_error_line, needs_root
from helpers.soak import soak
from helpers.spawning import SERVE

# Loads all modules of the program, sets the limit that the arguments name, and runs it.
LIMITED = """
import difflib, os, resource, sys
from simpleipc_cli.cli.send import command as send
from simpleipc_cli.cli import main, app
import simpleipc_cli.autostart, simpleipc_cli.transport.unix.poller
name, most = sys.argv[1:3]
sys.argv = sys.argv[3:]
if name == "RLIMIT_NPROC":
    os.setuid(65534)  # there is no limit for root
resource.setrlimit(getattr(resource, name), (int(most), int(most)))
main()
"""


def limited(spawning, name: str, most: int, **options) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", LIMITED, name, str(most), *spawning.command(SERVE, "-d", "hello")],
        env=spawning.environment(),
        capture_output=True,
        **options,
    )


@pytest.mark.parametrize("most", [soak(n) if n in (5, 7) else n for n in range(3, 9)])
def test_without_free_descriptors_send_prints_one_error_and_leaves_no_process(
    spawning, folder, most
):
    """From too few descriptors for the lock to one too few for all pipes of the start."""
    done = limited(spawning, "RLIMIT_NOFILE", most)
    assert_error_line(done, 1, "Too many open files", "ulimit")
    assert os.listdir(folder) == []
    spawning.check_nothing_left()


@needs_root
def test_without_free_processes_send_prints_one_error_and_leaves_no_process(spawning, folder):
    folder.chmod(0o777)
    done = limited(spawning, "RLIMIT_NPROC", 1, cwd="/")
    assert_error_line(done, 1, "cannot start", "Resource temporarily unavailable", "limit")
    assert os.listdir(folder) == []
