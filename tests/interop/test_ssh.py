"""An endpoint on another machine, reached through OpenSSH's forwarding of Unix sockets."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager

import pytest
from helpers.command import SIPC, Program, needs_root, sipc
from helpers.procfs import children
from helpers.server import Server
from helpers.soak import soak
from helpers.sshd import SSHD, Sshd
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import connect, decode, message

pytestmark = [
    needs_root,
    pytest.mark.skipif(SSHD is None, reason="needs sshd: apt-get install openssh-server"),
]


@pytest.fixture
def sshd(folder):
    place = folder / "ssh"
    place.mkdir()
    with Sshd(place) as running:
        yield running


@contextmanager
def forwarded(sshd: Sshd, *options):
    """Run an `ssh -N` that forwards a socket; wait until it does."""
    more = ["-o", "ExitOnForwardFailure=yes"]
    with Program(["ssh", "-F", sshd.client_config, "-N", *more, *options, "server"]) as ssh:
        yield ssh
        ssh.terminate()
        ssh.wait(TIMEOUT)


def directions(remote, local) -> list:
    """Options that forward `local` to `remote`, for either machine to listen."""
    return [["-L", f"{local}:{remote}"], ["-R", f"{local}:{remote}"]]


@pytest.mark.parametrize("megabytes", [4, soak(50)])
@pytest.mark.parametrize("way", [0, 1], ids=["-L", "-R"])
def test_large_requests_and_responses_pass_through_ssh(sshd, endpoint, folder, way, megabytes):
    request = os.urandom(1 << 20) * megabytes
    here = folder / "here.sock"
    with Server(endpoint, "cat"), forwarded(sshd, *directions(endpoint, here)[way]):
        assert sipc("probe", "--wait", f"{TIMEOUT}s", here).returncode == 0
        done = sipc("send", here, input=request)
        assert done.returncode == 0, done.stderr
        assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(request).digest()


@pytest.mark.parametrize("way", [0, 1], ids=["-L", "-R"])
def test_failures_pass_through_ssh(sshd, endpoint, folder, way):
    here = folder / "here.sock"
    with Server(endpoint, "echo half; exit 3"), forwarded(sshd, *directions(endpoint, here)[way]):
        assert sipc("probe", "--wait", f"{TIMEOUT}s", here).returncode == 0
        done = sipc("send", here, "-d", "hello")
        assert (done.returncode, done.stdout) == (7, b"half\n")


@pytest.mark.parametrize("way", [0, 1], ids=["-L", "-R"])
def test_the_server_notices_a_client_that_closed_through_ssh_at_its_next_write(
    sshd, endpoint, folder, way
):
    """ssh forwards a close as a half-close, and notices it only when a write fails."""
    here = folder / "here.sock"
    os.mkfifo(folder / "go")
    command = f"touch {folder}/begun; read -r _ <{folder}/go; exec yes"
    with Server(endpoint, command) as server, forwarded(sshd, *directions(endpoint, here)[way]):
        assert sipc("probe", "--wait", f"{TIMEOUT}s", here).returncode == 0
        with connect(here) as client:
            client.sendall(message(b"hello"))
            wait_until((folder / "begun").exists, "the handler to begin")
        (folder / "go").write_text("\n")
        server.wait_for_log("client closed")
        wait_until(lambda: not children(server.pid), "the handler to end")


@pytest.mark.parametrize(("command", "status"), [("cat", 0), ("cat; exit 3", 7)])
def test_ssh_runs_a_server_for_one_request(sshd, command, status):
    """As a forced command does."""
    remote = f"{SIPC} serve --stdio --exec '{command}'"
    done = sipc(
        "-T", "server", remote, input=message(b"hello"), program=["ssh", "-F", sshd.client_config]
    )
    assert (done.returncode, decode(done.stdout)) == (status, (b"hello", status == 0)), done.stderr


@pytest.mark.skipif(shutil.which("socat") is None, reason="needs socat: apt-get install socat")
def test_a_client_reaches_a_forced_command(sshd, endpoint):
    sshd.force(f"{SIPC} serve --stdio --exec cat")
    request = os.urandom(1 << 21)
    command = ["socat", f"UNIX-LISTEN:{endpoint},fork", f"EXEC:ssh -F {sshd.client_config} server"]
    with Program(command) as socat:
        for data in (b"", b"hello", request):
            done = sipc("send", "--wait", f"{TIMEOUT}s", endpoint, input=data)
            assert (done.returncode, done.stdout == data) == (0, True), done.stderr
        socat.terminate()
