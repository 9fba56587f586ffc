"""`sipc probe`: what it says of an endpoint, in words, in JSON and by its exit status."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.procfs import is_in_syscall
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import connect


@pytest.fixture
def states(folder):
    """One endpoint of each state, by name."""
    kept = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    listening, stale, busy = kept
    listening.bind(str(folder / "listening"))
    listening.listen()
    stale.bind(str(folder / "not listening"))
    stale.close()
    busy.bind(str(folder / "busy"))
    busy.listen(0)
    kept.append(connect(folder / "busy"))
    (folder / "invalid path").touch()
    yield folder
    for each in kept:
        each.close()


STATES = [
    ("listening", 0), ("not listening", 3), ("busy", 3), ("path not found", 4), ("invalid path", 5)
]  # fmt: skip


@pytest.mark.parametrize(("state", "status"), STATES)
def test_each_state_has_its_words_and_its_status(states, state, status):
    path = states / state
    done = sipc("probe", path, "-t", "100ms")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (
        status,
        f"{path}: {state}\n",
        b"",
    )
    quiet = sipc("probe", "-q", path, "-t", "100ms")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (status, b"", b"")


@pytest.mark.parametrize(("state", "status"), STATES)
def test_json_tells_all_there_is_to_know(states, state, status):
    path = states / state
    done = sipc("probe", "--json", path, "-t", "100ms")
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


def test_wait_ends_when_somebody_listens(endpoint):
    with Program([SIPC, "probe", "--wait", "30s", endpoint]) as probe:
        with Server(endpoint, "cat"):
            assert probe.wait() == 0


def test_wait_has_an_end(endpoint):
    assert sipc("probe", "--wait", "50ms", endpoint).returncode == 4


def test_wait_gives_up_at_once_on_what_no_waiting_changes(folder):
    assert sipc("probe", "--wait", "1000s", folder).returncode == 5


def test_wait_gone_ends_when_nobody_listens_any_more(endpoint):
    with Server(endpoint, "cat") as server:
        with Program(
            [SIPC, "probe", "--wait-gone", "30s", endpoint], stdout=subprocess.PIPE
        ) as probe:
            server.signal()
            assert probe.stdout.read() == b"%s: path not found\n" % os.fsencode(endpoint)
            assert probe.wait() == 0


def test_wait_gone_is_done_at_once_with_nobody_there(endpoint):
    assert sipc("probe", "--wait-gone", "1000s", endpoint).returncode == 0


def test_wait_gone_has_an_end_and_says_that_somebody_is_still_there(states):
    done = sipc("probe", "--wait-gone", "50ms", states / "listening")
    assert done.returncode == 6
    assert done.stdout.endswith(b": listening\n")


@pytest.mark.parametrize("timeout", ["3s", "0"])
def test_wait_gone_has_an_end_with_a_busy_server_too(states, timeout):
    done = sipc("probe", "--wait-gone", "50ms", "-t", timeout, states / "busy", timeout=2)
    assert (done.returncode, done.stdout) == (6, b"%s/busy: busy\n" % os.fsencode(states))


def test_connect_time_is_that_of_the_last_try(endpoint):
    done = sipc("probe", "--json", "--wait", "500ms", endpoint)
    assert 0 <= json.loads(done.stdout)["connect_seconds"] < 0.4


def test_it_says_when_nobody_can_read_it(endpoint):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([SIPC, "probe", endpoint], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_waiting_for_both_is_a_usage_error(endpoint):
    assert sipc("probe", "--wait", "1s", "--wait-gone", "1s", endpoint).returncode == 2


def test_it_leaves_no_trace_in_a_servers_error_log(endpoint):
    with Server(endpoint, "cat") as server:
        for _ in range(10):
            assert sipc("probe", endpoint).returncode == 0
        assert server.log == f"listening on {endpoint}"


def test_a_busy_server_with_room_again_is_listening(endpoint):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            with Program([SIPC, "probe", "-t", "0", endpoint], env=environment()) as probe:
                wait_until(lambda: is_in_syscall(probe.pid, "connect"), "it to wait")
                busy.accept()[0].close()
                assert probe.wait() == 0


@pytest.mark.parametrize("verb", ["probe --json", "send -d x --stats"])
def test_json_can_be_read_by_everybody_whatever_bytes_a_path_has(folder, verb):
    """Half of a surrogate pair is how Python keeps them: strict readers refuse that."""
    name, *options = verb.split()
    done = sipc(name, folder / os.fsdecode(b"s\xffck"), *options)
    text = (done.stdout or done.stderr).decode()
    found = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert found["path"] == f"{folder}/s\\udcffck"
    json.dumps(found, ensure_ascii=False).encode()
