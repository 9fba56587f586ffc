"""`sipc serve`: which users may connect, by the socket's group and by the peer's user."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import subprocess
import sys

import pytest
from helpers.command import SIPC, environment, needs_root, sipc
from helpers.inprocess_cli import run_cli
from helpers.server import Server
from helpers.users import NOBODY, as_nobody
from helpers.waiting import TIMEOUT
from helpers.wire import ask, connect, message, receive_all


def ask_as(user: int, path, payload: bytes) -> bytes:
    """Return the server's answer to another user; root may connect anywhere."""
    code = f"""
import os, socket, sys
os.setgroups([]); os.setgid({user}); os.setuid({user})
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout({TIMEOUT})
    client.connect(sys.argv[1])
    try:
        client.sendall({message(payload)!r})
        while piece := client.recv(1000):
            os.write(1, piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
"""
    command = [sys.executable, "-ISc", code, str(path)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_folder(folder):
    folder.chmod(0o755)
    return folder


@needs_root
def test_the_server_answers_only_allowed_users(endpoint, open_folder):
    handler = f"cat >>{open_folder}/received; echo done"
    with Server(endpoint, handler, "--allow-user", "nobody") as server:
        assert mode_of(endpoint) == 0o666
        assert ask_as(NOBODY, endpoint, b"mine") == message(b"done\n")
        assert ask_as(1234, endpoint, b"others") == b""
        server.wait_for_log("^refused uid=1234 pid=")
        with connect(endpoint) as client:  # as root, the user of the server
            assert receive_all(client) == b"", "closed without a response"
        server.wait_for_log(f"refused uid=0 pid={os.getpid()}: not allowed by --allow-user")
    assert (open_folder / "received").read_bytes() == b"mine"


@needs_root
def test_refused_connections_are_counted_and_logged_once_a_second(endpoint):
    with Server(endpoint, "cat", "--allow-user", "nobody") as server:
        for _ in range(500):
            with connect(endpoint) as client:
                assert receive_all(client) == b""
        server.wait_for_log("^refused uid=0 ")
        assert server.counters()["refused"] == 500
        assert server.stop() == 0
    lines = re.findall(r"^refused uid=0 pid=\d+: not allowed", server.log, re.M)
    counts = re.findall(r"^refused uid=0 (\d+) more times: not allowed by", server.log, re.M)
    assert len(lines) + sum(map(int, counts)) == 500
    assert len(lines) < 250


@needs_root
def test_several_users_may_be_allowed(endpoint, open_folder):
    options = ["--allow-user", "nobody", "--allow-user", "0"]
    with Server(endpoint, "cat", *options):
        assert ask(endpoint, b"root") == (b"root", True)
        assert ask_as(NOBODY, endpoint, b"nobody") == message(b"nobody")
        assert ask_as(1234, endpoint, b"x") == b""


@needs_root
def test_send_reports_a_refused_connection(shared_server):
    done = sipc("send", shared_server("cat", "--allow-user", "nobody").path, "-d", "hello")
    assert done.returncode == 7
    assert done.stdout == b""
    assert re.fullmatch(rb"sipc send: [^\n]+\n", done.stderr)


@needs_root
def test_refused_connections_occupy_no_descriptor(shared_server):
    server = shared_server("cat", "--allow-user", "nobody")
    for _ in range(20):
        with connect(server.path) as client:
            assert receive_all(client) == b""
    assert server.connections() == []


def test_an_explicit_mode_overrides_the_default_of_allow_user(endpoint):
    with Server(endpoint, "cat", "--allow-user", str(os.getuid()), "--mode", "0640"):
        assert mode_of(endpoint) == 0o640
        assert ask(endpoint, b"hello") == (b"hello", True)


@needs_root
def test_the_socket_gets_the_given_group(endpoint, open_folder):
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    with Server(endpoint, "cat", "--group", group.gr_name):
        assert endpoint.stat().st_gid == group.gr_gid
        assert mode_of(endpoint) == 0o660
        assert ask_as(NOBODY, endpoint, b"hello") == message(b"hello")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--allow-user", "no-such-user"),
        ("--allow-user", "-1"),
        ("--allow-user", "4294967295"),
        ("--allow-user", ""),
        ("--group", "no-such-group"),
        ("--group", "4294967296"),
    ],
)
def test_unknown_users_and_groups_are_usage_errors(endpoint, option, value):
    done = run_cli("serve", endpoint, "--exec", "cat", option, value)
    assert done.returncode == 2
    assert b"there is no" in done.stderr
    assert not endpoint.exists()


NAMESPACE = ["unshare", "--user"]
needs_namespaces = pytest.mark.skipif(
    subprocess.run(["sh", "-c", "unshare --user true"], capture_output=True).returncode != 0,
    reason="makes user namespaces",
)


@needs_namespaces
@pytest.mark.parametrize("options", [[], ["--map-root-user"]], ids=["no user", "root"])
def test_the_user_id_of_all_unmapped_users_cannot_be_allowed(endpoint, options):
    """The kernel reports this user id for every user that the namespace does not know."""
    serve = [SIPC, "serve", endpoint, "--exec", "cat", "--allow-user", "65534"]
    done = subprocess.run([*NAMESPACE, *options, *serve], capture_output=True, env=environment())
    assert done.returncode == 2
    assert b"uid 65534 stands for every user that is unknown" in done.stderr
    assert not endpoint.exists()


@needs_namespaces
def test_the_default_folder_is_refused_if_its_owner_is_unknown(folder):
    """The folder of the default path must belong to this user."""
    code = f"from simpleipc_cli.endpoint import Endpoint\nfolder = {str(folder)!r}\n"
    code += "Endpoint(folder + '/sock', folder, 65534).connect(None)"
    done = subprocess.run([*NAMESPACE, sys.executable, "-c", code], capture_output=True)
    assert b"PermissionDenied" in done.stderr
    assert b"may belong to another user" in done.stderr


@needs_root
def test_a_group_without_membership_is_refused_and_leaves_no_file(open_folder):
    open_folder.chmod(0o777)
    arguments = ["serve", open_folder / "sock", "--exec", "cat", "--group", "0"]
    done = as_nobody(*arguments)
    assert done.returncode == 8
    assert re.fullmatch(
        rb"sipc serve: [^\n]+ cannot be given to group 0: name [^\n]+\n", done.stderr
    )
    assert os.listdir(open_folder) == []


@needs_root
def test_mode_and_group_are_set_before_the_socket_appears_at_its_path(endpoint, open_folder):
    """A process that polls the path sees no other mode and group."""
    watcher = """
import os, sys
print(flush=True)
while True:
    try:
        found = os.stat(sys.argv[1])
    except FileNotFoundError:
        continue
    print(oct(found.st_mode & 0o777), found.st_gid)
    break
"""
    command = [sys.executable, "-ISc", watcher, str(endpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looking:
        looking.stdout.readline()
        with Server(endpoint, "cat", "--group", NOBODY, "--mode", "0620"):
            assert looking.stdout.readline() == f"0o620 {NOBODY}\n"
