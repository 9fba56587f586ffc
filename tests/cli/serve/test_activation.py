"""`sipc serve` with a listening socket from its service manager: LISTEN_FDS and others."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest
from helpers.command import SIPC, Program, assert_error_line, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.patience import without_limits
from helpers.procfs import children, has_listener, stop_process, waits_for_ever
from helpers.socket_activation import SocketManager, start_with_sockets
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, decode, message, open_connections, packets, receive_all

from simpleipc_cli.cli.exitcodes import exit_code
from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport import listener_from_fd

SERVE = [SIPC, "serve", "--exec", "cat"]
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"), reason="starts servers: systemd-socket-activate"
)


def ended(program) -> subprocess.CompletedProcess[bytes]:
    output, errors = program.communicate(timeout=TIMEOUT)
    return subprocess.CompletedProcess(program.args, program.returncode, output, errors)


def stopped(program, status: int = 0) -> str:
    """Stop a server; return its log."""
    program.terminate()
    done = ended(program)
    assert done.returncode == status, done.stderr
    return done.stderr.decode()


def run_here(*arguments, count: str = "1", **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run `sipc serve` in this process, which gets no socket; it must not start."""
    variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, **more}
    return run_cli("serve", *arguments, "--exec", "cat", env=environment(**variables))


def test_a_server_answers_on_a_passed_socket_and_does_not_remove_it(manager, endpoint, folder):
    before = endpoint.stat()
    for _ in range(2):
        with manager.start() as server:
            assert ask(endpoint, b"hello") == (b"hello", True)
            assert run_cli("probe", endpoint).returncode == 0
            assert stopped(server).startswith(f"listening on {endpoint}\n")
        assert os.path.samestat(endpoint.stat(), before)
        assert os.listdir(folder) == ["sock"]


def test_a_stopping_server_leaves_connections_in_the_backlog_to_the_next_server(
    manager, endpoint, folder, gate
):
    """The first server answers what it has accepted, and accepts nothing after the signal."""
    command = f": >{folder}/begun; {gate.wait}; cat; echo first"
    options = ("-v", "--drain-timeout", "0")
    with connect(endpoint) as client, manager.start(*options, command=command) as first:
        client.sendall(message(b"hello "))
        wait_until((folder / "begun").exists, "the handler to begin")
        first.terminate()
        log = b""
        while b"stopping" not in log:
            log += first.stderr.readline()
        with connect(endpoint) as late:
            late.sendall(message(b"hello "))
            gate.open()
            assert decode(receive_all(client)) == (b"hello first\n", True)
            assert first.wait() == 0
            with manager.start(command="cat; echo second") as second:
                assert decode(receive_all(late)) == (b"hello second\n", True)
                stopped(second)


PAUSES = """
from threading import Event
from simpleipc_cli.server.acceptor import Acceptor
from simpleipc_cli.server.server import Server

stopped = Event()

def on_connection(self, events, on_connection=Acceptor._on_connection):
    on_connection(self, events)
    if self._counters.accepted > 10:
        stopped.wait()

def stop(self, stop=Server.stop):
    stop(self)
    stopped.set()

Acceptor._on_connection = on_connection
Server.stop = stop
"""
"""Code: a server that has accepted ten connections waits for the signal to stop."""


def test_a_stopping_server_stops_accepting_from_a_long_backlog(manager, endpoint):
    """Else it would accept while clients connect faster than it checks; the next server runs.

    It accepts at most 256 connections at once.
    """
    program = [*without_limits(then=PAUSES), "serve", "--exec", "/bin/echo first"]
    with start_with_sockets(program, manager.socket) as first:
        assert ask(endpoint, b"") == (b"first\n", True)
        stop_process(first.pid)
        with open_connections(endpoint, 270) as clients:
            for client in clients:
                client.sendall(message(b""))
            first.send_signal(signal.SIGCONT)
            wait_until(lambda: children(first.pid), "it to have accepted some")
            first.terminate()
            assert first.wait(TIMEOUT) == 0
            with manager.start(command="/bin/echo second") as second:
                answers = [decode(receive_all(client)) for client in clients]
                stopped(second)
    assert set(answers) == {(b"first\n", True), (b"second\n", True)}


def test_the_next_server_answers_connections_in_the_backlog_of_a_killed_server(manager, endpoint):
    with manager.start() as first:
        assert ask(endpoint, b"hello") == (b"hello", True)
        stop_process(first.pid)
        with connect(endpoint) as client:
            client.sendall(message(b"hello"))
            first.kill()
            first.wait()
            with manager.start() as second:
                assert decode(receive_all(client)) == (b"hello", True)
                stopped(second)


def test_handlers_do_not_inherit_the_passed_socket(manager, endpoint):
    with manager.start(command="ls -l /proc/self/fd; echo $UNIXLOCALPATH") as server:
        answer = ask(endpoint, b"")[0].decode()
        stopped(server)
    assert "socket:" not in answer
    assert answer.endswith(f"\n{endpoint}\n")


def test_an_abstract_socket_is_served_and_shown_with_an_at_sign(folder):
    name = f"{folder}\nodd"
    with SocketManager(f"\0{name}\0".encode()) as manager:
        with manager.start(command="printf %s $UNIXLOCALPATH") as server:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(TIMEOUT)
                client.connect(f"\0{name}\0".encode())
                client.sendall(message(b""))
                seen = decode(receive_all(client))[0].decode()
            log = stopped(server)
        shown = "@" + name.replace("\n", "\\n") + "@"
        assert log.startswith(f"listening on {shown}\n")
        assert "".join(seen.split()) == f"@{folder}odd@"


def test_the_path_option_may_be_the_path_of_the_passed_socket(manager, endpoint, folder):
    (folder / "link").symlink_to("sock")
    with manager.start(path=["link"], cwd=folder) as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        stopped(server)


def test_the_path_option_may_be_the_abstract_name_of_the_passed_socket(folder):
    with SocketManager(f"\0{folder}") as manager:
        with manager.start(path=[f"@{folder}"]) as server:
            assert server.stderr.readline() == b"listening on @%s\n" % os.fsencode(folder)
            stopped(server)


@contextmanager
def adopted(socket_: socket.socket):
    """Return the result of a server that was passed this socket."""
    listener = listener_from_fd(os.dup(socket_.fileno()))
    try:
        yield listener
    finally:
        listener.close()


def test_a_passed_socket_matches_each_of_its_paths_and_no_other_path(
    manager, endpoint, folder, monkeypatch
):
    monkeypatch.chdir(folder)
    (folder / "link").symlink_to("sock")
    with adopted(manager.socket) as listener:
        for path in (str(endpoint), "sock", "./sock", "link"):
            assert listener.is_at(path)
        for path in (str(folder), "other", f"@{endpoint}"):
            assert not listener.is_at(path)
        endpoint.rename(folder / "away")
        assert not listener.is_at("away")
        assert listener.is_at(str(endpoint)), "there is nothing else"


def test_a_passed_abstract_socket_matches_only_its_name(folder):
    with SocketManager(f"\0{folder}") as manager, adopted(manager.socket) as listener:
        assert listener.is_at(f"@{folder}")
        assert not listener.is_at(str(folder))


@pytest.mark.parametrize(
    "options", [("--mode", "0600"), ("--backlog", "1024"), ("--background",)], ids=" ".join
)
def test_options_that_the_socket_unit_decides_are_usage_errors(options):
    done = run_here(*options)
    assert done.returncode == 2
    assert options[0].encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_path_that_is_not_the_passed_socket_is_a_usage_error(manager, folder):
    with manager.start(path=["other"], cwd=folder) as server:
        done = ended(server)
    assert done.returncode == 2
    assert b"PATH is other" in done.stderr
    assert os.listdir(folder) == ["sock"]


def test_sockets_for_another_process_are_ignored(endpoint, folder):
    """For example, those of an activated shell that starts this server."""
    with SocketManager(str(endpoint)) as manager:
        script = f"{SIPC} serve other --exec cat & echo; wait"
        with start_with_sockets(["sh", "-c", script], manager.socket, cwd=folder) as shell:
            wait_until((folder / "other").exists, "a socket of its own")
            assert ask(folder / "other", b"hello") == (b"hello", True)
            (server,) = children(shell.pid)
            os.kill(server, signal.SIGTERM)
            assert ended(shell).returncode == 0
    with Program([*SERVE[:2], folder / "mine", *SERVE[2:]], env=environment(LISTEN_PID="x")) as one:
        wait_until((folder / "mine").exists, "a socket of its own")
        one.terminate()


def listening(address="", family=socket.AF_UNIX, kind=socket.SOCK_STREAM) -> socket.socket:
    made = socket.socket(family, kind)
    made.bind(address)
    if kind != socket.SOCK_DGRAM:
        made.listen()
    return made


def test_a_passed_connection_is_refused():
    """A unit with Accept=yes passes a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs, start_with_sockets(SERVE, theirs) as server:
        assert_error_line(ended(server), 5, "Accept=no")


def test_a_descriptor_that_is_not_open_is_refused():
    with start_with_sockets(SERVE, count=1) as server:
        assert_error_line(ended(server), 1, "descriptor 3 of LISTEN_FDS")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("inet", "not a Unix domain socket"),
        ("datagram", "is not a stream socket"),
        ("seqpacket", "is not a stream socket"),
        ("pipe", "on non-socket"),
    ],
)
def test_a_socket_that_cannot_be_served_is_refused(kind, words):
    make = {
        "inet": lambda: listening(("127.0.0.1", 0), socket.AF_INET),
        "datagram": lambda: listening(kind=socket.SOCK_DGRAM),
        "seqpacket": lambda: listening(kind=socket.SOCK_SEQPACKET),
        "pipe": lambda: open(os.devnull),  # noqa: SIM115 - closed below
    }
    with make[kind]() as given, pytest.raises(SipcError, match=words) as refusal:
        listener_from_fd(os.dup(given.fileno()))
    assert exit_code(refusal.value) == 5


NONSENSE = ["0", "-1", "", "two", "1 ", "9" * 22, "9" * 5000]


@pytest.mark.parametrize("count", NONSENSE, ids=[text[:9] for text in NONSENSE])
def test_an_invalid_number_of_sockets_is_refused(count):
    assert_error_line(run_here(count=count), 1, "LISTEN_FDS is")


@pytest.mark.parametrize(("names", "chosen"), [("sipc:web", 0), ("web:sipc", 1)])
def test_the_server_uses_the_one_of_several_sockets_that_is_named_sipc(folder, names, chosen):
    with SocketManager(str(folder / "0")) as first, SocketManager(str(folder / "1")) as second:
        sockets = [first.socket, second.socket]
        command = ["ls -l /proc/self/fd | grep -c socket: || true"]
        with start_with_sockets([*SERVE[:3], *command], *sockets, names=names) as server:
            assert server.stderr.readline() == b"listening on %s/%d\n" % (
                os.fsencode(folder),
                chosen,
            )
            assert ask(folder / str(chosen), b"")[0] == b"0\n", "handlers get none"
            stopped(server)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({}, "0 of them named"),
        ({"LISTEN_FDNAMES": ""}, "0 of them named"),
        ({"LISTEN_FDNAMES": "web:log"}, "0 of them named"),
        ({"LISTEN_FDNAMES": "sipc:sipc"}, "2 of them named"),
        ({"LISTEN_FDNAMES": "web:log:sipc"}, "0 of them named"),
    ],
    ids=["no names", "empty", "others", "two", "one too many"],
)
def test_several_sockets_of_which_not_exactly_one_is_named_sipc_are_refused(names, words):
    assert_error_line(run_here(count="2", **names), 1, words, "FileDescriptorName=sipc")


def test_a_single_socket_may_have_any_name_and_SIPC_PATH_is_ignored(manager, endpoint):
    env = environment(SIPC_PATH="/nowhere/else")
    with start_with_sockets(SERVE, manager.socket, names="unknown", env=env) as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        stopped(server)


def test_a_server_with_a_passed_socket_does_not_stop_when_the_path_is_removed(manager, endpoint):
    with manager.start() as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        with connect(endpoint) as client:
            endpoint.unlink()
            wait_until(lambda: waits_for_ever(server.pid), "it to look for nothing but clients")
            client.sendall(packets(b"hello"))
            assert client.recv(100) == packets(b"hello")
            assert server.poll() is None
            client.sendall(b"0000")
            assert receive_all(client) == b"0000"
        stopped(server)


def activate(*options, command=SERVE, **more) -> Program:
    """systemd-socket-activate waits for the first connection, and becomes the server."""
    arguments = ["systemd-socket-activate", *map(str, options), *command]
    more = {"stderr": subprocess.PIPE, "env": environment(), **more}
    return Program(arguments, **more)


@needs_systemd
def test_systemd_starts_a_server_and_passes_several_sockets_by_name(endpoint, folder):
    sockets = ["--fdname=web:sipc", "-l", folder / "web", "-l", endpoint]
    with activate(*sockets, "-E", "LANG=C") as server:
        wait_until(lambda: has_listener(endpoint), "the socket to listen")
        assert sipc("send", endpoint, "-d", "hello").stdout == b"hello"
        assert ask(endpoint, b"hello") == (b"hello", True)
        log = stopped(server)
        assert f"listening on {endpoint}\n" in log
        assert endpoint.exists()


@needs_systemd
def test_a_systemd_unit_with_accept_is_refused(endpoint, folder):
    """With --accept systemd starts a server for each connection, and keeps listening."""
    errors = folder / "errors"
    errors.touch()
    command = ["sh", "-c", f'exec "$@" 2>>{errors}', "sh", *SERVE]
    with activate("--accept", "-l", endpoint, command=command, cwd=folder) as server:
        wait_until(lambda: has_listener(endpoint), "the socket to listen")
        with connect(endpoint):
            wait_until(errors.read_bytes, "what is wrong with it")
        server.terminate()
        ended(server)
    assert "Accept=no" in errors.read_text()
    assert errors.read_text().count("\n") == 1
