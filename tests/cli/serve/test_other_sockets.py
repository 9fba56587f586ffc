"""Servers and clients whose sockets behave as those of macOS, or of an unknown system."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys

import pytest
from helpers.command import (
    Program,
    assert_error_line,
    environment,
    needs_root,
    sipc,
    started_at_once,
)
from helpers.server import Server
from helpers.soak import SOAK
from helpers.sockets import busy_listener, stale_socket
from helpers.spawning import SERVE, Spawning
from helpers.users import NOBODY
from helpers.waiting import TIMEOUT
from helpers.wire import ask
from helpers.xnu import SIPC_ON_XNU

UNKNOWN_SYSTEM = (
    sys.executable,
    "-c",
    """
import sys
from simpleipc_cli.transport.unix import peer
from simpleipc_cli.cli import main
peer._PLATFORM = "unknown"
sys.argv[0] = "sipc"
main()
""",
)


@pytest.fixture
def server(endpoint):
    with Server(endpoint, "cat", program=SIPC_ON_XNU) as server:
        yield server


def run(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
    return sipc(*arguments, program=SIPC_ON_XNU, **options)


@pytest.mark.parametrize("size", [0, 2, 100_000, 20_000_000])
def test_requests_and_responses_of_any_size_stream(server, size):
    data = random.Random(1).randbytes(size)
    done = run("send", server.path, input=data)
    assert (done.returncode, done.stdout) == (0, data), done.stderr


def test_a_client_that_writes_all_before_it_reads_gets_its_response(server):
    data = random.Random(1).randbytes(20_000_000)
    assert ask(server.path, data) == (data, True)


def test_many_requests_of_one_client_are_answered(server):
    lines = b"".join(b"%d\n" % number for number in range(500))
    done = run("send", "--lines", "-j", "8", server.path, input=lines)
    assert (done.returncode, done.stdout) == (0, lines), done.stderr


def test_the_handler_and_the_client_know_the_other_process(endpoint):
    command = "echo $UNIXREMOTEPID $UNIXREMOTEEUID $UNIXREMOTEEGID"
    with Server(endpoint, command, program=SIPC_ON_XNU) as server:
        with Program(
            [*SIPC_ON_XNU, "send", endpoint, "-d", "x"],
            stdout=subprocess.PIPE,
            env=environment(),
        ) as client:
            found = client.communicate(timeout=TIMEOUT)[0]
        assert found.split() == [
            b"%d" % number for number in (client.pid, os.geteuid(), os.getegid())
        ]
        found = run("probe", "--json", endpoint)
        assert b'"pid": %d' % server.pid in found.stdout
        assert b'"uid": %d' % os.geteuid() in found.stdout


@needs_root
def test_only_allowed_users_are_answered(endpoint, folder):
    folder.chmod(0o755)
    with Server(endpoint, "cat", "--allow-user", str(NOBODY), program=SIPC_ON_XNU) as server:
        assert run("send", endpoint, "-d", "x").returncode == 7
        server.wait_for_log(r"^refused uid=0 pid=\d+: not allowed by --allow-user")
    with Server(endpoint, "cat", "--allow-user", "root", program=SIPC_ON_XNU):
        assert run("send", endpoint, "-d", "x").stdout == b"x"


@pytest.mark.parametrize("options", [[], ["--background"]], ids=["foreground", "background"])
def test_where_users_are_unknown_a_server_refuses_to_allow_some(endpoint, folder, options):
    arguments = ["serve", endpoint, "--exec", "cat", "--allow-user", "0", *options]
    done = sipc(*arguments, program=UNKNOWN_SYSTEM)
    assert_error_line(done, 1, "--allow-user", "does not report the user", "--mode or --group")
    assert os.listdir(folder) == []


def test_where_users_are_unknown_everything_else_works(endpoint):
    with Server(endpoint, "echo $UNIXREMOTEPID", "--trace", program=UNKNOWN_SYSTEM):
        done = sipc("send", "--trace", endpoint, "-d", "x", program=UNKNOWN_SYSTEM)
        assert done.returncode == 0, done.stderr


def test_the_server_of_a_full_queue_is_busy_for_every_verb(endpoint, folder):
    with busy_listener(endpoint):
        inode = os.stat(endpoint).st_ino
        assert_error_line(run("serve", endpoint, "--exec", "cat"), 9, "another server")
        for verb in (["probe", "-t", "20ms"], ["send", "-d", "x", "--connect-timeout", "20ms"]):
            done = run(*verb, endpoint)
            assert done.returncode == 3
            assert b"busy" in done.stdout + done.stderr
        done = run("probe", "--wait-gone", "20ms", "-t", "20ms", endpoint)
        assert done.returncode == 6
        command = f"touch {folder}/started"
        done = run("send", endpoint, "-d", "x", "--connect-timeout", "20ms", "--spawn", command)
        assert_error_line(done, 3, "busy")
        assert os.stat(endpoint).st_ino == inode
        assert os.listdir(folder) == ["sock"]
    assert run("probe", endpoint).stdout.endswith(b"not listening\n")


def test_a_client_waits_for_a_busy_server(endpoint):
    command = [*SIPC_ON_XNU, "probe", "-t", "1h", endpoint]
    with busy_listener(endpoint) as busy, Program(command, env=environment()) as probe:
        busy.accept()[0].close()
        assert probe.wait(TIMEOUT) == 0


def test_a_client_starts_a_server_in_place_of_a_stale_socket(endpoint):
    stale_socket(endpoint)
    with Spawning(endpoint) as spawning:
        send = [*SIPC_ON_XNU, *spawning.command(SERVE, "-d", "hello")[1:]]
        done = subprocess.run(send, capture_output=True, env=spawning.environment())
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr


def test_a_server_that_stops_answers_clients_that_it_has_not_accepted(endpoint):
    with Server(endpoint, "cat", program=SIPC_ON_XNU) as server:
        server.signal(signal.SIGSTOP)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        for client in clients:
            client.settimeout(TIMEOUT)
            client.connect(str(endpoint))
            client.sendall(b"0009hello0000")
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGCONT)
        assert server.wait() == 0
        for client in clients:
            assert client.recv(100) == b"0009hello0000"
            client.close()
    assert not endpoint.exists()


@pytest.mark.parametrize("length", [103, 104, 250])
def test_long_paths_work_for_every_verb(folder, length):
    path = folder / ("n" * (length - len(str(folder)) - 1))
    temporary = folder / "t"
    temporary.mkdir()
    env = environment(TMPDIR=str(temporary))
    with Server(path, "cat", program=SIPC_ON_XNU, env=env):
        assert run("send", path, "-d", "hello", env=env).stdout == b"hello"
        assert run("probe", path, env=env).returncode == 0
        assert_error_line(run("serve", path, "--exec", "cat", env=env), 9)
        assert os.listdir(temporary) == []
    assert os.listdir(folder) == ["t"]


@pytest.mark.soak
@pytest.mark.parametrize("number", range(3 * SOAK))
def test_of_servers_that_start_at_the_same_time_exactly_one_serves(endpoint, number):
    if number % 2:
        stale_socket(endpoint)
    command = [*SIPC_ON_XNU, "serve", endpoint, "--exec", "cat", "--backlog", "1"]
    with started_at_once([command] * 4) as (winner, losers):
        assert [loser.wait() for loser in losers] == [9] * 3
        assert ask(endpoint, b"hello") == (b"hello", True)
        winner.terminate()
        assert winner.wait(TIMEOUT) == 0
