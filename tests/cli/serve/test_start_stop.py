"""`sipc serve`: taking a path, giving it back, and ending without losing a request."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
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
from helpers.inprocess_server import EchoHandler, InProcessServer
from helpers.procfs import children, processes, stop_process
from helpers.server import Server
from helpers.sockets import busy_listener, stale_socket
from helpers.users import as_nobody
from helpers.waiting import TIMEOUT, wait_until
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
from helpers.workers import serve_workers

from simpleipc_cli.server.context import ServerConfig
from simpleipc_cli.server.server import ExitReason

SOAK = int(os.environ.get("SIPC_SOAK", "3"))


def refused(path, **more) -> subprocess.CompletedProcess[bytes]:
    """A `sipc serve` that must not start."""
    return run_cli("serve", path, "--exec", "cat", **more)


def test_the_path_of_a_running_server_is_not_taken(shared_server):
    path = shared_server("cat").path
    assert_error_line(sipc("serve", path, "--exec", "cat"), 9, path, "another server")
    assert ask(path, b"hello") == (b"hello", True)


def test_the_path_of_a_busy_server_is_not_taken(endpoint):
    with busy_listener(endpoint):
        assert_error_line(refused(endpoint), 9)
        assert endpoint.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "dangling", "datagram", "fifo"])
def test_what_is_no_stale_socket_is_never_removed(endpoint, folder, kind):
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


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("", 5), ("missing/sock", 4), ("file/sock", 5), ("x" * 256, 5), (".", 5), ("sub/", 5),
        ("loop/sock", 5), ("d/" * 2500 + "sock", 5),
    ],
    ids=["empty", "no folder", "a file for a folder", "long name", "dot", "slash", "loop", "long"],
)  # fmt: skip
def test_an_impossible_path_is_refused(folder, path, status):
    (folder / "file").touch()
    (folder / "sub").mkdir()
    (folder / "loop").symlink_to("loop")
    assert_error_line(refused(path, cwd=folder), status)
    assert sorted(os.listdir(folder)) == ["file", "loop", "sub"]


def test_the_mode_is_never_wider_than_asked_for(folder, endpoint):
    """Seen from outside, at every system call that could show it."""
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
    assert names[:bound] == ["fchmod"], "narrowed before it has a name"
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
def test_a_folder_without_search_permission_has_an_exit_status_of_its_own(endpoint, folder):
    folder.chmod(0o700)
    with Server(endpoint, "cat"):
        assert as_nobody("serve", endpoint, "--exec", "cat").returncode == 8
        assert as_nobody("probe", "-q", endpoint).returncode == 8


@needs_root
def test_a_folder_without_write_permission_is_reported(folder):
    folder.chmod(0o755)
    assert_error_line(as_nobody("serve", folder / "sock", "--exec", "cat"), 8)
    assert os.listdir(folder) == []


@contextmanager
def echo_server(path):
    """A server in this process."""
    server = InProcessServer(str(path), EchoHandler(), ServerConfig())
    try:
        yield server
    finally:
        server.close()


def long_path(folder, length: int) -> Path:
    """Make a folder for a socket whose path has this length."""
    path = folder
    while len(str(path)) < length - 202:
        path /= "d" * 200
    rest = length - len(str(path)) - 1
    path = path / ("d" * (rest // 2)) / ("s" * (rest - rest // 2 - 1))
    assert len(str(path)) == length
    path.parent.mkdir(parents=True)
    return path


def test_a_long_path_works_at_every_verb(folder):
    path = long_path(folder, 4000)
    with Server(path, "cat"):
        assert sipc("probe", path).returncode == 0
        assert sipc("send", path, "-d", "hello").stdout == b"hello"
        assert_error_line(refused(path), 9)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("length", [107, 108])
def test_paths_around_the_longest_address_work_at_every_verb(folder, length):
    path = long_path(folder, length)
    with echo_server(path):
        assert run_cli("probe", path).returncode == 0
        assert run_cli("send", path, "-d", "hello").stdout == b"hello"
        assert_error_line(refused(path), 9)
    assert os.listdir(path.parent) == []


def test_a_long_name_works_at_every_verb(folder):
    path = "n" * 255
    with Server(path, "pwd", cwd=folder):
        assert sipc("probe", path, cwd=folder).returncode == 0
        assert sipc("send", path, "-d", "", cwd=folder).stdout.decode() == f"{folder}\n"
    assert os.listdir(folder) == []


@pytest.mark.parametrize("length", [250, 251, 255])
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_names_around_the_longest_work_at_every_verb(folder, monkeypatch, length, relative):
    monkeypatch.chdir(folder)
    path = "n" * length if relative else str(folder / ("n" * length))
    with echo_server(path):
        assert run_cli("probe", path, cwd=folder).returncode == 0
        assert run_cli("send", path, "-d", "hello", cwd=folder).stdout == b"hello"
    assert os.listdir(folder) == []


def test_a_name_may_be_any_bytes_and_is_shown_escaped(folder):
    path = os.fsdecode(os.fsencode(folder) + b"/new\nline\xff")
    done = sipc("probe", path)
    assert done.returncode == 4
    assert done.stdout.count(b"\n") == 1
    with Program([SIPC, "serve", path, "--exec", "cat"], stderr=subprocess.PIPE) as server:
        assert server.stderr.readline().endswith(b"new\\nline\\udcff\n")
        assert sipc("send", path, "-d", "hello").stdout == b"hello"
        server.terminate()


def test_clients_follow_a_symlink(shared_server, folder):
    (folder / "link").symlink_to(shared_server("cat").path)
    assert sipc("send", folder / "link", "-d", "hello").stdout == b"hello"


@pytest.mark.parametrize(
    ("number", "before", "rounds"),
    [
        (2, "stale socket", 1),
        *(
            pytest.param(number, before, rounds, marks=pytest.mark.soak)
            for number, rounds in ((2, SOAK), (20, 1))
            for before in ("nothing", "stale socket", "stale lock")
        ),
    ],
)
def test_of_servers_that_start_at_once_exactly_one_listens(
    endpoint, folder, number, before, rounds
):
    for _ in range(rounds):
        if before == "stale socket":
            stale_socket(endpoint)
        if before == "stale lock":
            old_lock(folder)
        command = [SIPC, "serve", endpoint, "--exec", "cat"]
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


def test_a_held_lock_is_waited_for(endpoint, folder):
    """What git does: the lock is there while it makes its socket."""
    lock = folder / "sock.lock"
    lock.touch()
    with Program([SIPC, "serve", endpoint, "--exec", "cat"], stderr=subprocess.PIPE) as server:
        wait_until(lambda: any(".sipc-" in n for n in os.listdir(folder)), "it is waiting")
        assert not endpoint.exists()
        lock.unlink()
        assert server.stderr.readline() == b"listening on %s\n" % os.fsencode(endpoint)
        server.terminate()


def test_a_server_that_listens_first_while_another_waits_for_the_lock_keeps_the_path(
    endpoint, folder
):
    (folder / "sock.lock").touch()
    with Program([SIPC, "serve", endpoint, "--exec", "cat"], stderr=subprocess.PIPE) as server:
        wait_until(lambda: any(".sipc-" in n for n in os.listdir(folder)), "it is waiting")
        with socket.socket(socket.AF_UNIX) as winner:
            winner.bind(str(endpoint))
            winner.listen()
            assert server.wait() == 9
    assert sorted(os.listdir(folder)) == ["sock", "sock.lock"]


def test_a_server_whose_path_was_replaced_stops_and_removes_nothing(endpoint):
    with Server(endpoint, "cat") as server, connect(endpoint) as client:
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


def test_stopping_answers_ten_requests_in_flight(endpoint, gate):
    command = f"{gate.wait}; cat"
    with Server(endpoint, command) as server, open_connections(endpoint, 10) as clients:
        for client in clients:
            client.sendall(message(b"hello"))
        wait_until(lambda: len(children(server.pid)) == 8, "eight handlers")
        server.signal(signal.SIGQUIT)
        wait_until(lambda: not endpoint.exists(), "the path to go")
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
            late.connect(str(endpoint))
        gate.open()
        assert [receive_all(client) for client in clients] == [message(b"hello")] * 10
        assert server.wait() == 0


def test_stopping_answers_connections_in_the_backlog(endpoint):
    """More connections than the server accepts at once are there when the stop begins."""
    with serve_workers(endpoint, "--drain-timeout", "0", worker="cat") as server:
        stop_process(server.pid)
        with open_connections(endpoint, 300) as clients:
            for client in clients:
                client.sendall(message(b"hello"))
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGCONT)
            assert [receive_all(client) for client in clients] == [message(b"hello")] * 300
        assert server.wait() == 0


def test_stopping_closes_idle_connections_and_incomplete_requests(endpoint):
    with (
        Server(endpoint, "cat", "--drain-timeout", "0") as server,
        open_connections(endpoint, 3) as clients,
    ):
        clients[1].sendall(b"0009he")
        assert clients[1].recv(100) == packets(b"he")
        clients[2].sendall(packets(b"hello"))
        assert clients[2].recv(100) == packets(b"hello")
        server.signal()
        assert [receive_all(client) for client in clients] == [b"", b"", b""]
        assert server.wait() == 0


def test_stopping_ends_handlers_when_the_drain_takes_too_long(endpoint, folder):
    """And starts none for requests that wait for a thread."""
    command = f"echo x >>{folder}/runs; exec sleep 1000"
    with Server(endpoint, command, "--threads", 1, "--drain-timeout", "200ms") as server:
        with open_connections(endpoint, 3) as clients:
            for client in clients:
                client.sendall(message(b"hello"))
            wait_until((folder / "runs").exists, "the first handler")
            server.signal()
            assert [receive_all(client) for client in clients] == [b""] * 3
        assert server.wait() == 143
        assert (folder / "runs").read_text() == "x\n"
        assert "--drain-timeout" in server.log


def test_the_server_stops_after_count_requests(endpoint):
    with Server(endpoint, "cat", "--count", 3) as server:
        for _ in range(3):
            connect(endpoint).close()  # a connection without data does not count
            assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.wait() == 0
        assert not endpoint.exists()


def test_a_first_signal_after_count_requests_does_not_abort(endpoint, folder, gate):
    command = f": >{folder}/begun; {gate.wait}; cat"
    with Server(endpoint, command, "--count", 1) as server, connect(endpoint) as client:
        client.sendall(message(b"hello"))
        wait_until((folder / "begun").exists, "the handler to begin")
        wait_until(lambda: not endpoint.exists(), "the stop to begin")
        server.signal()
        gate.open()
        assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0


@pytest.mark.parametrize(("option", "lines"), [("-q", 1), ("-v", 5)], ids=["quiet", "verbose"])
def test_quiet_shows_problems_only_and_verbose_more(endpoint, option, lines):
    with Server(endpoint, "read -r line; exit $line", option) as server:
        assert ask(endpoint, b"0\n") == (b"", True)
        assert ask(endpoint, b"3\n") == (b"", False)
        connect(endpoint).close()
        assert server.stop() == 0
    assert len(server.log.splitlines()) == lines, server.log
    assert "exit status 3" in server.log


def test_server_and_client_have_the_same_default_endpoint(folder):
    env = environment(XDG_RUNTIME_DIR=str(folder))
    command = [SIPC, "serve", "--exec", "cat"]
    with Program(command, stderr=subprocess.PIPE, env=env) as server:
        assert server.stderr.readline() == b"listening on %s/sipc.sock\n" % os.fsencode(folder)
        assert run_cli("send", env=env, input=b"hello").stdout == b"hello"
        assert run_cli("probe", env=env).stdout == b"%s/sipc.sock: listening\n" % os.fsencode(
            folder
        )
        server.terminate()
        assert server.wait() == 0
    env["SIPC_PATH"] = str(folder / "other")
    assert run_cli("probe", env=env).stdout == b"%s/other: path not found\n" % os.fsencode(folder)


def test_a_server_without_standard_streams_works(endpoint):
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", SIPC, "serve", endpoint, "--exec"]
    with Program([*command, "cat; ls /proc/self/fd"], env=environment()) as server:
        wait_until(lambda: is_listening(endpoint), "the server to listen")
        assert ask(endpoint, b"hello\n")[0].split()[:4] == [b"hello", b"0", b"1", b"2"]
        server.terminate()
        assert server.wait(TIMEOUT) == 0


def test_a_closed_log_pipe_does_not_stop_the_server(endpoint):
    command = [SIPC, "serve", endpoint, "--exec", "cat"]
    with Program(command, stderr=subprocess.PIPE, env=environment()) as server:
        server.stderr.readline()
        server.stderr.close()
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"hello", True)
        server.terminate()
        assert server.wait() == 0


@pytest.mark.soak
def test_starting_and_stopping_in_a_row_leaves_nothing(endpoint, folder):
    for _ in range(SOAK):
        with Server(endpoint, "cat") as server:
            with open_connections(endpoint, 4) as connected:
                for client in connected:
                    client.sendall(message(b"hello"))
                server.signal()
                answers = [decode(receive_all(client)) for client in connected]
            assert answers == [(b"hello", True)] * 4
            assert server.wait() == 0
        assert os.listdir(folder) == []


def test_a_suspended_stop_closes_no_connection_that_has_sent_meanwhile(endpoint):
    """As on a machine that was suspended: the server was stopped, and the client was not idle."""
    with Server(endpoint, "cat") as server, connect(endpoint) as client:
        wait_until(lambda: len(server.connections()) == 1, "it was accepted")
        server.signal()
        wait_until(lambda: not endpoint.exists(), "the stop to begin")
        stop_process(server.pid)
        client.sendall(message(b"hello"))
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1.2)  # longer than a client may stay idle
        server.signal(signal.SIGCONT)
        assert decode(receive_all(client)) == (b"hello", True)
        assert server.wait() == 0


BROKEN = """
import os, sys
from simpleipc_cli.cli import main
from simpleipc_cli.server.server import Server

def fail(self):
    if os.path.exists(os.environ["BREAK"]):
        raise RuntimeError("a defect")

Server._check_idle = fail
main()
"""


def test_an_internal_error_that_ends_the_server_leaves_no_handler(endpoint, folder):
    whole = ["--whole-request"]  # one has a thread
    for number, options in enumerate(([], whole)):
        broken = folder / f"broken-{number}"
        program, env = (sys.executable, "-c", BROKEN), environment(BREAK=str(broken))
        command = "trap '' TERM; echo begun; exec sleep 1000"
        with Server(endpoint, command, *options, program=program, env=env) as server:
            with connect(endpoint) as client:
                client.sendall(message(b"hello"))
                assert client.recv(10) == b"000abegun\n"
                broken.touch()
                assert server.process.wait(TIMEOUT) == 1
                assert not processes(server.mark)
