"""`sipc send --spawn`: one server for many clients, and the environment of its command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import SIPC, assert_error_line, needs_root, sipc
from helpers.gate import Gate
from helpers.inprocess_cli import run_cli
from helpers.procfs import children, descriptors, state
from helpers.sending import EchoServer
from helpers.server import Server
from helpers.soak import SOAK, soak
from helpers.sockets import busy_listener, stale_socket
from helpers.spawning import SERVE, Spawning
from helpers.terminal import terminal
from helpers.users import as_nobody
from helpers.waiting import wait_until
from helpers.wire import ask, pid_of_listener

from simpleipc_cli.cli.send import run as send_run

ROUNDS = (SOAK + 2) // 3  # repetitions of a test that starts many programs
COUNTED = f"echo started >>starts; {SERVE}"


@pytest.mark.parametrize("before", ["nothing", "stale socket", "not yet listening"])
def test_a_missing_server_is_started_once_and_gets_the_requests(spawning, endpoint, folder, before):
    with socket.socket(socket.AF_UNIX) as other:
        if before == "stale socket":
            stale_socket(endpoint)
        elif before == "not yet listening":
            other.bind(str(endpoint))
        for run in (sipc, run_cli, run_cli):
            done = spawning.send(COUNTED, run=run, cwd=folder)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")
    assert spawning.lines("starts") == ["started"]
    assert sorted(os.listdir(folder)) == ["sock", "starts"]


def test_a_request_from_standard_input_is_sent_exactly_once(spawning, folder):
    line = "exec sipc serve -q --exec 'echo run >>runs; cat'"
    payload = os.urandom(1_000_000)
    arguments = spawning.command(line)[1:]
    done = run_cli(*arguments, input=payload, env=spawning.environment(), cwd=folder)
    assert (done.returncode, done.stdout) == (0, payload)
    assert spawning.lines("runs") == ["run"]


def test_spawn_starts_nothing_and_loads_no_module_if_a_server_listens(endpoint, folder):
    with EchoServer(endpoint):
        command = [sys.executable, "-X", "importtime", SIPC, "send", endpoint, "-d", "x"]
        done = subprocess.run([*command, "--spawn", "touch here"], capture_output=True, cwd=folder)
    assert done.stdout == b"x"
    assert b"simpleipc_cli.client" in done.stderr
    for name in (b"autostart", b"process", b"unix.lock"):
        assert name not in done.stderr
    assert os.listdir(folder) == ["sock"]


@pytest.mark.parametrize("wait", [[], ["--wait", "50ms"]], ids=["without --wait", "with --wait"])
def test_spawn_starts_no_server_if_one_is_busy(endpoint, folder, monkeypatch, wait):
    """Without --wait, --connect-timeout limits the wait for room in the backlog."""
    monkeypatch.setattr(send_run, "START_TIMEOUT", 3600.0)
    with busy_listener(endpoint):
        options = ["--spawn", "touch here", "--connect-timeout", "20ms", *wait]
        done = run_cli("send", endpoint, "-d", "x", *options, cwd=folder)
    assert_error_line(done, 3, "busy")
    assert os.listdir(folder) == ["sock"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("file", 5), ("dir", 5), ("", 5), ("missing/", 5), ("loop", 5), ("n" * 256, 5),
        ("missing/sock", 4), ("file/sock", 5),
    ],
    ids=["file", "folder", "empty", "slash", "loop", "long name", "no folder", "below a file"],
)  # fmt: skip
def test_no_server_is_started_at_a_path_that_no_server_can_use(folder, path, status):
    (folder / "file").write_text("precious")
    (folder / "dir").mkdir()
    (folder / "loop").symlink_to("loop")
    done = run_cli("send", path, "-d", "x", "--spawn", "touch here", cwd=folder)
    assert_error_line(done, status)
    assert sorted(os.listdir(folder)) == ["dir", "file", "loop"]


@needs_root
def test_a_client_without_permission_to_connect_starts_nothing(endpoint, folder):
    folder.chmod(0o777)
    with EchoServer(endpoint):
        done = as_nobody("send", endpoint, "-d", "x", "--spawn", "touch here", cwd=folder)
    assert_error_line(done, 8, str(endpoint))
    assert os.listdir(folder) == ["sock"]


@needs_root
@pytest.mark.parametrize("before", ["nothing", "stale socket"])
def test_nothing_is_started_in_a_folder_that_may_not_be_written_to(folder, endpoint, before):
    folder.chmod(0o755)
    if before == "stale socket":
        stale_socket(endpoint)
        endpoint.chmod(0o666)
    done = as_nobody("send", endpoint, "-d", "x", "--spawn", "touch /tmp/sipc-test-here")
    assert_error_line(done, 8, f"cannot start a server without its lock {folder}/", "permission")
    assert not os.path.exists("/tmp/sipc-test-here")
    assert os.listdir(folder) == (["sock"] if before == "stale socket" else [])


@pytest.mark.parametrize(
    ("before", "count", "rounds"),
    [
        ("nothing", 5, 1),
        soak("nothing", 50, ROUNDS),
        soak("stale socket", 50, ROUNDS),
        soak("left lock", 50, ROUNDS),
    ],
)
def test_simultaneous_clients_start_one_server_and_all_get_responses(
    endpoint, folder, before, count, rounds
):
    for _ in range(rounds):
        with Spawning(endpoint) as spawning:
            if before == "stale socket":
                stale_socket(endpoint)
            elif before == "left lock":
                (folder / f".sipc-spawn-{os.geteuid()}-sock").touch()
            clients = [
                spawning.start(COUNTED, data=f"{number}", cwd=folder) for number in range(count)
            ]
            responses = [client.communicate() for client in clients]
            assert responses == [(b"%d" % number, b"") for number in range(count)]
            assert [client.returncode for client in clients] == [0] * count
            assert spawning.lines("starts") == ["started"]
        (folder / "starts").unlink()
        assert os.listdir(folder) == []


OF_GLIBC = 0b11 << 31  # signals 32 and 33 are its own, and its posix_spawn ignores them


# Describes the shell that starts it: a description of itself would change the result.
REPORT = """
import json, os
from pathlib import Path
shell = Path(f"/proc/{os.getppid()}")
while (shell / "stat").read_text().rpartition(")")[2].split()[0] != "S":
    pass  # dash blocks signals until it waits for this process
status = dict(line.split(":\\t") for line in (shell / "status").read_text().splitlines())
group, session, terminal = map(int, (shell / "stat").read_text().rpartition(")")[2].split()[2:5])
report = {
    "cwd": os.getcwd(),
    "path": os.environ["SIPC_PATH"],
    "kept": os.environ["KEPT"],
    "blocked": int(status["SigBlk"], 16),
    "ignored": int(status["SigIgn"], 16),
    "leads": group == session == os.getppid() and terminal == 0,
    "files": {name: os.readlink(shell / "fd" / name) for name in os.listdir(shell / "fd")},
}
print(json.dumps(report), file=open("report", "w"))
"""


def test_the_command_inherits_folder_and_environment_and_nothing_else(spawning, folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "report.py").write_text(REPORT)
    command = spawning.command(f"{sys.executable} report.py; {SERVE}", "-d", "x")
    command[command.index(spawning.path)] = "../deep/../sock"
    reader, writer = os.pipe()
    done = subprocess.run(
        ["env", "--ignore-signal=INT", "--block-signal=TERM", *command],
        env=spawning.environment(KEPT="ke\npt\udcff", SIPC_PATH="/elsewhere"),
        cwd=folder / "deep",
        capture_output=True,
        pass_fds=[writer],
    )
    os.close(writer)
    assert done.stdout == b"x", done.stderr
    assert os.read(reader, 1) == b"", (
        "the server still has a descriptor that was passed to the client"
    )
    os.close(reader)
    report = json.loads((folder / "deep" / "report").read_text())
    errors = report["files"].pop("2")
    report["ignored"] &= ~OF_GLIBC
    assert report == {
        "cwd": f"{folder}/deep",
        "path": f"{folder}/sock",
        "kept": "ke\npt\udcff",
        "blocked": 0,
        "ignored": 0,
        "leads": True,
        "files": {"0": "/dev/null", "1": "/dev/null"},
    }
    assert errors.startswith("pipe:")


def test_without_a_path_the_server_listens_at_the_default_endpoint(folder):
    with Spawning(folder / "sipc.sock") as spawning:
        env = spawning.environment(XDG_RUNTIME_DIR=str(folder))
        for _ in range(2):
            options = ["--spawn", COUNTED, "--wait", "1h"]
            done = run_cli("send", "-d", "x", *options, env=env, cwd=folder)
            assert (done.returncode, done.stdout) == (0, b"x"), done.stderr
        assert spawning.lines("starts") == ["started"]


def test_a_symlink_leads_client_and_server_to_the_same_endpoint(spawning, endpoint, folder):
    """Servers refuse symlinks: so they get the path to which the symlink leads."""
    (folder / "link").symlink_to("sock")
    options = ["--spawn", COUNTED, "--wait", "1h"]
    for name in ("link", "sock"):
        env = spawning.environment()
        done = run_cli("send", folder / name, "-d", "x", *options, env=env, cwd=folder)
        assert (done.returncode, done.stdout) == (0, b"x"), done.stderr
    assert spawning.lines("starts") == ["started"]
    assert endpoint.is_socket()


@pytest.mark.parametrize("name", ["n" * 255, "new\nline\udcff"], ids=["long", "unusual"])
def test_the_name_of_an_endpoint_may_be_long_and_unusual(folder, name):
    with Spawning(folder / name) as spawning:
        assert spawning.send(SERVE).stdout == b"hello"
    assert os.listdir(folder) == []


def test_one_word_that_names_a_script_in_the_folder_is_started(spawning, script, folder):
    script(f"#!/bin/sh\n{SERVE}\n", "start.sh")
    assert spawning.send("start.sh", cwd=folder).stdout == b"hello"


def test_a_command_substitution_ends_though_the_server_keeps_running(spawning, endpoint):
    options = '-d hello --wait 1h --spawn "$0"'
    line = f'out=$({SIPC} send {endpoint} {options} 2>&1); echo "got $out"'
    command = ["sh", "-c", line, SERVE]
    done = subprocess.run(command, capture_output=True, env=spawning.environment())
    assert done.stdout == b"got hello\n"
    assert ask(endpoint, b"again") == (b"again", True)


def test_the_server_outlives_the_terminal(spawning, endpoint):
    command = f"{SIPC} send {endpoint} -d hello --wait 1h --spawn '{SERVE}'; read -r line"
    with (
        terminal(reading=False) as tty,  # a thread that reads would prevent the hang-up
        tty.start(["sh", "-c", command], env=spawning.environment()) as shell,
    ):
        shown = b""
        while b"hello" not in shown:
            shown += os.read(tty.master, 100)
        server = pid_of_listener(endpoint)
        tty.hang_up()  # SIGHUP for all processes whose controlling terminal it is
        assert shell.wait() == -signal.SIGHUP
    assert ask(endpoint, b"again") == (b"again", True)
    assert pid_of_listener(endpoint) == server


def test_a_server_that_logs_a_lot_later_is_neither_blocked_nor_ended(spawning, endpoint):
    line = "exec sipc serve -q --exec 'head -c 1000000 /dev/zero >&2 && cat'"
    assert spawning.send(line).stdout == b"hello"
    for _ in range(3):
        assert ask(endpoint, b"again") == (b"again", True)


def test_the_server_inherits_only_standard_streams(spawning, endpoint, folder):
    assert spawning.send(SERVE, run=sipc).stdout == b"hello"
    server = pid_of_listener(endpoint)
    with Server(folder / "other", "cat") as other:
        wait_until(lambda: kinds(server) == kinds(other.pid), "the usual ones and no more")


def kinds(pid: int) -> list[str]:
    return sorted(link.partition("[")[0] for link in descriptors(pid))


def test_a_running_client_has_no_zombie_and_no_child_except_a_running_server(spawning, folder):
    """Also if the server ends, here directly after it has accepted."""
    (folder / "server.py").write_text(SHORT_LIVED)
    line = f"exec {sys.executable} -IS server.py"
    with Gate(folder / "go") as gate, spawning.start(line, cwd=folder) as client:
        spawning.wait_for_lines("accepted", 1)
        wait_until(lambda: not children(client.pid), "no child, and no zombie")
        gate.open()
        assert client.communicate()[0] == b"late"
        assert client.returncode == 0


# A server that accepts and ends, while a process that it has started answers.
SHORT_LIVED = """
import os, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.environ["SIPC_PATH"])
listener.listen()
connection, _ = listener.accept()
if os.fork() == 0:
    print("x", file=open("accepted", "w"))
    open("go").readline()
    connection.recv(100)
    connection.sendall(b"0008late0000")
    os.unlink(os.environ["SIPC_PATH"])
"""


def test_send_waits_for_a_command_that_leaves_its_server_in_the_background(spawning, folder):
    line = "sipc serve -q --exec 'read line <go; cat' & exit 0"
    with Gate(folder / "go") as gate, spawning.start(line, cwd=folder) as client:
        wait_until(lambda: Path(spawning.path).exists() and not children(client.pid), "no zombie")
        gate.open()
        assert client.communicate()[0] == b"hello"
        assert client.returncode == 0


def test_a_command_that_fails_because_another_server_listens_is_no_failure(
    spawning, endpoint, folder
):
    """The command ends with status 9, which the client, stopped until then, sees first."""
    line = (
        "kill -STOP $PPID; touch begun; setsid sipc serve -q --exec cat & "
        "sipc probe -q --wait 1h && exec sipc serve --exec cat"
    )
    with spawning.start(line, cwd=folder) as client:
        wait_until((folder / "begun").exists, "the client to be stopped")
        wait_until(lambda: list(map(state, children(client.pid))) == ["Z"], "its end")
        client.send_signal(signal.SIGCONT)
        assert client.communicate() == (b"hello", b"")
        assert client.returncode == 0
    assert ask(endpoint, b"again") == (b"again", True)


def test_send_connects_again_until_the_server_accepts(spawning, folder):
    (folder / "server.pl").write_text(SLOW_SERVER)
    done = spawning.send("exec perl server.pl 0", cwd=folder)
    assert (done.returncode, done.stdout) == (0, b"done"), done.stderr


@needs_root
def test_send_waits_for_a_socket_whose_mode_is_set_later(spawning, endpoint, folder):
    folder.chmod(0o777)
    (folder / "server.pl").write_text(SLOW_SERVER)
    options = ["--spawn", "exec perl server.pl 0777", "--wait", "1h"]
    done = as_nobody("send", endpoint, "-d", "x", *options, cwd=folder)
    assert (done.returncode, done.stdout) == (0, b"done"), done.stderr


# Binds with one umask, then listens, then sets the mode, and serves one connection.
SLOW_SERVER = """
use Socket;
umask oct $ARGV[0];
socket(my $listener, AF_UNIX, SOCK_STREAM, 0) or die;
bind($listener, pack_sockaddr_un($ENV{SIPC_PATH})) or die;
select undef, undef, undef, 0.2;
listen($listener, 5);
select undef, undef, undef, 0.2;
chmod 0700, $ENV{SIPC_PATH};
accept(my $connection, $listener);
sysread $connection, my $request, 100;
unlink $ENV{SIPC_PATH};
syswrite $connection, "0008done0000";
"""


def test_a_truncated_response_starts_no_second_server(spawning, folder):
    line = "echo started >>starts; exec sipc serve -q --exec 'cat; exit 3'"
    done = spawning.send(line, cwd=folder)
    assert done.returncode == 7
    assert spawning.lines("starts") == ["started"]


def test_an_empty_command_is_a_usage_error(endpoint):
    done = run_cli("send", endpoint, "-d", "x", "--spawn", " ")
    assert done.returncode == 2
    assert b"--spawn is empty" in done.stderr
