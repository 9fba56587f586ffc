"""`sipc serve --pid-file`: the process id in the file, and the files that it replaces."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from helpers.background import Background
from helpers.command import (
    Program,
    assert_error_line,
    environment,
    needs_root,
    started_at_once,
)
from helpers.inprocess_cli import run_cli
from helpers.mounts import small_disk
from helpers.patience import LOCK, without_limits
from helpers.server import Server
from helpers.soak import SOAK, soak
from helpers.users import NOBODY, as_nobody, become
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, receive_all

from simpleipc_cli.process.posix.pidfile import PidFile


@pytest.fixture
def pid_file(folder):
    return folder / "pid"


def refused(endpoint, pid_file, *options, **more) -> subprocess.CompletedProcess[bytes]:
    """Run a `sipc serve` that must not start."""
    return run_cli("serve", endpoint, "--exec", "cat", "--pid-file", pid_file, *options, **more)


def a_dead_pid() -> int:
    with subprocess.Popen("true") as ended:
        pass
    return ended.pid


def test_the_pid_file_holds_the_servers_pid_while_the_server_runs(endpoint, pid_file):
    with Server(endpoint, "cat", "--pid-file", pid_file, umask=0o777) as server:
        assert pid_file.read_bytes() == b"%d\n" % server.pid
        assert stat.S_IMODE(pid_file.stat().st_mode) == 0o644
        assert server.stop() == 0
        assert not pid_file.exists()


def test_the_pid_file_is_complete_before_the_server_takes_the_path(endpoint, pid_file, folder):
    lock = folder / "sock.lock"
    lock.touch()
    command = [*without_limits(*LOCK), *serve_with(endpoint, pid_file)]
    with Program(command, env=environment()) as server:
        found = wait_until(lambda: pid_file.exists() and pid_file.read_bytes(), "the pid file")
        assert found == b"%d\n" % server.pid
        assert not endpoint.exists()
        server.terminate()
        assert server.wait() == 143
    assert os.listdir(folder) == ["sock.lock"]


def serve_with(endpoint, pid_file) -> list[str]:
    return ["serve", str(endpoint), "--exec", "cat", "--pid-file", str(pid_file)]


def test_the_pid_file_of_a_server_in_the_background_holds_the_servers_pid(endpoint, pid_file):
    with Background(endpoint) as background:
        background.serve("--pid-file", pid_file)
        (left,) = background.left()
        assert pid_file.read_bytes() == b"%d\n" % left


def test_the_pid_file_of_a_running_server_is_not_replaced(endpoint, folder, pid_file):
    with Server(endpoint, "cat", "--pid-file", pid_file) as server:
        assert_error_line(
            refused(folder / "other", pid_file), 9, f"process {server.pid}", str(pid_file)
        )
        assert pid_file.read_bytes() == b"%d\n" % server.pid
        assert sorted(os.listdir(folder)) == ["pid", "sock"]


def test_a_draining_server_keeps_its_pid_file(endpoint, folder, pid_file, gate):
    command = f": >{folder}/begun; {gate.wait}; cat"
    with Server(endpoint, command, "--pid-file", pid_file) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"x"))
            wait_until((folder / "begun").exists, "the handler to begin")
            server.signal()
            wait_until(lambda: not endpoint.exists(), "the stop to begin")
            assert_error_line(refused(endpoint, pid_file), 9, f"process {server.pid}")
            gate.open()
            assert decode(receive_all(client)) == (b"x", True)
        assert server.wait() == 0
        assert not pid_file.exists()


@pytest.mark.parametrize("content", ["dead", "live", "", "12345678901234567890", " 7 "])
def test_a_pid_file_that_is_not_locked_is_replaced(pid_file, content):
    """Also if another process now has this process id."""
    numbers = {"dead": a_dead_pid(), "live": os.getppid()}
    pid_file.write_text(str(numbers.get(content, content)))
    with PidFile(str(pid_file)):
        assert pid_file.read_bytes() == b"%d\n" % os.getpid()
    assert not pid_file.exists()


def test_a_locked_pid_file_with_any_number_is_not_replaced(endpoint, pid_file):
    """For example, the process id of a server in a container, which is another one here."""
    dead = a_dead_pid()
    pid_file.write_text(f"{dead}\n")
    with pid_file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert_error_line(refused(endpoint, pid_file), 9, f"process {dead}")
    assert pid_file.read_text() == f"{dead}\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("directory", "it is a directory"),
        ("notes", "it is not a pid file"),
        ("fifo", "it is not a pid file"),
        ("link", "it is a symbolic link"),
        ("missing/pid", "there is no folder"),
        ("notes/pid", "not a directory"),
        ("directory/", "cannot be the name"),
        ("", "cannot be the name"),
        ("x" * 300, "too long"),
    ],
)
def test_a_file_that_is_no_pid_file_is_reported_and_not_replaced(folder, endpoint, name, words):
    (folder / "directory").mkdir()
    (folder / "notes").write_text("12 precious words")
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("notes")
    before = sorted(os.listdir(folder))
    assert_error_line(refused(endpoint, name, cwd=folder), 1, words)
    assert sorted(os.listdir(folder)) == before
    assert (folder / "notes").read_text() == "12 precious words"


@needs_root
def test_the_pid_file_left_by_the_dead_server_of_another_user_is_replaced(folder):
    """In a folder of this user: for example, the server once ran as root."""
    pid_file = folder / "pid"
    pid_file.write_text(f"{a_dead_pid()}\n")
    os.chown(folder, NOBODY, -1)
    with become(NOBODY), PidFile(str(pid_file)):
        assert pid_file.read_bytes() == b"%d\n" % os.getpid()
        assert pid_file.stat().st_uid == NOBODY
    assert os.listdir(folder) == []


@needs_root
@pytest.mark.parametrize("what", ["folder", "file"])
def test_missing_permissions_for_the_pid_file_are_reported(folder, endpoint, pid_file, what):
    folder.chmod(0o755 if what == "folder" else 0o1777)
    if what == "file":
        pid_file.write_text("1\n")
    done = as_nobody(*serve_with("/tmp/sipc-no-such", pid_file))
    assert_error_line(done, 1, str(pid_file), "permi")
    assert os.listdir(folder) == (["pid"] if what == "file" else [])


@needs_root
def test_a_full_disk_is_reported_and_leaves_no_pid_file(folder, endpoint):
    with small_disk(folder / "full", "4k") as full:
        (full / "filler").write_bytes(b"all the room there is")
        assert_error_line(refused(endpoint, full / "pid"), 1, "no space", "free space")
        assert os.listdir(full) == ["filler"]


@pytest.mark.parametrize("how", ["removed", "replaced", "a directory"])
def test_a_file_of_another_program_at_the_path_of_the_pid_file_is_never_removed(pid_file, how):
    with PidFile(str(pid_file)):
        pid_file.unlink()
        if how == "replaced":
            pid_file.write_text("1\n")
        elif how == "a directory":
            pid_file.mkdir()
    assert pid_file.exists() == (how != "removed")


def test_a_server_that_cannot_start_leaves_no_pid_file(endpoint, folder, pid_file):
    endpoint.write_text("precious")
    assert_error_line(refused(endpoint, pid_file), 5)
    assert os.listdir(folder) == ["sock"]


def test_the_pid_file_of_a_killed_server_is_replaced_though_its_handler_still_runs(
    endpoint, pid_file, folder
):
    """A process left by a handler must not hold the lock of the server."""
    leave = "setsid sh -c 'echo $$ >left; exec sleep 1000' >/dev/null 2>&1 &"
    command = f"{leave} while [ ! -s left ]; do sleep .01; done"
    with Server(endpoint, command, "--pid-file", pid_file, cwd=folder) as server:
        assert ask(endpoint, b"") == (b"", True)
        server.signal(signal.SIGKILL)
        server.wait()
        assert pid_file.exists()
        try:
            with Server(endpoint, "cat", "--pid-file", pid_file) as another:
                assert pid_file.read_bytes() == b"%d\n" % another.pid
        finally:
            os.kill(int((folder / "left").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "before", "rounds"),
    [
        (2, "a dead server's", 1),
        *(
            soak(number, before, rounds)
            for number, rounds in ((2, SOAK), (8, 1))
            for before in ("nothing", "a dead server's")
        ),
    ],
)
def test_only_one_of_several_servers_that_start_with_one_pid_file_serves(
    folder, pid_file, number, before, rounds
):
    for _ in range(rounds):
        if before != "nothing":
            pid_file.write_text(f"{a_dead_pid()}\n")
        paths = [folder / f"sock{which}" for which in range(number)]
        program = without_limits("process.posix.pidfile._TIMEOUT")
        commands = [[*program, *serve_with(path, pid_file)] for path in paths]
        with started_at_once(commands) as (winner, losers):
            assert [server.returncode for server in losers] == [9] * (number - 1)
            for loser in losers:
                assert b"process %d," % winner.pid in loser.stderr.read()
            assert pid_file.read_bytes() == b"%d\n" % winner.pid
            assert winner.stderr.readline().startswith(b"listening on")
            winner.terminate()
            assert winner.wait() == 0
        assert os.listdir(folder) == []


@pytest.mark.parametrize("rounds", [1, soak(SOAK)])
def test_the_pid_file_is_removed_after_the_server_has_stopped(endpoint, pid_file, rounds):
    """A script can wait until the file is gone."""
    with Background(endpoint) as background:
        for _ in range(rounds):
            assert background.serve("--pid-file", pid_file).returncode == 0
            os.kill(int(Path(pid_file).read_text()), signal.SIGTERM)
            wait_until(lambda: not pid_file.exists(), "the pid file to go")
            assert not endpoint.exists()


def test_the_pid_file_and_the_log_file_must_differ(endpoint, folder):
    (folder / "link").symlink_to(folder / "both")
    options = ["--pid-file", folder / "both", "--log-file", folder / "link"]
    done = run_cli("serve", endpoint, "--exec", "cat", *options)
    assert done.returncode == 2
    assert b"--pid-file and --log-file are the same file" in done.stderr
    assert not (folder / "both").exists()
