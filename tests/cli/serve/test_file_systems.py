"""Systems without hard links, sockets, O_PATH or /proc, or where a link is a second inode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.background import Background
from helpers.command import SIPC, assert_error_line, environment, needs_root, sipc
from helpers.injection import needs_strace
from helpers.inprocess_cli import run_cli
from helpers.procfs import children, processes
from helpers.server import Server
from helpers.spawning import Spawning
from helpers.waiting import wait_until
from helpers.wire import ask, connect


def with_strace(test):
    for mark in needs_strace:
        test = mark(test)
    return test


WITHOUT_PROC = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"]
WITHOUT_O_PATH = """
import os, sys
del os.O_PATH
sys.argv[0] = "sipc"
from simpleipc_cli.cli import main
main()
"""


@contextmanager
def mounted(program: str, folder: Path):
    """Mount a file system that a process implements, over FUSE."""
    real, here = folder / "real", folder / "here"
    real.mkdir()
    here.mkdir()
    subprocess.run([program, real, here], check=True, stdin=subprocess.DEVNULL)
    try:
        yield here
        assert os.listdir(real) == []
    finally:
        subprocess.run(["umount", "-l", here], check=True)


@pytest.fixture(params=["bindfs", "mergerfs"])
def fuse_folder(request, folder):
    """On both, link(2) creates a name at which no client can connect to the socket."""
    if shutil.which(request.param) is None or not os.path.exists("/dev/fuse"):
        pytest.skip(f"mounts a FUSE file system: /dev/fuse, and {request.param}")
    with mounted(request.param, folder) as here:
        yield here


@needs_root
@pytest.mark.parametrize("mode", ["0600", "0666"])
def test_on_fuse_clients_reach_a_server_and_no_second_server_starts(fuse_folder, mode):
    path = fuse_folder / "sock"
    pid_file = fuse_folder / "pid"
    options = ["--pid-file", pid_file, "--mode", mode]
    with Server(path, "cat", *options) as server:
        assert ask(path, b"hello") == (b"hello", True)
        assert_error_line(run_cli("serve", path, "--exec", "cat"), 9)
        done = run_cli("serve", fuse_folder / "2", "--exec", "cat", "--pid-file", pid_file)
        assert_error_line(done, 9, f"process {server.pid}")
        assert ask(path, b"hello") == (b"hello", True)
        assert server.stop() == 0


@needs_root
def test_on_fuse_a_stale_socket_and_pid_file_are_replaced(fuse_folder):
    path = fuse_folder / "sock"
    options = ["--pid-file", fuse_folder / "pid"]
    with Server(path, "cat", *options) as server:
        server.kill()
    assert path.exists()
    with Server(path, "cat", *options):
        assert ask(path, b"hello") == (b"hello", True)


def injecting(fault: str, folder) -> list[str]:
    """A wrapper: some system calls of a program fail."""
    call = fault.split(":", maxsplit=1)[0]
    trace = ["-o", str(folder / "trace"), "-e", f"trace={call}", "-e", f"inject={fault}"]
    return ["strace", "-f", "-qq", *trace]


@pytest.mark.parametrize("error", ["EACCES", "EPERM", "ENOSYS"])
@with_strace
def test_a_server_needs_no_hard_links(endpoint, folder, error):
    wrapper = injecting(f"link,linkat:error={error}", folder)
    with Server(endpoint, "cat", "--pid-file", folder / "pid", wrapper=wrapper) as server:
        (traced,) = children(server.pid)
        assert (folder / "pid").read_text() == f"{traced}\n"
        assert ask(endpoint, b"hello") == (b"hello", True)
        os.kill(traced, 15)
        assert server.wait() == 0
    assert os.listdir(folder) == ["trace"]


@with_strace
def test_a_file_system_that_cannot_hold_a_socket_is_reported_before_listening(endpoint, folder):
    """A server that starts calls connect(2) only to check that clients find its socket."""
    wrapper = injecting("connect:error=ECONNREFUSED", folder)
    serve = [SIPC, "serve", str(endpoint), "--exec", "cat"]
    done = subprocess.run([*wrapper, *serve], capture_output=True, env=environment())
    assert_error_line(done, 5, str(endpoint), "cannot hold a socket", "another file system")
    assert os.listdir(folder) == ["trace"]
    assert "EPROTOTYPE" not in (folder / "trace").read_text()


def test_clients_that_fill_the_backlog_do_not_prevent_the_start_of_a_server(endpoint, folder):
    """The server's check of its own socket is no connection, and needs no backlog."""
    with Server(endpoint, "cat", "--backlog", "1") as server, connect(endpoint):
        assert server.counters()["accepted"] == 1


@needs_root
def test_without_proc_every_verb_works(endpoint):
    with Server(endpoint, "cat", wrapper=WITHOUT_PROC):
        for verb in ("send", "probe"):
            done = subprocess.run(
                [*WITHOUT_PROC, SIPC, verb, endpoint, "-d", "hello"],
                capture_output=True,
                env=environment(),
            )
            assert done.returncode == 0, done.stderr


@needs_root
def test_without_proc_a_server_starts_in_the_background_and_a_client_starts_a_server(
    endpoint, folder
):
    with Background(endpoint) as background:
        command = [*WITHOUT_PROC, SIPC, *background.arguments()]
        done = subprocess.run(command, capture_output=True, env=background.environment())
        assert done.returncode == 0, done.stderr
        assert ask(endpoint, b"hello") == (b"hello", True)
    with Spawning(endpoint) as spawning:
        command = [*WITHOUT_PROC, *spawning.command("sipc serve --exec cat", "-d", "x")]
        done = subprocess.run(command, capture_output=True, env=spawning.environment())
        assert (done.returncode, done.stdout) == (0, b"x"), done.stderr


@needs_root
def test_without_proc_a_long_path_gets_a_short_name_that_is_removed(folder):
    temporary = folder / "temporary"
    temporary.mkdir()
    env = environment(TMPDIR=str(temporary))
    path = folder / ("d" * 200) / ("n" * 255)
    path.parent.mkdir()
    with Server(path, "cat", wrapper=WITHOUT_PROC, env=env):
        send = [*WITHOUT_PROC, SIPC, "send", path, "-d", "hello"]
        done = subprocess.run(send, capture_output=True, env=env)
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
        assert os.listdir(temporary) == []
    assert os.listdir(path.parent) == []


@needs_root
def test_without_proc_no_process_of_a_handler_outlives_its_request(endpoint, folder):
    """The process ignores SIGTERM. The folder /proc exists, but is empty."""
    command = f"mkfifo {folder}/ready; (trap '' TERM; echo >{folder}/ready; exec sleep 1000) & "
    command = f"exec >/dev/null; {command} read -r _ <{folder}/ready"
    with Server(endpoint, command, "--kill-after", "100ms", wrapper=WITHOUT_PROC) as server:
        assert ask(endpoint, b"") == (b"", True)
        wait_until(lambda: set(processes(server.mark)) == {server.pid}, "its end")
        (folder / "ready").unlink()


@needs_root
def test_an_error_about_the_short_name_is_not_reported_as_an_error_about_the_path(folder):
    """The path exists; only the folder for temporary files is missing."""
    path = folder / ("n" * 200)
    path.touch()
    code = f"import tempfile; tempfile.tempdir = {str(folder / 'missing')!r}\n"
    done = subprocess.run(
        [*WITHOUT_PROC, sys.executable, "-c", code + WITHOUT_O_PATH, "send", path, "-d", "x"],
        capture_output=True,
        env=environment(),
    )
    assert_error_line(
        done, 1, f"cannot create a short name for {path}: no such file", "a shorter path"
    )


def test_without_o_path_every_verb_works(folder):
    program = (sys.executable, "-c", WITHOUT_O_PATH)
    for name in ("sock", "n" * 255):
        path = folder / name
        with Server(path, "cat", program=program):
            for verb in ("send", "probe"):
                done = subprocess.run(
                    [*program, verb, path, "-d", "hello"], capture_output=True, env=environment()
                )
                assert done.returncode == 0, done.stderr
            assert_error_line(sipc("serve", path, "--exec", "cat"), 9)
    assert os.listdir(folder) == []
