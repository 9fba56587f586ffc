"""`sipc serve`: the processes of handlers, and those that they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers.background import PATIENT
from helpers.command import SIPC, Program, assert_error_line, environment, needs_root, sipc
from helpers.injection import Fault, Strace, needs_strace
from helpers.masked import HAS_EPOLL
from helpers.procfs import children, is_in_syscall, processes, state
from helpers.server import Server
from helpers.terminal import terminal
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, is_listening, message
from helpers.workers import ask_worker, serve_workers

# -- sessions and signals ------------------------------------------------------------------


def test_a_handler_cannot_wait_for_the_terminal(endpoint):
    command = "read x </dev/tty || echo none"
    with terminal() as tty:
        server = tty.start([SIPC, "serve", endpoint, "--exec", command], env=environment())
        with server:
            wait_until(lambda: is_listening(endpoint), "the server to listen")
            assert ask(endpoint, b"") == (b"none\n", True)
            server.terminate()


def test_a_handler_cannot_leave_its_process_group(endpoint):
    code = "import os; os.setpgid(0, os.getpgid(os.getppid()))"
    with Server(endpoint, f"exec {sys.executable} -ISc '{code}' 2>&1") as server:
        answer, is_whole = ask(endpoint, b"")
        assert b"PermissionError" in answer
        assert not is_whole
        server.wait_until_idle()


STOPPED = "trap ': >{folder}/ended; exit' TERM; : >{folder}/begun; kill -STOP $$"


def test_a_stopped_handler_gets_sigterm(endpoint, folder):
    command = STOPPED.format(folder=folder)
    with Server(endpoint, command, "--kill-after", "1000s") as server:
        with connect(endpoint) as client:
            client.sendall(message(b""))
            wait_until((folder / "begun").exists, "the handler to begin")
            (handler,) = children(server.pid)
            wait_until(lambda: state(handler) == "T", "it to stop itself")
        wait_until((folder / "ended").exists, "its end")


def test_a_stopped_process_of_a_handler_gets_sigterm(endpoint, folder):
    other = f'sh -c "{STOPPED.replace("$$", chr(92) + "$$").format(folder=folder)}"'
    command = f"{other} >/dev/null 2>&1 & until grep -q '^State:.T' /proc/$!/status; do :; done"
    with Server(endpoint, command, "--kill-after", "1000s"):
        assert ask(endpoint, b"") == (b"", True)
        wait_until((folder / "ended").exists, "its end")


# -- orphans -------------------------------------------------------------------------------

SUBREAPER = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
os.execv(sys.argv[1], sys.argv[1:])
"""
AS_SUBREAPER = [sys.executable, "-ISc", SUBREAPER]
AS_INIT = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def leaves_orphan(gate) -> str:
    """Return a command that leaves a process outside of its group, which waits at the gate.

    It continues when that process has left the group and closed its output.
    """
    return f": $(setsid sh -c 'exec >/dev/null; {gate.wait}' &); cat"


def check_orphans_are_reaped(endpoint, gate, server: int) -> None:
    for _ in range(3):
        assert ask(endpoint, b"hello") == (b"hello", True)
    wait_until(lambda: len(children(server)) == 3, "the orphans to be the server's")
    gate.open()
    wait_until(lambda: not children(server), "no zombies")


def test_a_child_subreaper_reaps_orphans(endpoint, gate):
    with Server(endpoint, leaves_orphan(gate), wrapper=AS_SUBREAPER) as server:
        check_orphans_are_reaped(endpoint, gate, server.pid)


@needs_root
def test_the_first_process_of_a_container_reaps_orphans(endpoint, gate):
    serve = [SIPC, "serve", endpoint, "--exec", leaves_orphan(gate)]
    with Program([*AS_INIT, *serve], stderr=subprocess.DEVNULL, env=environment()) as container:
        wait_until(lambda: is_listening(endpoint), "the server to listen")
        (server,) = children(container.pid)
        check_orphans_are_reaped(endpoint, gate, server)
        container.kill()


def test_a_child_subreaper_reaps_zombies_that_it_had_before_the_start(endpoint):
    before = "import os; os.fork() or os._exit(0)\n"  # a zombie, as no process waits for it
    with Server(endpoint, "cat", wrapper=[sys.executable, "-ISc", before + SUBREAPER]) as server:
        wait_until(lambda: not children(server.pid), "no zombie")


@pytest.mark.parametrize(
    ("options", "status"), [((), 3), (("--prestart", 2), 0)], ids=["exec", "prestart"]
)
def test_the_server_learns_the_status_of_handlers_while_it_reaps_orphans(endpoint, options, status):
    command = f"setsid true >/dev/null 2>&1 & echo pong; exit {status}"
    answers = []

    def send() -> None:
        answers.extend([ask(endpoint, b"x") for _ in range(20)])

    with Server(endpoint, command, "--threads", 4, *options, wrapper=AS_SUBREAPER) as server:
        clients = [threading.Thread(target=send) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert answers == [(b"pong\n", status == 0)] * 80
        assert server.stop() == 0
        assert server.log.count(f"status={status}") == 80


# -- without pidfds ------------------------------------------------------------------------

OLD_PYTHON = "import os; del os.pidfd_open, os.P_PIDFD"


@pytest.fixture
def no_pidfds(tmp_path):
    """Return the environment of programs whose Python knows no pidfds."""
    (tmp_path / "sitecustomize.py").write_text(OLD_PYTHON)
    return environment(PYTHONPATH=str(tmp_path))


@needs_strace[0]
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_system_that_refuses_pidfds_runs_handlers(endpoint, error):
    strace = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=pidfd_open"]
    strace += ["-e", f"inject=pidfd_open:error={error}"]
    serve = [SIPC, "serve", endpoint, "--exec", "cat", "--count", "3"]
    with Program([*strace, *serve], stderr=subprocess.DEVNULL, env=environment()) as server:
        wait_until(lambda: is_listening(endpoint), "the server to listen")
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.wait(TIMEOUT) == 0


def test_without_pidfds_handlers_end_with_their_clients(endpoint, folder, no_pidfds):
    with Server(endpoint, f": >{folder}/begun; sleep 1000", env=no_pidfds) as server:
        with connect(endpoint) as client:
            client.sendall(message(b""))
            wait_until((folder / "begun").exists, "the handler to begin")
        server.wait_for_log("client closed")
        server.wait_until_idle()


def test_without_pidfds_the_server_learns_that_a_handler_failed(endpoint, no_pidfds):
    with Server(endpoint, "cat; kill -KILL $$", env=no_pidfds):
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"hello", False)


def test_without_pidfds_prestarted_handlers_are_replaced(endpoint, no_pidfds):
    with Server(endpoint, "cat", "--prestart", 2, env=no_pidfds) as server:
        wait_until(lambda: len(children(server.pid)) == 2, "two handlers")
        killed = children(server.pid)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(children(server.pid)) == 2 and not set(children(server.pid)) & set(killed),
            "two others",
        )
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.stop() == 0


def test_without_pidfds_workers_are_replaced(endpoint, no_pidfds):
    with serve_workers(endpoint, env=no_pidfds) as server:
        (worker,) = {int(ask_worker(endpoint, "pid")) for _ in range(3)}
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not children(server.pid), "its end to be noticed")
        assert int(ask_worker(endpoint, "pid")) != worker


def test_without_pidfds_a_server_is_started_on_demand(endpoint, no_pidfds):
    spawn = "exec sipc serve --exec cat --count 1"
    options = ("--spawn", spawn, "--wait", "1h")
    done = sipc("send", endpoint, *options, input=b"hello", env=no_pidfds)
    assert (done.returncode, done.stdout) == (0, b"hello")


def test_without_pidfds_a_daemon_that_does_not_listen_is_terminated(endpoint, folder, no_pidfds):
    (folder / "sock.lock").touch()
    options = ("--background", "--max-wait", "300ms")
    arguments = ("serve", endpoint, "--exec", "cat", *options)
    done = sipc(*arguments, env=no_pidfds, program=PATIENT)
    assert_error_line(done, 6, "within 0.3 s")
    assert os.listdir(folder) == ["sock.lock"]


# -- without waitid ------------------------------------------------------------------------


@needs_strace[0]
@pytest.mark.parametrize("handler", [["--exec", "cat"], ["--worker", "cat"]], ids=" ".join)
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_system_that_forbids_waitid_is_told_before_the_server_listens(endpoint, handler, error):
    strace = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=waitid"]
    strace += ["-e", f"inject=waitid:error={error}", SIPC]
    done = sipc("serve", endpoint, *handler, program=strace)
    assert_error_line(done, 1, "cannot watch the exit of a process: waitid: ", "allow waitid")
    assert not os.path.exists(endpoint)


# -- without threads -----------------------------------------------------------------------

NO_THREAD = Fault("clone,clone3", "EAGAIN", 1, "main")


class Prestarting(Server):
    """Run a server that keeps two prestarted handlers while it is idle."""

    def wait_until_idle(self) -> None:
        wait_until(lambda: self.handlers_in_read() == 2, "two handlers that wait")

    def handlers_in_read(self) -> int:
        return sum(is_in_syscall(pid, "read") for pid in processes(self.mark))


@pytest.mark.parametrize("handler", ["prestarted", "worker"])
@needs_strace[0]
@needs_strace[1]
def test_idle_handlers_are_stopped_even_if_no_thread_can_start(endpoint, folder, handler):
    if handler == "prestarted":
        started = Prestarting(endpoint, f"cat; : >{folder}/eof", "--prestart", 2)
    else:
        started = serve_workers(endpoint)
    with started as server:
        if handler == "prestarted":
            server.wait_until_idle()
        else:
            ask_worker(endpoint, "pid")
        with Strace(server.pid, folder / "trace", NO_THREAD) as strace:
            assert server.stop() == 0
    assert strace.injected()
    assert not (folder / "eof").exists()


@needs_strace[0]
@needs_strace[1]
def test_a_failing_call_does_not_end_the_supervisor_of_the_handlers(endpoint, folder):
    fault = Fault("/^epoll_p?wait$" if HAS_EPOLL else "poll", "ENOMEM", 1, "threads")
    with serve_workers(endpoint) as server:
        worker = int(ask_worker(endpoint, "pid"))
        with Strace(server.pid, folder / "trace", fault):
            os.kill(worker, signal.SIGKILL)
            server.wait_for_log("Cannot allocate memory")
        wait_until(lambda: not children(server.pid), "its end to be noticed")
