"""`sipc serve` takes a path, but none of another server."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import time

import pytest
from helpers import masked
from helpers.command import (
    SIPC,
    Program,
    assert_error_line,
    environment,
    needs_root,
    sipc,
    started_at_once,
)
from helpers.inprocess_cli import run_cli
from helpers.inprocess_server import echo_server
from helpers.patience import DRAIN, LOCK, without_limits
from helpers.procfs import children
from helpers.server import Server
from helpers.soak import SOAK, soak
from helpers.sockets import busy_listener, stale_socket
from helpers.users import as_nobody
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, decode, is_listening, packets, receive_all

from simpleipc_cli.server.server import ExitReason

SERVE_PATIENTLY = [*without_limits(*LOCK), "serve", "--exec", "cat"]


def refused(path, **more) -> subprocess.CompletedProcess[bytes]:
    """Run a `sipc serve` that must not start."""
    return run_cli("serve", path, "--exec", "cat", **more)


def test_a_second_server_does_not_take_the_path_of_a_running_server(shared_server):
    path = shared_server("cat").path
    assert_error_line(sipc("serve", path, "--exec", "cat"), 9, path, "another server")
    assert ask(path, b"hello") == (b"hello", True)


def test_a_second_server_does_not_take_the_path_of_a_busy_server(endpoint):
    with busy_listener(endpoint):
        assert_error_line(refused(endpoint), 9)
        assert endpoint.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "dangling", "datagram", "fifo"])
def test_a_file_that_is_no_stale_socket_is_never_removed(endpoint, folder, kind):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        match kind:
            case "file":
                endpoint.write_text("precious")
            case "directory":
                endpoint.mkdir()
            case "symlink":
                stale_socket(folder / "real")
                endpoint.symlink_to("real")
            case "dangling":
                endpoint.symlink_to("nowhere")
            case "datagram":
                other.bind(str(endpoint))
            case "fifo":
                os.mkfifo(endpoint)
        before = os.lstat(endpoint)
        assert_error_line(refused(endpoint), 5, str(endpoint))
        assert os.lstat(endpoint).st_ino == before.st_ino
    assert sorted(os.listdir(folder)) == (["real", "sock"] if kind == "symlink" else ["sock"])


def test_the_socket_never_has_more_permissions_than_requested(folder, endpoint):
    """Another process checks the mode at every system call that could change it."""
    trace = folder / "trace"
    calls = "trace=fchmod,bind,chmod,fchmodat,renameat,listen"
    wrapper = ["strace", "-f", "-qq", "-e", calls]
    wrapper += ["-o", str(trace)]
    with Server(endpoint, "cat", "--mode", "0640", wrapper=wrapper, umask=0o000) as server:
        assert stat.S_IMODE(endpoint.stat().st_mode) == 0o640
        (traced,) = children(server.pid)
        os.kill(traced, signal.SIGTERM)
        assert server.wait() == 0
    calls = [line.split(" ", 1)[1].strip() for line in trace.read_text().splitlines()]
    names = [
        re.match(r"\w+", call)[0]
        for call in calls
        if ".sipc-" in call or "fchmod(" in call or "listen(" in call
    ]
    bound = names.index("bind")
    if masked.SYSTEM not in {"macos", "freebsd"}:
        assert names[:bound] == ["fchmod"], "narrowed before it has a name"
    changed = [name for name in names[bound:] if name in {"chmod", "fchmodat", "listen"}]
    assert changed[0] != "listen", "narrowed before a client can connect"
    assert names.index("listen") < names.index("renameat"), "listening before it has the name"


@needs_root
def test_a_socket_without_write_permission_is_reported_by_every_verb(endpoint, folder):
    folder.chmod(0o755)
    with Server(endpoint, "cat"):
        done = as_nobody("send", endpoint, "-d", "hello")
        assert done.returncode == 8, done.stderr
        assert_error_line(done, 8, str(endpoint))
        assert_error_line(as_nobody("serve", endpoint, "--exec", "cat"), 8)
    with Server(endpoint, "cat", "--mode", "0666"):
        assert as_nobody("send", endpoint, "-d", "hello").stdout == b"hello"


@needs_root
def test_a_folder_without_search_permission_has_a_separate_exit_status(endpoint, folder):
    folder.chmod(0o700)
    with Server(endpoint, "cat"):
        assert as_nobody("serve", endpoint, "--exec", "cat").returncode == 8
        assert as_nobody("probe", "-q", endpoint).returncode == 8


@needs_root
def test_a_folder_without_write_permission_is_reported(folder):
    folder.chmod(0o755)
    assert_error_line(as_nobody("serve", folder / "sock", "--exec", "cat"), 8)
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("number", "before", "rounds"),
    [
        (2, "stale socket", 1),
        *(
            soak(number, before, rounds)
            for number, rounds in ((2, SOAK), (20, 1))
            for before in ("nothing", "stale socket", "stale lock")
        ),
    ],
)
def test_exactly_one_of_several_servers_that_start_at_once_listens(
    endpoint, folder, number, before, rounds
):
    for _ in range(rounds):
        if before == "stale socket":
            stale_socket(endpoint)
        if before == "stale lock":
            old_lock(folder)
        program = without_limits("transport.unix.lock._TIMEOUT")
        command = [*program, "serve", endpoint, "--exec", "cat"]
        with started_at_once([command] * number) as (winner, losers):
            assert [server.returncode for server in losers] == [9] * (number - 1)
            assert ask(endpoint, b"hello") == (b"hello", True)
            winner.terminate()
            assert winner.wait() == 0
        assert os.listdir(folder) == []


def old_lock(folder, age: float = 6.0) -> None:
    lock = folder / "sock.lock"
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)


def test_a_server_waits_for_a_lock_that_another_program_holds(endpoint, folder):
    """As git does: its lock exists while it creates its socket."""
    lock = folder / "sock.lock"
    lock.touch()
    with Program([*SERVE_PATIENTLY, endpoint], stderr=subprocess.PIPE) as server:
        wait_until(lambda: any(".sipc-" in n for n in os.listdir(folder)), "it is waiting")
        assert not endpoint.exists()
        lock.unlink()
        assert server.stderr.readline() == b"listening on %s\n" % os.fsencode(endpoint)
        server.terminate()


def test_a_server_that_listens_first_while_another_waits_for_the_lock_keeps_the_path(
    endpoint, folder
):
    (folder / "sock.lock").touch()
    with Program([*SERVE_PATIENTLY, endpoint], stderr=subprocess.PIPE) as server:
        wait_until(lambda: any(".sipc-" in n for n in os.listdir(folder)), "it is waiting")
        with socket.socket(socket.AF_UNIX) as winner:
            winner.bind(str(endpoint))
            winner.listen()
            assert server.wait() == 9
    assert sorted(os.listdir(folder)) == ["sock", "sock.lock"]


def test_a_server_whose_path_was_replaced_stops_and_removes_nothing(endpoint):
    program = without_limits(*DRAIN)
    with Server(endpoint, "cat", program=program) as server, connect(endpoint) as client:
        client.sendall(packets(b"hel"))
        assert client.recv(100) == packets(b"hel")
        endpoint.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(endpoint))
            other.listen()
            client.sendall(packets(b"lo") + b"0000")
            assert decode(receive_all(client)) == (b"lo", True)
            assert server.wait() == 1
        assert endpoint.exists()
        assert server.log.splitlines()[-1].startswith(
            f"sipc serve: {endpoint} was removed or replaced"
        )


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_server_whose_socket_is_removed_or_replaced_by_a_file_stops(endpoint, how):
    with echo_server(endpoint) as server:
        endpoint.unlink()
        if how == "replaced":
            endpoint.write_text("precious")
        assert server.end() is ExitReason.PATH_LOST
    assert endpoint.exists() == (how == "replaced")


def test_a_server_without_standard_streams_works(endpoint):
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", SIPC, "serve", endpoint, "--exec"]
    with Program([*command, "cat; ls /proc/self/fd"], env=environment()) as server:
        wait_until(lambda: is_listening(endpoint), "the server to listen")
        assert ask(endpoint, b"hello\n")[0].split()[:4] == [b"hello", b"0", b"1", b"2"]
        server.terminate()
        assert server.wait(TIMEOUT) == 0
