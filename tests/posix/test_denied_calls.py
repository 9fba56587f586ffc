"""Without a system call, as in a sandbox or on an old kernel: sipc works, or does not start.

The server and all that it starts lack the call from their start on. See also tests/faults, where
calls fail once.
"""

from __future__ import annotations

import json
import os
import re
import sys
import uuid

import pytest
from helpers import denied
from helpers.background import Background
from helpers.command import SIPC, assert_error_line, environment, sipc
from helpers.procfs import MARK, processes
from helpers.server import Server
from helpers.soak import soak
from helpers.spawning import SERVE, Spawning
from helpers.waiting import wait_until
from helpers.workers import WORKER, WorkerServer

SMALL, LARGE = b"hello\n", bytes(range(256)) * 1200
HANDLER = "echo started >>started; exec cat"

# waitid(P_PIDFD) is missing in Linux 5.3 and in gVisor.
CASES = [f"{call} {error}" for call in denied.CALLS for error in ("ENOSYS", "EPERM")]
CASES += ["waitid:3 EINVAL"]

_EXIT = "cannot watch the exit of a process: waitid: {}: allow waitid(2) in the sandbox"
_START = "cannot start processes: {}: allow clone3(2), vfork(2) and setsid(2) in the sandbox"
_DENIED, _MISSING = "Operation not permitted", "Function not implemented"
NO_ACCEPT = "accept4 EPERM"  # if it is missing, Python makes another call
NO_THREAD = "clone3 EPERM"
REFUSED = {
    NO_THREAD: _START.format(_DENIED),  # if it is missing, the C library makes other calls
    "waitid ENOSYS": _EXIT.format(_MISSING),
    "waitid EPERM": _EXIT.format(_DENIED),
}
"""What is said without a call that all processes need: then none is started."""

EVENTS = [case for case in CASES if re.match("epoll|eventfd|pidfd_open|waitid", case)]
"""Cases in which threads wait for events in another way."""


def each(cases):
    """Run a test in these cases; those in which a call is missing run only under `soak`."""
    cases = [soak(case) if case.endswith("ENOSYS") else case for case in cases]
    return pytest.mark.parametrize("case", cases)


each_case = each(case for case in CASES if case not in {*REFUSED, NO_ACCEPT})


def without(case: str) -> tuple[str, ...]:
    """Return the words before a program to which a call is denied."""
    return (sys.executable, "-IS", denied.__file__, *case.split())


def ask(case: str, endpoint, payload: bytes) -> None:
    """Send a request without the call, too; check the response."""
    done = sipc("send", endpoint, input=payload, program=(*without(case), SIPC))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == payload


@each_case
def test_a_process_answers_each_request(case, endpoint, folder):
    with Server(endpoint, HANDLER, "-v", wrapper=without(case), cwd=folder) as server:
        for payload in SMALL, LARGE:
            ask(case, endpoint, payload)
        wait_until(lambda: server.counters()["answered"] == 2, "both to be counted")
    assert (folder / "started").read_text().split() == ["started"] * 2
    assert server.process.returncode == 0


@each_case
def test_a_process_that_does_not_end_is_killed(case, endpoint, folder):
    command = "trap '' TERM; sleep 1000 & echo started; wait; wait"
    options = ("--kill-after", "10ms", "--timeout", "10ms")
    with Server(endpoint, command, *options, wrapper=without(case)) as server:
        done = sipc("send", endpoint, program=(*without(case), SIPC))
        assert done.returncode == 7
        server.wait_for_log("timed out|timeout")


@each_case
def test_a_worker_answers_each_request(case, endpoint):
    with WorkerServer(endpoint, None, "--worker", f"{WORKER} echo", wrapper=without(case)):
        for payload in SMALL, LARGE:
            ask(case, endpoint, payload)


@each(case for case in EVENTS if case not in REFUSED)
def test_a_prestarted_process_answers_each_request(case, endpoint):
    options = ("--exec", "cat", "--prestart", 1)
    with WorkerServer(endpoint, None, *options, wrapper=without(case)):
        for payload in SMALL, LARGE:
            ask(case, endpoint, payload)


@pytest.fixture
def callback(folder):
    """The options to serve a callback."""
    (folder / "callbacks.py").write_text("def echo(request):\n    return request\n")
    return "--call", "callbacks:echo"


@each(EVENTS)
def test_a_callback_answers_each_request(case, endpoint, folder, callback):
    env = environment(PYTHONDONTWRITEBYTECODE="1")
    with Server(endpoint, None, *callback, wrapper=without(case), cwd=folder, env=env):
        for payload in SMALL, LARGE:
            ask(case, endpoint, payload)


def test_a_process_is_not_blocked_by_what_it_says_where_there_is_only_poll(endpoint):
    """It fills its pipe, and the server, which stops, has nothing else to wait for."""
    command = "head -c 1000000 /dev/zero >&2; cat"
    options = ("--handler-stderr", "log", "--count", 1)
    with Server(endpoint, command, *options, wrapper=without("epoll_create1 EPERM")) as server:
        ask("epoll_create1 EPERM", endpoint, SMALL)
        assert server.wait() == 0


@each_case
def test_a_server_starts_in_the_background(case, endpoint, folder):
    with Background(endpoint) as background:
        program = (*without(case), SIPC)
        done = background.serve("--pid-file", folder / "pid", program=program)
        listening = f"listening on {endpoint}\n".encode()
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", listening)
        for payload in SMALL, LARGE:
            ask(case, endpoint, payload)
    assert not (folder / "pid").exists()


@each_case
def test_a_client_starts_a_server(case, endpoint):
    with Spawning(endpoint) as clients:
        done = clients.send(SERVE, run=sipc, program=(*without(case), SIPC))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")


@each(CASES)
def test_clients_work(case, endpoint):
    program = (*without(case), SIPC)
    with Server(endpoint, "cat") as server:
        done = sipc("send", endpoint, "--lines", "-j", 4, input=SMALL * 20, program=program)
        assert (done.returncode, done.stdout, done.stderr) == (0, SMALL * 20, b"")
        done = sipc("probe", endpoint, "--json", program=program)
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["pid"] == server.pid
        done = sipc("bench", endpoint, "-n", 20, "-c", 2, "--fail-if", "errors>0", program=program)
        if case == NO_THREAD:
            assert_error_line(done, 1, "cannot start another thread: use fewer --processes")
        else:
            assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("options", [("--exec",), ("--worker",), ("--background", "--exec")])
@pytest.mark.parametrize("case", [*REFUSED, NO_ACCEPT])
def test_a_server_that_cannot_work_says_so_at_its_start(case, options, endpoint, folder):
    mark = uuid.uuid4().hex
    done = sipc(
        *("serve", endpoint, *options, HANDLER),
        program=(*without(case), SIPC),
        cwd=folder,
        env=environment(**{MARK: mark}),
    )
    refused = f"cannot accept on {endpoint}: {_DENIED}: allow accept4(2) in the sandbox"
    assert_error_line(done, 1, REFUSED.get(case, refused))
    wait_until(lambda: not processes(mark), "no process left")
    assert os.listdir(folder) == []


def test_a_server_that_can_start_no_thread_for_callbacks_ends(endpoint, folder, callback):
    done = sipc("serve", endpoint, *callback, program=(*without(NO_THREAD), SIPC), cwd=folder)
    assert done.returncode == 1
    assert b"\nsipc serve: no thread for the event loop: can't start new thread: " in done.stderr
    assert not endpoint.exists()


@pytest.mark.parametrize("case", REFUSED)
def test_a_client_that_could_start_no_process_says_so(case, endpoint, folder):
    with Spawning(endpoint) as clients:
        command = f"echo >{folder}/started"
        done = clients.send(command, run=sipc, program=(*without(case), SIPC))
        assert_error_line(done, 1, REFUSED[case])
    assert os.listdir(folder) == []
