"""Facts about git on which sipc relies, and which its documents state.

Should one of these fail with a later git, then it is the documents that have to change.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import contextmanager

import pytest
from helpers.command import sipc
from helpers.procfs import is_in_syscall, stop_process
from helpers.scripted_server import RespondingServer
from helpers.server import Server
from helpers.sockets import busy_listener
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, is_listening, message, packets, receive_all

TRIVIAL = message(b"tok:1\0/\0")
CHANGES = b"tok:2\0a\0"


@contextmanager
def responding(path, wire: bytes):
    """Run a server that answers every request with these bytes and the end of the stream."""
    with RespondingServer(path, lambda _: wire) as server:
        yield server.requests
    path.unlink()


@pytest.fixture
def changed(repository):
    """One file has changed since the token that git has."""
    with responding(repository.endpoint, TRIVIAL):
        repository.status()
        repository.status()
    repository.write("a", "something else\n")
    return repository


ENDS = [
    pytest.param(b"0000", id="flush"),
    pytest.param(b"0001", id="delim"),
    pytest.param(b"0002", id="response-end"),
    pytest.param(b"0004", id="empty packet"),
]


@pytest.mark.parametrize("end", ENDS)
def test_the_client_of_git_ends_a_response_at_these_packets(changed, end):
    with responding(changed.endpoint, packets(CHANGES) + end + message(b"b\0")) as requests:
        said, trace = changed.traced_status()
    assert requests == [b"tok:1"]
    assert said == changed.true_status() != ""
    assert (trace.believed, trace.looked_at) == ([1], 1)


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        pytest.param(b"", "", id="nothing"),
        pytest.param(packets(CHANGES), "", id="cut off after a packet"),
        pytest.param(packets(CHANGES)[:-3], "", id="cut off in a packet"),
        pytest.param(b"00", "", id="cut off in a length"),
        pytest.param(b"0003", "bad line length 3", id="0003"),
        pytest.param(b"fff1" + b"x" * 65517, "bad line length 65517", id="too long"),
        pytest.param(b"+00cxxxxxxxx", "bad line length character: \\+00c", id="no hex"),
    ],
)
def test_the_client_of_git_refuses_these_malformed_responses(changed, wire, complaint):
    with responding(changed.endpoint, wire):
        done = changed.run(*changed.STATUS)
    assert done.returncode == 0
    assert done.stdout == changed.true_status() != ""
    *before, last = done.stderr.splitlines()
    assert last == "error: could not read IPC response"
    assert [re.sub("^error: protocol error: ", "", line) for line in before] == (
        [complaint.replace("\\", "")] if complaint else []
    )


def raw(path, wire: bytes) -> bytes:
    """Return the server's response to these bytes and a half-close."""
    with connect(path) as connection:
        connection.sendall(wire)
        connection.shutdown(socket.SHUT_WR)
        return receive_all(connection)


def test_the_server_of_git_ends_a_request_at_these_packets(repository):
    with repository.daemon():
        for end in (b"0000", b"0001", b"0002", b"0004"):
            assert raw(repository.endpoint, packets(b"builtin:fake") + end).endswith(b"/\x000000")
        for wire in (b"", b"0010builtin", packets(b"builtin:fake"), b"0003", b"zzzz"):
            assert raw(repository.endpoint, wire) == b""


def test_the_server_of_git_does_nothing_for_a_client_that_has_closed(repository):
    """git's server polls before it reads, and so sees only that the client has closed."""
    with repository.daemon() as pid:
        stop_process(pid)
        with connect(repository.endpoint) as connection:
            connection.sendall(message(b"quit"))
        os.kill(pid, signal.SIGCONT)
        assert ask(repository.endpoint, b"flush")[1]
        assert repository.run("fsmonitor--daemon", "status").returncode == 0


def calls_of(repository, *arguments) -> list[str]:
    """Return git's system calls on the connection to its daemon, in order."""
    output = repository.folder / "strace"
    with repository.start(*arguments, wrapper=["strace", "-f", "-o", str(output)]) as git:
        git.communicate(timeout=TIMEOUT)
        assert git.returncode == 0
    calls = [line.split(None, 1)[1] for line in output.read_text().splitlines()]
    (start,) = [n for n, call in enumerate(calls) if call.startswith("connect(") and ".ipc" in call]
    descriptor = re.match(r"connect\((\d+)", calls[start])[1]
    end = next(n for n in range(start, len(calls)) if calls[n].startswith(f"close({descriptor})"))
    return calls[start - 1 : end + 1]


def test_the_client_of_git_writes_all_then_reads_then_closes_without_a_time_limit(repository):
    """No half-close, no poll, no timer, no socket option: git waits without a limit."""
    with Server(repository.endpoint, "printf 'tok:1\\0/\\0'"):
        calls = calls_of(repository, *repository.STATUS)
    assert calls[0].startswith("socket(AF_UNIX, SOCK_STREAM, 0)")
    names = [call.partition("(")[0] for call in calls[1:]]
    assert re.fullmatch(r"connect (write )+(read )+close ", "".join(f"{n} " for n in names)), calls
    assert '"0000"' in calls[-2]


def test_the_client_of_git_waits_for_a_full_backlog_without_a_time_limit(repository):
    """git connects without a time limit. `sipc probe` reports that the server is busy."""
    with busy_listener(repository.endpoint):
        for arguments in (repository.STATUS, ("fsmonitor--daemon", "status")):
            with repository.start(*arguments) as git:
                wait_until(lambda git=git: is_in_syscall(git.pid, "connect"), "git to wait")
                git.kill()
        done = sipc("probe", "--json", "-t", "100ms", repository.endpoint)
        assert done.returncode == 3
        assert b'"state": "busy"' in done.stdout


def test_git_starts_its_daemon_where_no_server_listens(repository):
    """After a second of tries at a stale socket, and at once at a missing path."""
    with Server(repository.endpoint, "true") as server:
        server.signal(signal.SIGKILL)
        server.wait()
    said, trace = repository.traced_status()
    assert trace.started_a_daemon
    assert said == repository.true_status()
    assert repository.run("fsmonitor--daemon", "status").returncode == 0
    repository.git("fsmonitor--daemon", "stop")


def test_git_status_follows_a_symlink_but_the_daemon_of_git_does_not(repository):
    real = repository.folder / "real"
    repository.endpoint.symlink_to(real)
    with Server(real, "printf 'tok:1\\0/\\0'") as server:
        repository.status()
        server.wait_for_log("answered")
        assert repository.run("fsmonitor--daemon", "status").returncode == 1
        assert sipc("probe", repository.endpoint).returncode == 0


def test_the_daemon_of_git_deletes_a_file_at_its_path_and_sipc_does_not(repository):
    repository.endpoint.write_text("precious")
    assert sipc("serve", repository.endpoint, "--exec", "true").returncode == 5
    assert repository.endpoint.read_text() == "precious"
    with repository.start("fsmonitor--daemon", "run") as git:
        wait_until(lambda: is_listening(repository.endpoint), "git's daemon to listen")
        assert ask(repository.endpoint, b"quit") == (b"", True)
        git.communicate(timeout=TIMEOUT)
