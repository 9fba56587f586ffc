"""`send --spawn` and `serve --background` under Wine: servers outlive their starter."""

from __future__ import annotations

import json
import os
import signal

import pytest
from helpers.waiting import TIMEOUT, wait_until
from helpers.wine import HERE, ended, processes_with_argument, windows_path


@pytest.fixture
def path(folder):
    return windows_path(folder / "sock")


@pytest.fixture
def python(wine):
    """Return the command line that runs a script of this folder."""
    interpreter = windows_path(wine.words[-1])
    return lambda script: f'"{interpreter}" "{windows_path(HERE / script)}"'


@pytest.fixture
def serve(python, folder, path):
    """Return a command that adds a line to a file and serves at %SIPC_PATH%."""
    worker = python("worker.py").replace('"', r"\"")
    server = f'{python("run_sipc.py")} serve --quit-on quit --threads 1 --worker "{worker}"'
    return f'echo started>>"{windows_path(folder / "starts")}" & {server}'


@pytest.fixture(autouse=True)
def leave_no_server(wine, path):
    yield
    wine.sipc("send", path, "-d", "quit")
    assert wine.sipc("probe", "--wait-gone", f"{TIMEOUT}s", path).status == 0


@pytest.fixture
def send(wine, path):
    """Run a client to its end."""
    return lambda *words, **more: ended(wine.start("run_sipc.py", "send", path, *words), **more)


def starts(folder):
    return (folder / "starts").read_text().split()


def test_send_spawn_starts_a_server_that_keeps_running(send, folder, serve):
    for number in (b"1", b"2"):
        ran = send("--wait", f"{TIMEOUT}s", "--spawn", serve, "-d", "x")
        assert (ran.status, ran.err) == (0, "")
        assert ran.raw.split(b" ")[1:] == [number, b"x"]
    assert starts(folder) == ["started"]


def test_many_simultaneous_clients_start_one_server(wine, path, folder, serve):
    arguments = ("send", path, "--wait", f"{TIMEOUT}s", "--spawn", serve)
    clients = [wine.start("run_sipc.py", *arguments, "-d", f"{each}") for each in range(4)]
    answers = [ended(client) for client in clients]
    assert [answer.err for answer in answers] == [""] * 4
    assert [answer.out.split()[2] for answer in answers] == [f"{each}" for each in range(4)]
    assert starts(folder) == ["started"]


def test_several_threads_of_a_program_start_one_server(wine, path, folder, serve):
    ran = ended(wine.start("starter.py", path, serve, TIMEOUT))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.split()[1:] == ["1", "x"]
    assert starts(folder) == ["started"]


def test_send_lines_also_starts_a_server(send, folder, serve):
    ran = send("--lines", "--wait", f"{TIMEOUT}s", "--spawn", serve, input=b"a\nb\n")
    assert [line.split()[1:] for line in ran.out.splitlines()] == [["1", "a"], ["2", "b"]]
    assert starts(folder) == ["started"]


def test_send_reports_why_the_command_failed(send):
    command = "echo first & echo no luck 1>&2 & exit 3"
    ran = send("--wait", f"{TIMEOUT}s", "--spawn", command, "-d", "x")
    assert (ran.status, ran.out) == (1, "")
    assert "failed, exit status 3, and wrote: no luck" in ran.err
    assert ran.err.count("\n") == 1


def test_a_command_that_does_not_listen_in_time_is_ended_with_its_children(send, python, folder):
    sleeper = f"echo begun 1>&2 & {python('sleeper.py')} {folder.name} & rem"
    ran = send("--wait", "20s", "--spawn", sleeper, "-d", "x")
    assert ran.status == 4
    assert "did not start listening in time and was terminated, and wrote: begun" in ran.err
    wait_until(lambda: not processes_with_argument(folder.name), "the command has ended")


def test_the_command_of_a_killed_client_keeps_running(wine, path, python, folder):
    sleeper = f"{python('sleeper.py')} {folder.name} & rem"
    arguments = ("send", path, "--wait", "1h", "--spawn", sleeper, "-d", "x")
    client = wine.start("run_sipc.py", *arguments)
    try:
        wait_until(lambda: processes_with_argument(folder.name), "the command to run")
        client.kill()
        client.wait()
        # Wine notices the end of a process before it serves a process that starts later.
        assert wine.sipc("probe", path).status == 4
        assert processes_with_argument(folder.name)
    finally:
        for pid in processes_with_argument(folder.name):
            os.kill(pid, signal.SIGKILL)
        for stream in (client.stdin, client.stdout, client.stderr):
            stream.close()


def test_handlers_can_write_errors_after_the_starting_client_has_ended(send, python):
    noisy = python("noisy.py").replace('"', r"\"")
    serve = f'{python("run_sipc.py")} serve --quit-on quit --exec "{noisy}"'
    for _ in range(2):
        ran = send("--wait", f"{TIMEOUT}s", "--spawn", serve, "-d", "x")
        assert (ran.status, ran.out) == (0, "done")


@pytest.fixture
def background(wine, path, python):
    """Start a server in the background; return status and output of the command."""

    def start(*options):
        arguments = ("serve", path, "--quit-on", "quit", "--worker", python("worker.py"))
        arguments += ("--threads", "1", "--background", *map(str, options))
        return ended(wine.start("run_sipc.py", *arguments))

    return start


def test_a_background_server_listens_when_the_command_returns(wine, path, background):
    started = background()
    assert (started.status, started.out) == (0, "")
    assert started.err == f"listening on {path}\n"
    for number in (b"1", b"2"):
        assert wine.sipc("send", path, "-d", "x").raw.split(b" ")[1:] == [number, b"x"]


def test_a_background_server_that_cannot_listen_is_an_error(path, background):
    assert background("-q").status == 0
    second = background("-q")
    assert second.status == 9
    assert second.err.startswith(f"sipc serve: another server is listening on {path}")
    assert second.err.count("\n") == 1


def test_a_background_server_logs_to_a_file(wine, path, folder, background):
    log = folder / "log"
    assert background("--log-file", windows_path(log)).status == 0
    assert wine.sipc("send", path, "-d", "x").status == 0
    wait_until(lambda: ": answered" in log.read_text(), "the request in the log")


def test_a_background_server_that_does_not_listen_in_time_is_ended(wine, path, background, folder):
    """The time limit is over before the program can have loaded."""
    started = background("--max-wait", "1ms", "--log-file", windows_path(folder / "log"))
    assert started.status == 6
    assert "did not listen within 0.001 s" in started.err
    assert "--max-wait" in started.err
    wait_until(lambda: not processes_with_argument(path), "the server to end")


def test_the_pid_file_holds_the_process_id(wine, path, folder, background):
    file = folder / "pid"
    assert background("-q", "--pid-file", windows_path(file)).status == 0
    pid = int(file.read_text())
    assert json.loads(wine.sipc("probe", "--json", path).out)["pid"] == pid
    wine.sipc("send", path, "-d", "quit")
    wait_until(lambda: not file.exists(), "the file to be removed")


def test_two_servers_cannot_have_the_same_pid_file(wine, path, folder, background):
    file, other = folder / "pid", windows_path(folder / "other")
    assert background("-q", "--pid-file", windows_path(file)).status == 0
    held = file.read_text()
    ran = wine.sipc("serve", other, "--exec", "x", "--pid-file", windows_path(file))
    assert ran.status == 9
    assert f"a running server, process {int(held)}, has the pid file" in ran.err
    assert file.read_text() == held


def test_the_pid_file_of_a_killed_server_is_replaced(wine, path, folder):
    file = folder / "pid"
    options = ("--exec", "echo hello", "--pid-file", windows_path(file))
    with wine.server(path, *options):
        left = file.read_text()
    assert file.read_text() == left
    with wine.server(path, "--quit-on", "quit", *options) as server:
        assert file.read_text() not in {"", left}
        wine.sipc("send", path, "-d", "quit")
        assert server.wait() == 0
    assert not file.exists()


@pytest.mark.parametrize("content", ["precious", "7\nprecious", "1" * 33])
def test_a_file_that_is_no_pid_file_is_not_replaced(wine, path, folder, content):
    file = folder / "pid"
    file.write_text(content)
    ran = wine.sipc("serve", path, "--exec", "x", "--pid-file", windows_path(file))
    assert ran.status == 1
    assert "is in the way: it is not a pid file" in ran.err
    assert file.read_text() == content


def test_a_pid_file_that_is_a_folder_or_in_a_missing_folder_is_an_error(wine, path, folder):
    (folder / "deep").mkdir()
    ran = wine.sipc("serve", path, "--exec", "x", "--pid-file", windows_path(folder / "deep"))
    assert (ran.status, ran.err.count("it is a directory")) == (1, 1)
    ran = wine.sipc("serve", path, "--exec", "x", "--pid-file", windows_path(folder / "no" / "pid"))
    assert (ran.status, ran.err.count("there is no folder")) == (1, 1)
