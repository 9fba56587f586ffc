"""How a child's exit is reported: by a pidfd, a kqueue or a thread."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from contextlib import ExitStack, closing, suppress

import pytest
from helpers import scripted_kqueue
from helpers.procfs import children, state
from helpers.streams import reported
from helpers.waiting import wait_until

from simpleipc_cli.errors import SipcError
from simpleipc_cli.process import exit_watch_fds
from simpleipc_cli.process.posix import exit_watch
from simpleipc_cli.process.posix.child import StdioPipes
from simpleipc_cli.process.posix.spawn import Command, best_spawn
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import READ, new_poller
from simpleipc_cli.transport.unix.kqueue import KqueuePoller

pytestmark = pytest.mark.skipif(not scripted_kqueue.IS_AVAILABLE, reason="Linux is masked")


def failing(number):
    def fail(*_arguments):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture(autouse=True)
def chosen_again():
    """Choose how exits are reported in each test."""
    exit_watch.best_exit_watch.cache_clear()
    yield
    exit_watch.best_exit_watch.cache_clear()


@pytest.fixture(params=["pidfd", "kqueue", "thread"])
def way(request, monkeypatch):
    """The way in which exits are reported."""
    if request.param == "kqueue":
        scripted_kqueue.install(monkeypatch)
    if request.param != "pidfd":
        monkeypatch.setattr(os, "pidfd_open", failing(errno.ENOSYS))
    return request.param


@pytest.fixture
def pipes():
    pipes = StdioPipes()
    yield pipes
    pipes.close()


def start(pipes, line):
    return pipes.spawn(Command(line, os.environ["PATH"]), os.environ, DescriptorLimit(), {})


def open_files():
    return {int(name) for name in os.listdir("/proc/self/fd")}


def own_threads():
    return [thread for thread in threading.enumerate() if thread._target is not None]


def test_each_system_has_its_own_way(way):
    kind = type(exit_watch.best_exit_watch()()).__name__
    assert kind == {"pidfd": "_PidfdWatch", "kqueue": "_KqueueWatch", "thread": "_ThreadWatch"}[way]


@pytest.mark.parametrize(
    ("line", "status"), [("true", 0), ("exit 255", 255), ("kill -KILL $$", -signal.SIGKILL)]
)
def test_an_exit_is_reported_until_the_child_is_stopped(way, pipes, line, status):
    before = open_files()
    child = start(pipes, line)
    with closing(new_poller()) as poller:
        poller.register(child.descriptor, READ)
        for _ in range(2):
            assert reported(poller).keys() == {child.descriptor}
    wait_until(lambda: child.status() is not None, "its status to be known")
    assert child.status() == status
    assert state(child.pid) == "Z"
    child.stop(0.0, None)
    assert state(child.pid) == "X"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child.descriptor)
    pipes.close()
    wait_until(lambda: open_files() <= before, "its descriptors to be closed")


def test_a_running_child_is_not_reported(way, pipes):
    child = start(pipes, "sleep 1000")
    with closing(new_poller()) as poller:
        poller.register(child.descriptor, READ)
        assert poller.wait(0) == []
        assert child.status() is None
        child.kill()
        assert reported(poller).keys() == {child.descriptor}
    wait_until(lambda: child.status() == -signal.SIGKILL, "its status")
    child.stop(0.0, None)


def test_a_kqueue_reports_what_a_kqueue_reports(monkeypatch, pipes):
    scripted_kqueue.install(monkeypatch)
    monkeypatch.delattr(os, "pidfd_open")
    child = start(pipes, "sleep 1000")
    with closing(KqueuePoller()) as poller:
        poller.register(child.descriptor, READ)
        assert poller.wait(0) == []
        child.kill()
        for _ in range(2):
            assert reported(poller) == {child.descriptor: READ}
    child.stop(0.0, None)


def test_a_child_that_has_exited_before_it_is_watched_is_reported(way):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with closing(exit_watch.best_exit_watch()()) as watch, closing(new_poller()) as poller:
        watch.begin(pid)
        poller.register(watch.descriptor, READ)
        assert reported(poller).keys() == {watch.descriptor}
        assert exit_watch.exit_status(pid) == 0
    os.waitpid(pid, 0)


def test_a_watch_without_a_child_leaves_nothing(way):
    exit_watch.best_exit_watch()
    before, threads = open_files(), set(own_threads())
    exit_watch.best_exit_watch()().close()
    wait_until(lambda: open_files() <= before, "its descriptors to be closed")
    wait_until(lambda: set(own_threads()) <= threads, "its thread to end")


# -- scarce descriptors and threads --------------------------------------------------------


@pytest.fixture
def take_all_descriptors():
    """A function that leaves no descriptor free."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)

        def take_all():
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_files()) + 10, limits[1]))
            with suppress(OSError):
                while True:
                    stack.callback(os.close, os.dup(0))

        yield take_all


def test_a_pidfd_gets_a_descriptor_that_the_child_has_freed(pipes, take_all_descriptors):
    best_spawn()
    exit_watch.best_exit_watch()
    take_all_descriptors()
    child = start(pipes, "sleep 1000")
    assert child.status() is None
    child.stop(0.0, None)


@pytest.mark.parametrize("way", ["kqueue", "thread"], indirect=True)
def test_no_child_starts_without_descriptors_to_watch_it(way, pipes, take_all_descriptors):
    best_spawn()
    exit_watch.best_exit_watch()
    before = set(children(os.getpid()))
    take_all_descriptors()
    with pytest.raises(SipcError, match="cannot start 'sleep 1000': Too many open files"):
        start(pipes, "sleep 1000")
    assert set(children(os.getpid())) <= before


def test_no_child_starts_without_a_thread_to_watch_it(monkeypatch, pipes):
    def fail(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "pidfd_open", failing(errno.EPERM))
    before, files = set(children(os.getpid())), open_files()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(SipcError, match="cannot start 'sleep 1000': can't start new thread"):
            start(pipes, "sleep 1000")
    assert set(children(os.getpid())) <= before
    assert open_files() < files


# -- systems that forbid or lack calls -----------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_system_without_waitid_is_refused(monkeypatch, number):
    monkeypatch.setattr(os, "waitid", failing(number))
    with pytest.raises(SipcError, match="cannot watch the exit of a process: waitid: ") as raised:
        exit_watch_fds()
    assert raised.value.hint == "allow waitid(2) in the sandbox"


def test_a_shortage_of_descriptors_is_no_reason_for_another_way(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", failing(errno.EMFILE))
        with pytest.raises(SipcError, match="Too many open files"):
            exit_watch_fds()
    assert exit_watch.best_exit_watch() is exit_watch._PidfdWatch


class ScriptedWaitid:
    """waitid(2) of macOS: these numbers of a siginfo_t, or an error number."""

    def __init__(self, *outcomes):
        self._outcomes = list(outcomes)
        self.options = []

    def __call__(self, kind, pid, info, options):
        self.options.append((kind, pid, options))
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, int):
            self.number = outcome
            return -1
        info[: len(outcome) * 4] = b"".join(
            number.to_bytes(4, "little", signed=True) for number in outcome
        )
        return 0


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ((20, 0, 1, 1234, 501, 3), (1, 3)),  # CLD_EXITED
        ((20, 0, 2, 1234, 501, 9), (2, 9)),  # CLD_KILLED
        ((), None),  # XNU changes nothing if no child has exited
    ],
)
def test_the_structure_of_macos_is_read(monkeypatch, numbers, found):
    call = ScriptedWaitid(errno.EINTR, numbers)
    monkeypatch.setattr(exit_watch, "_libc_waitid", lambda: call)
    monkeypatch.setattr("ctypes.get_errno", lambda: call.number)
    assert exit_watch._wait_by_libc(1234, block=False) == found
    assert call.options == [(1, 1234, 0x25)] * 2


@pytest.mark.parametrize(
    ("found", "status"),
    [((1, 3), 3), ((1, 0x4000003), 3), ((2, 15), -15), ((3, 6), -6), ((2, 0), -9)],
)
def test_the_status_of_a_killed_child_is_never_that_of_success(monkeypatch, found, status):
    """Old releases of XNU report 0 in place of the signal (waitid_nocancel)."""
    monkeypatch.setattr(exit_watch, "_wait", lambda _pid, block: found)
    assert exit_watch.exit_status(1234) == status


def test_an_error_of_waitid_on_macos_is_raised(monkeypatch):
    call = ScriptedWaitid(errno.ECHILD)
    monkeypatch.setattr(exit_watch, "_libc_waitid", lambda: call)
    monkeypatch.setattr("ctypes.get_errno", lambda: call.number)
    with pytest.raises(ChildProcessError):
        exit_watch._wait_by_libc(1234, block=True)
    assert call.options == [(1, 1234, 0x24)]


def test_the_c_library_has_waitid():
    assert exit_watch._libc_waitid()(1, os.getpid(), bytes(128), 0x4) == -1
