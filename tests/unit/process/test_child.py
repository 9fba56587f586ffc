"""Ending a child process while system calls fail."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest
from helpers.procfs import children, state
from helpers.waiting import wait_until

from simpleipc_cli.errors import SipcError
from simpleipc_cli.process.posix.child import StdioPipes
from simpleipc_cli.process.posix.spawn import Command
from simpleipc_cli.system.fd_limit import DescriptorLimit


@pytest.fixture
def pipes():
    pipes = StdioPipes()
    yield pipes
    pipes.close()


def start(pipes):
    return pipes.spawn(Command("sleep 1000", os.environ["PATH"]), os.environ, DescriptorLimit(), {})


def failing(*_arguments):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_child_whose_exit_cannot_be_polled_is_killed_and_reaped(monkeypatch, pipes):
    child = start(pipes)
    monkeypatch.setattr(os, "waitid", failing)
    assert not child.stop_nowait()
    with pytest.raises(SipcError, match=f"cannot wait for process {child.pid}: Input/output"):
        child.stop(1000.0, None)
    wait_until(lambda: state(child.pid) == "X", "it to be reaped")


def test_a_child_that_cannot_be_watched_is_not_started(monkeypatch, pipes):
    def fail(_pid):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = set(children(os.getpid()))  # those of other tests may still end
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", fail)
        with pytest.raises(SipcError, match=r"cannot watch process \d+: Too many open files"):
            start(pipes)
    assert set(children(os.getpid())) <= before


def test_a_child_is_closed_once_even_if_its_end_failed(monkeypatch, pipes):
    child = start(pipes)
    with monkeypatch.context() as patched:
        patched.setattr(os, "waitid", failing)
        with pytest.raises(SipcError):
            child.stop(1000.0, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child.descriptor)
    other = os.open(os.devnull, os.O_RDONLY)
    if other != child.descriptor:
        os.dup2(other, child.descriptor)
        os.close(other)
    child.stop(0.0, None)
    os.close(child.descriptor)


def test_a_child_keeps_running_if_no_thread_can_wait_for_it(monkeypatch, pipes):
    def fail(_thread):
        raise RuntimeError("can't start new thread")

    child = start(pipes)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        child.detach()
    os.kill(child.pid, signal.SIGKILL)
    assert os.waitpid(child.pid, 0)[1] == signal.SIGKILL
