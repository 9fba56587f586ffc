"""In a removed working directory only operations on relative paths fail."""

from __future__ import annotations

import json
import subprocess

import pytest
from helpers.background import Background
from helpers.command import SIPC, assert_error_line, environment
from helpers.server import Server
from helpers.socket_activation import SocketManager, start_with_sockets
from helpers.spawning import SERVE, Spawning
from helpers.waiting import TIMEOUT
from helpers.wire import ask

LEAVE = 'cd "$0" && rmdir "$0" && exec "$@"'


@pytest.fixture
def nowhere(folder):
    """The start of a command line that runs in a removed working directory."""
    (folder / "removed").mkdir()
    return ["sh", "-c", LEAVE, str(folder / "removed")]


@pytest.fixture
def run(nowhere):
    def run_there(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
        command = [*nowhere, SIPC, *map(str, arguments)]
        options.setdefault("env", environment())
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT, **options)

    return run_there


@pytest.mark.parametrize("processes", [1, 2])
def test_bench_measures_an_absolute_endpoint_and_writes_absolute_files(
    run, endpoint, folder, processes
):
    with Server(endpoint, "cat"):
        options = ["-n", 20, "-c", 2, "--processes", processes, "--json", folder / "report"]
        done = run("bench", endpoint, *options)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((folder / "report").read_text())["counts"]["answered"] == 20


def test_bench_measures_an_endpoint_in_the_parent_directory(run, endpoint):
    with Server(endpoint, "cat"):
        done = run("bench", f"../{endpoint.name}", "-n", 2, "--json", "-")
    assert json.loads(done.stdout)["counts"]["answered"] == 2


@pytest.mark.parametrize("options", [[], ["--json", "other"]], ids=["one file", "two"])
def test_a_relative_report_is_named_in_the_error(run, endpoint, options):
    with Server(endpoint, "cat"):
        done = run("bench", endpoint, "-n", 1, "--html", "report", *options)
    assert_error_line(done, 1, "cannot write to ", "No such file or directory")
    assert b"standard output" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pid-file", "p"], ["pid file p", "there is no folder ."]),
        (["--log-file", "l"], ["log file l", "No such file or directory"]),
        (["--pid-file", "p", "--log-file", "l"], ["log file l", "No such file or directory"]),
        (["--trace-file", "t"], ["trace file t", "No such file or directory"]),
    ],
    ids=" ".join,
)
def test_a_relative_file_of_a_server_is_named_in_the_error(run, endpoint, options, words):
    done = run("serve", endpoint, "--exec", "cat", *options)
    assert_error_line(done, 1, *words)
    assert b"standard output" not in done.stderr


def test_a_server_with_a_relative_path_is_refused_in_a_removed_directory(run):
    assert_error_line(run("serve", "sock", "--exec", "cat"), 4, "sock")


@pytest.mark.parametrize(
    "options", [[], ["--prestart", "2"], ["--whole-request"]], ids=["plain", "prestart", "whole"]
)
def test_a_server_with_absolute_paths_serves(nowhere, endpoint, folder, options):
    files = ["--pid-file", folder / "pid", "--log-file", folder / "log"]
    with Server(endpoint, "cat", *files, *options, wrapper=nowhere) as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.stop() == 0


def test_a_server_with_an_absolute_path_starts_in_the_background(run, endpoint):
    with Background(endpoint) as servers:
        done = run(*servers.arguments(), env=servers.environment())
        assert done.returncode == 0, done.stderr
        assert ask(endpoint, b"hello") == (b"hello", True)


def test_a_relative_path_does_not_match_a_passed_socket(nowhere, endpoint):
    with SocketManager(str(endpoint)) as manager:
        arguments = [*nowhere, SIPC, "serve", "other", "--exec", "cat"]
        with start_with_sockets(arguments, manager.socket) as program:
            _, said = program.communicate(timeout=TIMEOUT)
    assert program.returncode == 2, said
    assert b"PATH is other" in said


def test_a_client_sends_to_an_absolute_path_and_starts_a_server_there(run, endpoint):
    with Spawning(endpoint) as spawning:
        options = ["-d", "x", "--spawn", SERVE, "--wait", "1h"]
        done = run("send", endpoint, *options, env=spawning.environment())
        assert (done.returncode, done.stdout) == (0, b"x"), done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "rel"], ["cannot write to rel"]),
        (["--data-file", "rel"], ["cannot read rel"]),
        (["--trace-file", "rel"], ["trace file rel"]),
    ],
    ids=lambda value: value[0],
)
def test_a_relative_file_of_a_client_is_named_in_the_error(run, endpoint, options, words):
    data = [] if options[0] == "--data-file" else ["-d", "x"]
    with Server(endpoint, "cat"):
        assert_error_line(run("send", endpoint, *data, *options), 1, *words)


@pytest.mark.parametrize("arguments", [["send", "-d", "x"], ["probe", "-q"]], ids=["send", "probe"])
def test_a_relative_endpoint_does_not_exist(run, arguments):
    assert run(*arguments, "sock").returncode == 4
