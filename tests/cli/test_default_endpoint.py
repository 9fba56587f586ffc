"""Clients without PATH find the server at the directory of XDG_RUNTIME_DIR or in /tmp."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.command import Program, assert_error_line, environment, needs_root
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall
from helpers.sending import EchoServer
from helpers.sockets import busy_listener, stale_socket
from helpers.users import User, sipc_as
from helpers.waiting import TIMEOUT, wait_until

import simpleipc_cli
from simpleipc_cli import endpoint as endpoint_module
from simpleipc_cli import system

BENCH = ("bench", "-n", "1", "--quiet", "--json", "-")
VERBS = {
    "send": (("send", "-d", "x"), b"x"),
    "send --lines": (("send", "--lines"), b"x\n"),
    "probe": (("probe",), b"%s: listening\n"),
    "probe --json": (("probe", "--json"), b'"path": "%s"'),
    "bench": (BENCH, b'"path": "%s"'),
}


class Places:
    """Both places of a user that no other test has, in folders of this process's user."""

    def __init__(self, runtime_folders: Path, user: int) -> None:
        self.runtime = runtime_folders / f"{user}"
        self.private = Path(f"/tmp/sipc-{user}")
        for place in (self.runtime, self.private):
            place.mkdir(0o700, parents=True)
        self.sockets = (self.runtime / "sipc.sock", self.private / "sipc.sock")
        self.set = environment(XDG_RUNTIME_DIR=str(self.runtime))
        self.unset = environment()

    def in_order(self, is_set: bool) -> tuple[dict[str, str], Path, Path]:
        """Return the environment, and the first and the other socket of a client in it."""
        first, other = self.sockets if is_set else self.sockets[::-1]
        return self.set if is_set else self.unset, first, other

    def remove(self) -> None:
        if self.private.is_symlink() or self.private.is_file():
            self.private.unlink()
        for place in (self.runtime, self.private):
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def places(folder, monkeypatch):
    user = User()
    monkeypatch.setattr(system, "user_id", lambda: user)
    monkeypatch.setattr(endpoint_module, "_RUNTIME_FOLDERS", str(folder / "run"))
    found = Places(folder / "run", user)
    yield found
    found.remove()


either_first = pytest.mark.parametrize("is_set", [True, False], ids=["set", "unset"])


@either_first
@pytest.mark.parametrize(("words", "output"), VERBS.values(), ids=VERBS)
def test_a_client_finds_a_server_at_the_other_place(places, is_set, words, output):
    env, _, other = places.in_order(is_set)
    with EchoServer(other):
        done = run_cli(*words, env=env, input=b"x\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert output.replace(b"%s", os.fsencode(other)) in done.stdout


@either_first
def test_of_two_servers_the_first_place_has_the_one_that_is_used(places, is_set):
    env, first, other = places.in_order(is_set)
    with EchoServer(first, lambda _: b"first"), EchoServer(other) as unused:
        assert run_cli("send", "-d", "x", env=env).stdout == b"first"
    assert unused.accepted == 0


def test_a_stale_socket_at_the_first_place_does_not_hide_a_server_at_the_other(places):
    env, first, other = places.in_order(True)
    stale_socket(first)
    with EchoServer(other):
        assert run_cli("send", "-d", "x", env=env).stdout == b"x"


def test_a_trace_and_statistics_name_the_place_of_the_server(places):
    env, _, other = places.in_order(True)
    with EchoServer(other):
        done = run_cli("send", "-d", "x", "--trace", "--stats", env=env)
    assert done.stderr.count(os.fsencode(other)) == 2


def test_a_server_at_the_other_place_spares_the_start_of_one(places, folder):
    env, _, other = places.in_order(True)
    with EchoServer(other):
        done = run_cli("send", "-d", "x", "--spawn", f"touch {folder}/started", env=env)
    assert done.stdout == b"x"
    assert not (folder / "started").exists()


@either_first
def test_if_no_server_listens_the_error_names_both_places(places, is_set):
    env, first, other = places.in_order(is_set)
    done = run_cli("send", "-d", "x", env=env)
    assert_error_line(done, 4, f"{first} does not exist, and {other} does not exist: check")
    stale_socket(first)
    done = run_cli("send", "-d", "x", env=env)
    assert_error_line(done, 3, f"listening on {first}, and {other} does not exist: start")
    stale_socket(other)
    done = run_cli("send", "-d", "x", env=env)
    assert_error_line(done, 3, f"listening on {first}, and no server is listening on {other}: ")
    assert run_cli("probe", env=env).stdout == b"%s: not listening\n" % os.fsencode(first)


def test_a_busy_server_at_the_first_place_is_the_only_one(places):
    env, first, other = places.in_order(True)
    with busy_listener(first), EchoServer(other) as unused:
        done = run_cli("send", "-d", "x", "--connect-timeout", "10ms", env=env)
    assert_error_line(done, 3, str(first))
    assert unused.accepted == 0


def test_a_busy_server_at_the_other_place_is_reported_as_such(places):
    env, _, other = places.in_order(True)
    with busy_listener(other):
        done = run_cli("probe", "-t", "10ms", env=env)
    assert (done.returncode, done.stdout) == (3, b"%s: busy\n" % os.fsencode(other))


def test_a_file_at_the_first_place_is_an_error(places):
    env, first, other = places.in_order(True)
    first.touch()
    with EchoServer(other) as unused:
        assert_error_line(run_cli("send", "-d", "x", env=env), 5, str(first))
    assert unused.accepted == 0


def widened(folder: Path) -> str:
    folder.chmod(0o755)
    return f"{folder} has mode 0755, not 0700: remove or repair it"


def linked(folder: Path) -> str:
    folder.rename(folder.with_name(folder.name + ".real"))
    folder.symlink_to(folder.with_name(folder.name + ".real"))
    return f"{folder} is not a directory: remove or repair it"


def replaced_by_a_file(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.touch(0o700)
    return f"{folder} is not a directory: remove or repair it"


def given_away(folder: Path) -> str:
    os.chown(folder, 65534, 65534)
    return f"{folder} belongs to another user (uid 65534): remove or repair it"


def blocked(folder: Path) -> str:
    (folder / "sipc.sock").unlink()
    (folder / "sipc.sock").touch()
    return f"{folder}/sipc.sock is a file, not a socket: "


UNUSABLE = [
    widened,
    linked,
    replaced_by_a_file,
    pytest.param(given_away, marks=needs_root),
    blocked,
]


@either_first
@pytest.mark.parametrize("spoil", UNUSABLE, ids=lambda spoil: spoil.__name__)
def test_the_other_place_is_not_used_unless_it_is_private(places, is_set, spoil):
    env, first, other = places.in_order(is_set)
    with EchoServer(other) as unused:
        why = spoil(other.parent)
        done = run_cli("send", "-d", "x", env=env)
        shutil.rmtree(other.parent.with_name(other.parent.name + ".real"), ignore_errors=True)
    assert_error_line(done, 4, f"{first} does not exist, and {why}")
    assert unused.accepted == 0


def test_bench_names_the_remedy_for_the_other_place(places):
    env, first, other = places.in_order(True)
    why = widened(other.parent)
    assert_error_line(run_cli("bench", env=env), 4, f"{first} does not exist, and {why}")


@pytest.mark.parametrize("is_variable", [True, False], ids=["SIPC_PATH", "PATH"])
def test_a_given_path_has_no_other_place(places, is_variable):
    path = str(places.runtime / "given")
    with EchoServer(places.sockets[0]) as first, EchoServer(places.sockets[1]) as second:
        if is_variable:
            done = run_cli("send", "-d", "x", env={**places.set, "SIPC_PATH": path})
        else:
            done = run_cli("send", "-d", "x", path, env=places.set)
    assert_error_line(done, 4, f"send: {path} does not exist: ")
    assert (first.accepted, second.accepted) == (0, 0)


def test_a_missing_directory_is_tried_again_and_must_be_private(places):
    """XDG_RUNTIME_DIR may name a directory that a login creates later."""
    first, other = places.sockets[::-1]
    environ = {**places.set, "XDG_RUNTIME_DIR": f"{places.runtime}//"}
    places.runtime.rmdir()
    done = run_cli("send", "-d", "x", env=environ)
    assert_error_line(done, 4, f"{first} does not exist, and {other} does not exist: ")
    endpoint = endpoint_module.default_endpoint(environ, system.user_id())
    real = places.runtime.with_name("real")
    real.mkdir(0o700)
    with EchoServer(real / "sipc.sock") as server:
        places.runtime.symlink_to(real)
        found = simpleipc_cli.client.probe(endpoint.connect, timeout=None)
        assert (found.state, server.accepted) == ("path not found", 0)
        assert "is not a directory" in str(found.error)
        places.runtime.unlink()
        real.rename(places.runtime)
        assert simpleipc_cli.client.probe(endpoint.connect, timeout=None).state == "listening"
        assert endpoint.path == str(other)


# -- Python API ------------------------------------------------------------------------


def test_the_api_finds_a_server_at_the_other_place(places, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places.runtime))
    with EchoServer(places.sockets[1]):
        assert simpleipc_cli.send(None, b"x") == b"x"
        assert simpleipc_cli.probe(None).state is simpleipc_cli.State.LISTENING
        simpleipc_cli.ensure_running(None, "false")
    assert "does not exist, and " in str(simpleipc_cli.probe(None).error)


def test_a_server_of_the_api_logs_that_the_directory_does_not_exist(places, monkeypatch, caplog):
    places.runtime.rmdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places.runtime))
    with simpleipc_cli.Server(None, lambda request: request) as server:
        assert server.path == str(places.sockets[1])
        assert simpleipc_cli.send(None, b"x") == b"x"
    found = [
        (one.levelno, one.getMessage()) for one in caplog.records if one.levelno > logging.INFO
    ]
    assert found == [
        (logging.WARNING, f"XDG_RUNTIME_DIR is ignored, as {places.runtime} does not exist")
    ]


# -- the installed command, as a user that no other program has -----------------------


@pytest.fixture
def user():
    return 3_900_000_000 + os.getpid()


@pytest.fixture
def real(user):
    """Both places of the user, in folders that belong to it."""
    found = Places(Path("/run/user"), user)
    for place in (found.runtime, found.private):
        os.chown(place, user, user)
    yield found
    found.remove()


def running(user: int, *words, **options) -> Program:
    return Program([*sipc_as(user), *words], stderr=subprocess.PIPE, **options)


def answer(client: Program) -> tuple[int, bytes, bytes]:
    out, err = client.communicate(timeout=TIMEOUT)
    return client.returncode, out, err


@needs_root
@either_first
def test_wait_waits_for_a_server_at_either_place(real, user, is_set):
    """The first server has another environment than the client, the second has the same."""
    client = ("send", "-d", "hello", "--wait", "1h")
    env, *_ = real.in_order(is_set)
    elsewhere = environment(XDG_RUNTIME_DIR="" if is_set else str(real.runtime))
    for server_env in (elsewhere, env):
        with running(
            user, *client, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as waiting:
            wait_until(lambda: is_in_syscall(waiting.pid, "clock_nanosleep"), "a retry")
            serve = ("serve", "--exec", "cat", "--count", "1")
            with running(user, *serve, env=server_env) as server:
                assert answer(waiting) == (0, b"hello", b"")
                assert server.wait(TIMEOUT) == 0


@needs_root
@pytest.mark.parametrize("options", [(), ("-q",), ("--log-format", "json")], ids=["", "-q", "json"])
def test_serve_warns_that_the_directory_does_not_exist_and_uses_the_other(real, user, options):
    real.runtime.rmdir()
    serve = ("serve", "--exec", "cat", "--count", "1", *options)
    with running(user, *serve, env=real.set) as server:
        line = server.stderr.readline().decode()
        assert f"sipc serve: XDG_RUNTIME_DIR is ignored, as {real.runtime} does not exist" in line
        client = ("send", "-d", "hello", "--wait", "1h")
        with running(user, *client, env=real.set, stdout=subprocess.PIPE) as sending:
            assert answer(sending) == (0, b"hello", b"")
        assert server.wait(TIMEOUT) == 0


@needs_root
def test_spawn_starts_a_server_at_the_first_place(real, user):
    for is_set in (True, False):
        env, first, _ = real.in_order(is_set)
        command = "echo $SIPC_PATH >&2; exit 1"
        words = ("send", "-d", "hello", "--spawn", command)
        with running(user, *words, env=env, stdout=subprocess.PIPE) as client:
            assert f"and wrote: {first}: " in answer(client)[2].decode()
