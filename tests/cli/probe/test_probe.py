"""`sipc probe`: how it reports an endpoint, as text, as JSON and by its exit status."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
from time import monotonic

import pytest
from helpers.command import SIPC, Program, assert_error_line, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall
from helpers.server import Server
from helpers.sockets import busy_listener, stale_socket
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli.client import probe, wait_until_gone
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PathNotFound
from simpleipc_cli.transport import Stream, connect


@pytest.fixture
def states(folder):
    """One endpoint of each state, by name."""
    (folder / "invalid path").touch()
    stale_socket(folder / "not listening")
    with socket.socket(socket.AF_UNIX) as listening, busy_listener(folder / "busy"):
        listening.bind(str(folder / "listening"))
        listening.listen()
        yield folder


STATES = [
    ("listening", 0), ("not listening", 3), ("busy", 3), ("path not found", 4), ("invalid path", 5)
]  # fmt: skip


each_state = pytest.mark.parametrize(("state", "status"), STATES)


def limit(state: str) -> list[str]:
    """Time to wait for a busy server; no other state depends on it."""
    return ["-t", "20ms" if state == "busy" else "1h"]


@each_state
def test_probe_reports_each_state_by_a_text_and_an_exit_status(states, state, status):
    path = states / state
    done = run_cli("probe", path, *limit(state))
    line = f"{path}: {state}\n".encode()
    assert (done.returncode, done.stdout, done.stderr) == (status, line, b"")
    quiet = run_cli("probe", "-q", path, *limit(state))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (status, b"", b"")


def test_an_empty_path_is_shown_in_quotes():
    done = run_cli("probe", "")
    assert (done.returncode, done.stdout) == (5, b"'': invalid path\n")


def test_the_installed_command_reports_a_state(states):
    done = sipc("probe", states / "not listening")
    line = f"{states}/not listening: not listening\n".encode()
    assert (done.returncode, done.stdout, done.stderr) == (3, line, b"")


@each_state
def test_the_json_output_has_all_details(states, state, status):
    path = states / state
    done = run_cli("probe", "--json", path, *limit(state))
    assert done.returncode == status
    found = json.loads(done.stdout)
    there = state != "path not found"
    listening = state == "listening"
    assert found.pop("connect_seconds") >= 0
    assert isinstance(found.pop("reason"), str) == (not listening)
    if there:
        assert found.pop("mode") == f"{os.stat(path).st_mode & 0o7777:04o}"
        assert found.pop("owner") == pwd.getpwuid(os.geteuid()).pw_name
        assert found.pop("type") == ("file" if state == "invalid path" else "socket")
    else:
        assert {found.pop("mode"), found.pop("owner"), found.pop("type")} == {None}
    assert found == {
        "path": str(path),
        "state": state,
        "pid": os.getpid() if listening else None,
        "uid": os.geteuid() if listening else None,
    }


# -- waiting ---------------------------------------------------------------------------


def test_wait_ends_when_a_server_listens(endpoint):
    with Program([SIPC, "probe", "--wait", "1h", endpoint], env=environment()) as probe:
        wait_until(lambda: is_in_syscall(probe.pid, "clock_nanosleep"), "it to wait")
        with Server(endpoint, "cat"):
            assert probe.wait() == 0


def test_wait_ends_after_the_given_time(endpoint):
    assert run_cli("probe", "--wait", "20ms", endpoint).returncode == 4


def test_wait_ends_at_once_for_a_state_that_waiting_does_not_change(folder):
    assert run_cli("probe", "--wait", "1000h", folder).returncode == 5


def test_wait_gone_ends_when_the_server_has_ended(endpoint):
    with Server(endpoint, "cat") as server:
        command = [SIPC, "probe", "--wait-gone", "1h", endpoint]
        with Program(command, stdout=subprocess.PIPE, env=environment()) as probe:
            wait_until(lambda: is_in_syscall(probe.pid, "clock_nanosleep"), "it to wait")
            server.signal()
            assert probe.stdout.read() == b"%s: path not found\n" % os.fsencode(endpoint)
            assert probe.wait() == 0


def test_wait_gone_ends_at_once_without_a_server(endpoint):
    assert run_cli("probe", "--wait-gone", "1000h", endpoint).returncode == 0


def test_wait_gone_ends_after_the_given_time_and_reports_that_the_server_still_listens(states):
    done = run_cli("probe", "--wait-gone", "20ms", states / "listening")
    assert done.returncode == 6
    assert done.stdout.endswith(b": listening\n")


@pytest.mark.parametrize("timeout", ["1h", "0"])
def test_wait_gone_ends_after_the_given_time_if_the_server_is_busy(states, timeout):
    done = run_cli("probe", "--wait-gone", "20ms", "-t", timeout, states / "busy")
    assert (done.returncode, done.stdout) == (6, b"%s/busy: busy\n" % os.fsencode(states))


def test_wait_gone_keeps_waiting_after_it_found_the_server_busy(states):
    names = iter(["busy", "busy", "gone"])
    finding = wait_until_gone(
        lambda limit: connect(str(states / next(names)), limit),
        timeout=0.001,
        wait=Deadline(TIMEOUT),
    )
    assert isinstance(finding.error, PathNotFound)


def test_wait_together_with_wait_gone_is_a_usage_error(endpoint):
    assert run_cli("probe", "--wait", "1s", "--wait-gone", "1s", endpoint).returncode == 2


def test_a_busy_server_is_reported_as_listening_once_its_backlog_has_room(endpoint):
    command = [SIPC, "probe", "-t", "0", endpoint]
    with busy_listener(endpoint) as busy, Program(command, env=environment()) as probe:
        wait_until(lambda: is_in_syscall(probe.pid, "connect"), "it to wait")
        busy.accept()[0].close()
        assert probe.wait() == 0


def test_probe_reports_the_connect_time_of_its_last_attempt(endpoint):
    attempts = []

    def attempt(limit: Deadline) -> Stream:
        attempts.append(monotonic())
        if len(attempts) == 3:
            listener.bind(str(endpoint))
            listener.listen()
        return connect(str(endpoint), limit)

    with socket.socket(socket.AF_UNIX) as listener:
        finding = probe(attempt, timeout=None, wait=Deadline(TIMEOUT))
    assert 0 <= finding.seconds <= monotonic() - attempts[1]
    assert len(attempts) == 3


# -- output ----------------------------------------------------------------------------


def test_output_that_cannot_be_written_is_an_error(endpoint):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([SIPC, "probe", endpoint], stdout=full, stderr=subprocess.PIPE)
    assert_error_line(done, 1, "No space left")


def test_a_probe_leaves_no_line_in_a_servers_log(endpoint):
    with Server(endpoint, "cat") as server:
        for _ in range(10):
            assert run_cli("probe", endpoint, "-t", "1h").returncode == 0
        assert server.log == f"listening on {endpoint}"


@pytest.mark.parametrize("arguments", [["probe", "--json"], ["send", "-d", "x", "--stats"]])
def test_the_json_output_is_valid_for_a_path_of_any_bytes(folder, arguments):
    """Python keeps such bytes as lone surrogates, which strict JSON readers refuse."""
    done = run_cli(*arguments, folder / os.fsdecode(b"s\xffck"))
    text = (done.stdout or done.stderr).decode()
    found = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert found["path"] == f"{folder}/s\\udcffck"
    json.dumps(found, ensure_ascii=False).encode()
