"""`sipc send --spawn`: one server for many clients, and what it is started with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, assert_error_line, needs_root, sipc
from helpers.procfs import children, descriptors
from helpers.server import Server
from helpers.spawning import SERVE, Spawning
from helpers.terminal import terminal
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect

ROUNDS = (int(os.environ.get("SIPC_SOAK", "3")) + 2) // 3  # of what takes many programs
COUNTED = f"echo started >>starts; {SERVE}"


@pytest.fixture
def spawning(endpoint):
    with Spawning(endpoint) as it:
        yield it


def peer(path) -> int:
    """Who listens."""
    with connect(path) as connection:
        return int.from_bytes(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder
        )


def stale_socket(path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


@pytest.mark.parametrize("before", ["nothing", "stale socket", "not yet listening"])
def test_when_nobody_listens_a_server_is_started_and_asked(spawning, endpoint, folder, before):
    other = socket.socket(socket.AF_UNIX)
    if before == "stale socket":
        stale_socket(endpoint)
    elif before == "not yet listening":
        other.bind(str(endpoint))
    with other:
        for _ in range(3):
            done = spawning.send(COUNTED, cwd=folder)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")
    assert spawning.lines("starts") == ["started"]
    assert sorted(os.listdir(folder)) == ["sock", "starts"]


def test_a_request_from_standard_input_is_sent_exactly_once(spawning, folder):
    line = "exec sipc serve -q --exec 'echo run >>runs; cat'"
    payload = os.urandom(3_000_000)
    arguments = spawning.command(line)[1:]
    done = sipc(*arguments, input=payload, env=spawning.environment(), cwd=folder)
    assert (done.returncode, done.stdout) == (0, payload)
    assert spawning.lines("runs") == ["run"]


def test_nothing_is_started_nor_loaded_for_it_when_somebody_listens(endpoint, folder):
    with Server(endpoint, "cat"):
        command = [sys.executable, "-X", "importtime", SIPC, "send", endpoint, "-d", "x"]
        done = subprocess.run([*command, "--spawn", "touch here"], capture_output=True, cwd=folder)
    assert done.stdout == b"x"
    assert b"simpleipc_cli.client" in done.stderr
    for name in (b"ondemand", b"handlers", b"start_lock"):
        assert name not in done.stderr
    assert os.listdir(folder) == []


def test_a_busy_server_is_a_server(spawning, endpoint, folder):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            done = spawning.send("touch here", "--connect-timeout", "50ms", cwd=folder)
            assert_error_line(done, 3, "busy")
            limits = ["--connect-timeout", "50ms", "--wait", "200ms"]
            assert_error_line(spawning.send("touch here", *limits, cwd=folder), 3, "busy")
    assert os.listdir(folder) == ["sock"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("file", 5), ("dir", 5), ("", 5), ("missing/", 5), ("loop", 5), ("n" * 256, 5),
        ("missing/sock", 4), ("file/sock", 5),
    ],
    ids=["file", "folder", "empty", "slash", "loop", "long name", "no folder", "below a file"],
)  # fmt: skip
def test_where_no_server_can_be_none_is_started(folder, path, status):
    (folder / "file").write_text("precious")
    (folder / "dir").mkdir()
    (folder / "loop").symlink_to("loop")
    assert_error_line(sipc("send", path, "-d", "x", "--spawn", "touch here", cwd=folder), status)
    assert sorted(os.listdir(folder)) == ["dir", "file", "loop"]


def as_nobody(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
    """Run sipc as nobody; all is imported first, for nobody may be unable to read it."""
    code = "import difflib,os,resource,sys; sys.argv[0]='sipc';"
    code += "from simpleipc_cli.cli import main, app, send; import simpleipc_cli.ondemand;"
    code += "import simpleipc_cli.transport.unix_poll;"
    code += "os.setgroups([]); os.setgid(65534); os.setuid(65534); main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, input=b"", capture_output=True, timeout=60, **options)


@needs_root
def test_who_may_not_connect_starts_nothing(endpoint, folder):
    folder.chmod(0o777)
    with Server(endpoint, "cat"):
        done = as_nobody("send", endpoint, "-d", "x", "--spawn", "touch here", cwd=folder)
        assert_error_line(done, 8, str(endpoint))
    assert os.listdir(folder) == []


@needs_root
@pytest.mark.parametrize("before", ["nothing", "stale socket"])
def test_in_a_folder_one_may_not_write_to_nothing_is_started(folder, endpoint, before):
    folder.chmod(0o755)
    if before == "stale socket":
        stale_socket(endpoint)
        endpoint.chmod(0o666)
    done = as_nobody("send", endpoint, "-d", "x", "--spawn", "touch /tmp/sipc-test-here")
    assert_error_line(done, 8, f"cannot start a server in {folder}: permission denied")
    assert not os.path.exists("/tmp/sipc-test-here")
    assert os.listdir(folder) == (["sock"] if before == "stale socket" else [])


@pytest.mark.soak
@pytest.mark.parametrize("before", ["nothing", "stale socket", "left lock"])
def test_fifty_clients_at_once_start_one_server_and_all_get_answers(endpoint, folder, before):
    for _ in range(ROUNDS):
        with Spawning(endpoint) as spawning:
            if before == "stale socket":
                stale_socket(endpoint)
            elif before == "left lock":
                (folder / ".sipc-spawn-sock").touch()
            clients = [
                spawning.start(COUNTED, "--wait", "60s", data=f"{number}", cwd=folder)
                for number in range(50)
            ]
            answers = [client.communicate(timeout=100) for client in clients]
            assert answers == [(b"%d" % number, b"") for number in range(50)]
            assert [client.returncode for client in clients] == [0] * 50
            assert spawning.lines("starts") == ["started"]
        (folder / "starts").unlink()
        assert os.listdir(folder) == []


OF_GLIBC = 0b11 << 31  # signals 32 and 33 are its own, and its posix_spawn ignores them


# What a process looks like from outside: it could not look at itself without changing.
REPORT = """
import json, os
from pathlib import Path
shell = Path(f"/proc/{os.getppid()}")
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


def test_what_the_command_is_started_with(spawning, folder):
    """Its working directory and environment are ours, with the path; all else is fresh."""
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
        timeout=60,
    )
    os.close(writer)
    assert done.stdout == b"x", done.stderr
    assert os.read(reader, 1) == b"", "somebody still has what was passed to the client"
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


def test_without_a_path_client_and_server_meet_where_they_would(folder):
    path = folder / "sipc.sock"
    with Spawning(path) as spawning:
        env = spawning.environment(XDG_RUNTIME_DIR=str(folder))
        for _ in range(2):
            done = sipc("send", "-d", "x", "--spawn", COUNTED, env=env, cwd=folder)
            assert (done.returncode, done.stdout) == (0, b"x"), done.stderr
        assert spawning.lines("starts") == ["started"]


def test_a_link_leads_client_and_server_to_the_same_place(spawning, endpoint, folder):
    """Servers refuse links: so they are told what it leads to."""
    (folder / "link").symlink_to("sock")
    for name in ("link", "sock"):
        done = sipc(
            *("send", folder / name, "-d", "x", "--spawn", COUNTED),
            env=spawning.environment(),
            cwd=folder,
        )
        assert (done.returncode, done.stdout) == (0, b"x"), done.stderr
    assert spawning.lines("starts") == ["started"]
    assert endpoint.is_socket()


@pytest.mark.parametrize("name", ["n" * 255, "new\nline\udcff"], ids=["long", "odd"])
def test_names_may_be_long_and_odd(folder, name):
    with Spawning(folder / name) as spawning:
        assert spawning.send(SERVE).stdout == b"hello"
    assert os.listdir(folder) == []


def test_one_word_that_is_a_script_here_is_started(spawning, script, folder):
    script(f"#!/bin/sh\n{SERVE}\n", "start.sh")
    assert spawning.send("start.sh", cwd=folder).stdout == b"hello"


def test_command_substitution_ends_though_the_server_lives_on(spawning, endpoint):
    line = f'out=$({SIPC} send {endpoint} -d hello --spawn "$0" 2>&1); echo "got $out"'
    command = ["sh", "-c", line, SERVE]
    done = subprocess.run(command, capture_output=True, env=spawning.environment(), timeout=60)
    assert done.stdout == b"got hello\n"
    assert ask(endpoint, b"again") == (b"again", True)


def test_the_server_outlives_the_terminal(spawning, endpoint):
    command = f"{SIPC} send {endpoint} -d hello --spawn '{SERVE}'; read -r line"
    with terminal(reading=False) as tty:
        shell = Program(
            ["setsid", "--ctty", "sh", "-c", command],
            stdin=tty.slave,
            stdout=tty.slave,
            stderr=tty.slave,
            env=spawning.environment(),
        )
        with shell:
            tty.close_slave()
            shown = b""
            while b"hello" not in shown:
                shown += os.read(tty.master, 100)
            server = peer(endpoint)
            tty.hang_up()  # SIGHUP for all processes whose controlling terminal it is
            assert shell.wait(TIMEOUT) == -signal.SIGHUP
    assert ask(endpoint, b"again") == (b"again", True)
    assert peer(endpoint) == server


def test_a_server_that_logs_a_lot_later_is_neither_held_up_nor_ended(spawning, endpoint):
    line = "exec sipc serve -q --exec 'head -c 1000000 /dev/zero >&2 && cat'"
    assert spawning.send(line).stdout == b"hello"
    for _ in range(3):
        assert ask(endpoint, b"again") == (b"again", True)


def test_the_server_has_nothing_open_but_standard_streams_and_its_own(spawning, endpoint, folder):
    assert spawning.send(SERVE).stdout == b"hello"
    server = peer(endpoint)
    with Server(folder / "other", "cat") as other:
        usual = kinds(other.open_at_start)
    wait_until(lambda: kinds(descriptors(server)) == usual, f"{usual} and no more")


def kinds(links: list[str]) -> list[str]:
    return sorted(link.partition("[")[0] for link in links)


def test_a_client_that_lives_on_has_no_children_dead_or_alive_but_a_living_server(
    spawning, endpoint, folder
):
    """Also not when the server ends, as here right after it accepted."""
    (folder / "server.py").write_text(SHORT_LIVED)
    line = f"exec {sys.executable} server.py"
    with spawning.start(line, cwd=folder) as client:
        spawning.wait_for_lines("accepted", 1)
        wait_until(lambda: not children(client.pid), "no child, and no zombie")
        (folder / "go").touch()
        assert client.communicate()[0] == b"late"
        assert client.returncode == 0


# A server that accepts, and ends, while a process that it started answers.
SHORT_LIVED = """
import os, socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.environ["SIPC_PATH"])
listener.listen()
connection, _ = listener.accept()
if os.fork() == 0:
    print("x", file=open("accepted", "w"))
    while not os.path.exists("go"):
        time.sleep(0.01)
    connection.recv(100)
    connection.sendall(b"0008late0000")
    os.unlink(os.environ["SIPC_PATH"])
"""


def test_a_command_that_leaves_its_server_in_the_background_is_waited_for(spawning, folder):
    line = "sipc serve -q --exec 'until test -e go; do sleep 0.01; done; cat' & exit 0"
    with spawning.start(line, cwd=folder) as client:
        wait_until(lambda: Path(spawning.path).exists() and not children(client.pid), "no zombie")
        (folder / "go").touch()
        assert client.communicate()[0] == b"hello"
        assert client.returncode == 0


def test_a_command_that_finds_somebody_else_was_faster_is_no_failure(spawning, endpoint, folder):
    """It ends with status 9, and the client, which was stopped meanwhile, sees that first."""
    line = (
        "kill -STOP $PPID; touch begun; setsid sipc serve -q --exec cat & "
        "sipc probe -q --wait 30s && exec sipc serve --exec cat"
    )
    with spawning.start(line, cwd=folder) as client:
        wait_until((folder / "begun").exists, "the client to be stopped")
        wait_until(lambda: [state_of(pid) for pid in children(client.pid)] == ["Z"], "its end")
        client.send_signal(signal.SIGCONT)
        assert client.communicate() == (b"hello", b"")
        assert client.returncode == 0
    assert ask(endpoint, b"again") == (b"again", True)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_socket_is_tried_until_somebody_accepts_there(spawning, folder):
    (folder / "server.pl").write_text(SLOW_SERVER)
    done = spawning.send("exec perl server.pl 0", cwd=folder)
    assert (done.returncode, done.stdout) == (0, b"done"), done.stderr


@needs_root
def test_a_socket_that_gets_its_mode_a_little_later_is_waited_for(spawning, endpoint, folder):
    folder.chmod(0o777)
    (folder / "server.pl").write_text(SLOW_SERVER)
    line = "exec perl server.pl 0777"
    done = as_nobody("send", endpoint, "-d", "x", "--spawn", line, cwd=folder)
    assert (done.returncode, done.stdout) == (0, b"done"), done.stderr


# Binds with one umask, listens later, sets the mode later still, and serves one connection.
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


def test_an_answer_that_is_cut_off_starts_no_second_server(spawning, folder):
    line = "echo started >>starts; exec sipc serve -q --exec 'cat; exit 3'"
    done = spawning.send(line, "--wait", "30s", cwd=folder)
    assert done.returncode == 7
    assert spawning.lines("starts") == ["started"]


def test_an_empty_command_is_a_usage_error(endpoint):
    done = sipc("send", endpoint, "-d", "x", "--spawn", " ")
    assert done.returncode == 2
    assert b"--spawn is empty" in done.stderr
