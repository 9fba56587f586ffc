"""`sipc serve` with few resources, and with an unusual state inherited at its start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, environment, needs_root
from helpers.injection import Fault, Strace, needs_strace
from helpers.inprocess_cli import run_cli
from helpers.masked import HAS_EPOLL
from helpers.patience import LOCK, without_limits
from helpers.procfs import children, descriptors, processor_time, stop_process
from helpers.server import Server
from helpers.state import needs_files
from helpers.users import SIPC_AS_NOBODY
from helpers.waiting import wait_until
from helpers.wire import (
    ask,
    connect,
    decode,
    is_listening,
    message,
    open_connections,
    packets,
    receive_all,
)
from helpers.workers import WorkerServer


def allowed(number: int) -> list[str]:
    return ["prlimit", f"--nofile={number}:{number}"]


def fill(pipe: int) -> None:
    """Write to a pipe until it is full."""
    try:
        while True:
            os.write(pipe, b"x" * 4096)
    except BlockingIOError:
        pass


def test_an_idle_connection_stays_open_while_there_are_free_descriptors(endpoint):
    with Server(endpoint, "cat", "--threads", 8, wrapper=allowed(64)) as server:
        with connect(endpoint) as client:
            server.wait_until_accepted(1)
            client.sendall(message(b"late"))
            assert decode(receive_all(client)) == (b"late", True)
        assert "descriptors" not in server.log


@needs_files(1024)
def test_many_threads_do_not_reduce_the_requests_handled_at_once(endpoint, gate):
    """Nor do they close an idle connection."""
    options = ("--threads", 200)
    with (
        Server(endpoint, f"{gate.wait}; cat", *options, wrapper=allowed(1024)) as server,
        connect(endpoint) as silent,
        open_connections(endpoint, 6) as clients,
    ):
        for client in clients:
            client.sendall(message(b"x"))
        wait_until(lambda: len(children(server.pid)) == 6, "a handler for each")
        gate.open()
        for client in (*clients, silent):
            if client is silent:
                client.sendall(message(b"x"))
            assert receive_all(client) == message(b"x")
        assert "descriptors" not in server.log


def test_a_server_without_free_descriptors_does_not_spin(endpoint, gate):
    with ExitStack() as stack:
        server = stack.enter_context(Server(endpoint, f"{gate.wait}; cat", wrapper=allowed(80)))
        stop_process(server.pid)
        clients = stack.enter_context(open_connections(endpoint, 20))
        for client in clients:
            client.sendall(message(b"x"))
        server.signal(signal.SIGCONT)
        server.wait_for_log("out of file descriptors")
        before = processor_time(server.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)
        assert processor_time(server.pid) - before < 0.5
        gate.open()
        assert [decode(receive_all(client)) for client in clients] == [(b"x", True)] * 20
        assert server.log.count("out of file descriptors") == 1


def test_repeated_shortages_of_descriptors_are_logged_once(endpoint):
    with ExitStack() as stack:
        server = stack.enter_context(Server(endpoint, "cat", wrapper=allowed(64)))
        for _ in range(2):
            stop_process(server.pid)
            with open_connections(endpoint, 60) as clients:
                for client in clients:
                    client.sendall(message(b"x"))
                server.signal(signal.SIGCONT)
                assert [receive_all(client) for client in clients] == [message(b"x")] * 60
            server.wait_for_log("out of file descriptors")
        server.counters()  # its line comes after all others
        assert server.log.count("out of file descriptors") == 1


@pytest.mark.parametrize("number", [20, 31])
def test_too_few_descriptors_are_reported_at_the_start(endpoint, folder, number):
    command = [*allowed(number), SIPC, "serve", endpoint, "--exec", "cat"]
    done = subprocess.run(command, capture_output=True, env=environment())
    assert done.returncode == 1
    assert re.fullmatch(rb"sipc serve: [^\n]*descriptors[^\n]*\(ulimit -n\)\n", done.stderr)
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("handler", "least"),
    [
        (("--exec", "cat"), 32),
        (("--worker", "cat"), 39),
        (("--exec", "cat", "--prestart", 4), 48),
        (("--exec", "cat", "--prestart", 20, "--threads", 64), 96),
    ],
    ids=["exec", "worker", "prestart", "prestart-many"],
)
def test_the_minimum_number_of_descriptors_is_enough_for_all_requests(endpoint, handler, least):
    """With fewer descriptors a server would listen, and never accept."""
    if not HAS_EPOLL:
        # A pipe, in place of a pidfd, reports the exit of a process: also of each idle one.
        least += 1 + (handler[0] == "--worker") + sum(handler[3:4])
    command = [SIPC, "serve", endpoint, *map(str, handler)]
    done = subprocess.run([*allowed(least - 1), *command], capture_output=True)
    assert done.returncode == 1
    assert f"raise it to at least {least} (ulimit -n)" in done.stderr.decode()
    assert not endpoint.exists()
    with WorkerServer(endpoint, None, *handler, wrapper=allowed(least)) as server:
        stop_process(server.pid)  # so that no connection is idle when the server accepts it
        with open_connections(endpoint, 20) as clients:
            for number, client in enumerate(clients):
                client.sendall(message(b"%d" % number))
            server.signal(signal.SIGCONT)
            for number, client in enumerate(clients):
                assert decode(receive_all(client)) == (b"%d" % number, True)
        server.counters()
        assert "Too many open files" not in server.log


@needs_files(2048)
def test_a_server_that_inherits_a_thousand_open_descriptors_answers(endpoint):
    """Its descriptors have numbers that select(2) does not support."""
    opened = 'use POSIX; POSIX::open("/dev/null") for 3..1100; exec @ARGV'
    wrapper = ["prlimit", "--nofile=2048:2048", "perl", "-e", opened]
    with Server(endpoint, "cat", wrapper=wrapper) as server:
        assert len(descriptors(server.pid)) > 1024
        for _ in range(10):  # between them, it waits for less than ten milliseconds
            assert ask(endpoint, b"and?") == (b"and?", True)


def test_the_server_learns_the_status_of_handlers_though_sigchld_was_ignored_at_its_start(endpoint):
    wrapper = ["perl", "-e", '$SIG{CHLD} = "IGNORE"; exec @ARGV']
    with Server(endpoint, "cat", wrapper=wrapper) as server:
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"hello", True)
        server.wait_for_log("status=0", count=3)


def test_very_long_durations_are_accepted(endpoint, folder, gate):
    options = ["--timeout", "600h", "--read-timeout", "600h", "--write-timeout", "600h"]
    options += ["--drain-timeout", "600h", "--kill-after", "600h"]
    command = f": >{folder}/begun; {gate.wait}; cat"
    with Server(endpoint, command, *options) as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
        server.signal()
        wait_until(lambda: not endpoint.exists(), "the stop to begin")
        gate.open()
        assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0


def test_a_log_pipe_that_is_full_does_not_stop_the_server(endpoint):
    reader, writer = os.pipe()
    command = [SIPC, "serve", endpoint, "-v", "--exec", "true"]
    with Program(command, stderr=writer, env=environment()) as server:
        os.set_blocking(writer, False)
        wait_until(lambda: is_listening(endpoint), "the server to listen")
        fill(writer)
        for _ in range(5):
            assert ask(endpoint, b"") == (b"", True)
        while len(os.read(reader, 1 << 20)) == 1 << 20:
            pass
        assert ask(endpoint, b"") == (b"", True)
        server.terminate()
        assert server.wait() == 0
    os.close(writer)
    with open(reader, "rb") as log:
        assert re.search(rb"\d lines were lost", log.read())


def test_a_server_that_cannot_start_any_thread_can_be_stopped(endpoint):
    """No thread can start if its stack exceeds the limit of memory."""
    wrapper = ["bash", "-c", 'ulimit -v 60000 -s 65536; exec "$@"', "bash"]
    with Server(endpoint, "cat", "--drain-timeout", "100ms", wrapper=wrapper) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            server.wait_for_log("can't start new thread")
            server.signal()
            assert receive_all(client) == b""
            assert server.wait() == 143


@needs_root
def test_the_server_does_not_wait_for_zombies_in_a_process_group(endpoint, folder):
    """Where no process reaps orphans, as in many containers, zombies stay in their group."""
    command = "sleep 1000 >/dev/null 2>&1 & cat"
    serve = f"{SIPC} serve {endpoint} --threads 1 --kill-after 1000s --exec '{command}'"
    init = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    init += ["bash", "-c", f"{serve} & exec sleep 1000"]
    with Program(init, stderr=subprocess.DEVNULL, env=environment()) as container:
        wait_until(lambda: is_listening(endpoint), "the server to listen")
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"hello", True)
        container.kill()


@needs_root
def test_a_handler_that_changed_its_user_is_logged_and_the_server_keeps_running(endpoint, folder):
    """A server that may not signal its handler logs that, and keeps running."""
    folder.chmod(0o777)
    helper = folder / "setpriv"
    helper.write_bytes(Path("/usr/bin/setpriv").read_bytes())
    helper.chmod(0o4755)
    (folder / "pid").touch()
    (folder / "pid").chmod(0o666)
    command = (
        f"echo $$ >{folder}/pid; exec {helper} --reuid=0 sh -c 'touch {folder}/root; sleep 1000'"
    )
    with Program(
        [*SIPC_AS_NOBODY, "serve", endpoint, "--kill-after", "100ms", "--exec", command],
        stderr=subprocess.PIPE,
        env=environment(),
    ) as server:
        assert b"listening" in server.stderr.readline()
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            wait_until((folder / "root").exists, "it has become root")
        assert b"cannot be killed" in server.stderr.readline()
        pid = int((folder / "pid").read_text())
        os.killpg(pid, signal.SIGKILL)
        wait_until(lambda: not children(server.pid), "no zombie")
        server.terminate()
        assert server.wait() == 0


def test_sigterm_ends_the_wait_for_a_lock_and_leaves_no_file(endpoint, folder):
    (folder / "sock.lock").touch()
    command = [*without_limits(*LOCK), "serve", endpoint, "--exec", "cat"]
    with Program(command, stderr=subprocess.PIPE, env=environment()) as server:
        wait_until(lambda: len(os.listdir(folder)) == 2, "it is waiting")
        server.terminate()
        assert server.wait() == 143
        assert server.stderr.read() == b""
    assert os.listdir(folder) == ["sock.lock"]


@pytest.mark.parametrize("kind", ["symlink", "directory"])
def test_a_symlink_or_directory_in_place_of_the_lock_is_reported_and_not_removed(
    endpoint, folder, kind
):
    lock = folder / "sock.lock"
    lock.symlink_to("elsewhere") if kind == "symlink" else lock.mkdir()
    done = run_cli("serve", endpoint, "--exec", "cat")
    assert done.returncode == 1
    assert f"the lock {lock} cannot be taken: ".encode() in done.stderr
    assert os.listdir(folder) == ["sock.lock"]


@pytest.mark.parametrize(
    ("module", "status"), [("simpleipc_cli.cli", -signal.SIGINT), ("click.core", 130)]
)
def test_sigint_during_an_import_prints_no_traceback(endpoint, module, status):
    """While a module is read: before the signal handlers are set, and after."""
    where = subprocess.run(
        [sys.executable, "-P", "-c", f"import {module} as module; print(module.__spec__.cached)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    inject = ["strace", "-qq", "-f", "-P", where, "-e", "inject=openat:signal=SIGINT"]
    done = subprocess.run(
        [*inject, "-o", "/dev/null", SIPC, "probe", "--", endpoint],
        capture_output=True,
        env=environment(PYTHONWARNINGS=""),  # Python warns of the file that it was reading
    )
    assert done.returncode == status
    assert done.stderr == b""


def test_the_server_counts_descriptors_that_it_inherits(endpoint, gate):
    """Requests wait for the remaining descriptors, and do not fail."""
    inherited = [os.open(os.devnull, os.O_RDONLY) for _ in range(44)]
    try:
        with (
            Server(
                endpoint, f"{gate.wait}; cat", wrapper=allowed(64), pass_fds=inherited
            ) as server,
            ExitStack() as stack,
        ):
            clients = []
            for _ in range(20):  # in turn, as idle connections need descriptors, too
                clients.append(stack.enter_context(connect(endpoint)))
                clients[-1].sendall(message(b"x"))
            server.wait_for_log("^out of file descriptors")
            gate.open()
            assert [decode(receive_all(client)) for client in clients] == [(b"x", True)] * 20
    finally:
        for descriptor in inherited:
            os.close(descriptor)


def test_requests_wait_for_descriptors_of_other_requests_and_none_fails(endpoint, gate):
    wrapper = ["prlimit", "--nofile=48"]
    with ExitStack() as stack:
        server = stack.enter_context(
            Server(endpoint, f"{gate.wait}; cat", "--threads", 2, wrapper=wrapper)
        )
        stop_process(server.pid)  # so that no connection is idle when the server accepts it
        clients = stack.enter_context(open_connections(endpoint, 40))
        for number, client in enumerate(clients):
            client.sendall(message(b"%d" % number))
        server.signal(signal.SIGCONT)
        server.wait_for_log("out of file descriptors")
        gate.open()
        for number, client in enumerate(clients):
            assert decode(receive_all(client)) == (b"%d" % number, True)


NO_PROCESS = Fault("clone,clone3,vfork", "EAGAIN")
"""The call also fails when the server starts a thread, which it then tries again."""
NO_DESCRIPTOR = Fault("pipe2", "EMFILE")

ON_LOOP = without_limits("handlers.exec._QUICK", "handlers.exec._QUICK_FOR")
"""A server whose event loop starts all processes but the first, also on a busy machine."""


@pytest.mark.parametrize(
    ("fault", "times", "kind"),
    [
        # The event loop tries again at once.
        (replace(NO_DESCRIPTOR, when="1..2"), 1, "exec"),
        (NO_DESCRIPTOR, 1, "whole"),
        (NO_DESCRIPTOR, 1, "worker"),
        (NO_PROCESS, 2, "whole"),
        (NO_PROCESS, 2, "worker"),
    ],
)
class TestShortage:
    """The handler of a request cannot start, as no process or descriptor is free."""

    pytestmark = needs_strace

    def serve(self, endpoint, kind: str, gate) -> Server:
        if kind == "worker":
            return WorkerServer(endpoint, None, "--worker", "cat")
        options = ["--whole-request"] if kind == "whole" else []
        return Server(endpoint, f"{gate.wait}; exec cat", *options, program=ON_LOOP)

    def begin(self, client, server: Server, kind: str) -> None:
        """Send a request; wait until its handler has started, and all threads that this needs."""
        if kind == "worker":
            client.sendall(packets(b"x"))
            assert client.recv(100) == packets(b"x")
        else:
            client.sendall(message(b"x"))
            wait_until(lambda: children(server.pid), "its handler")

    def test_a_request_that_cannot_start_its_handler_waits_while_another_is_answered(
        self, endpoint, folder, gate, fault, times, kind
    ):
        with (
            self.serve(endpoint, kind, gate) as server,
            connect(endpoint) as first,
            connect(endpoint) as second,
        ):
            self.begin(first, server, kind)
            with Strace(server.pid, folder / "trace", fault) as strace:
                second.sendall(message(b"y"))
                wait_until(lambda: len(strace.injected()) >= times, "the start to fail")
                gate.open()
                assert receive_all(second) == message(b"y")
            if kind == "worker":
                first.sendall(b"0000")
            assert receive_all(first) == (b"0000" if kind == "worker" else message(b"x"))
            server.wait_for_log("in=1 .*: answered; .*cannot (start|create a pipe)")

    def test_a_request_that_cannot_start_its_handler_fails_if_no_other_request_can_end(
        self, endpoint, folder, gate, fault, times, kind
    ):
        with self.serve(endpoint, kind, gate) as server:
            with connect(endpoint) as first:  # so that a thread exists
                self.begin(first, server, kind)
            wait_until(lambda: not children(server.pid), "its end")
            with Strace(server.pid, folder / "trace", replace(fault, when="1+")) as strace:
                assert ask(endpoint, b"x") == (b"", False)
                assert strace.injected()
            server.wait_for_log("spawn failed: ")
            gate.open()
            assert ask(endpoint, b"y") == (b"y", True)
