"""`sipc probe` with several endpoints: its lines, its exit status, and how it waits for them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from contextlib import ExitStack, contextmanager

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall
from helpers.sending import EchoServer
from helpers.sockets import busy_listener, stale_socket
from helpers.waiting import TIMEOUT, wait_until


@contextmanager
def listening(path):
    """A listening socket, whose file is removed at the end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(TIMEOUT)
        listener.bind(str(path))
        listener.listen(1000)
        try:
            yield listener
        finally:
            path.unlink()


@pytest.fixture
def states(folder):
    """Endpoints in several states. A path is missing, too."""
    (folder / "file").touch()
    stale_socket(folder / "stale")
    with listening(folder / "a"), listening(folder / "b"):
        yield folder


def probe(folder, *arguments):
    """Run `sipc probe` in a directory, without a time limit that a busy machine might reach."""
    return run_cli("probe", "-t", "1h", *arguments, cwd=folder)


@contextmanager
def probing(folder, *arguments):
    """A running `sipc probe` that has begun to wait."""
    command = [SIPC, "probe", *arguments]
    with Program(command, stdout=subprocess.PIPE, env=environment(), cwd=folder) as program:
        wait_until(lambda: is_in_syscall(program.pid, "clock_nanosleep"), "it to wait")
        yield program


# -- the result ------------------------------------------------------------------------

LINES = {
    "a": "a: listening\n",
    "b": "b: listening\n",
    "stale": "stale: not listening\n",
    "none": "none: path not found\n",
    "file": "file: invalid path\n",
}
WORST = [
    (["a", "b"], 0), (["a", "stale"], 3), (["stale", "a"], 3), (["stale", "none"], 4),
    (["none", "stale", "b"], 4), (["file", "none", "a"], 5), (["a", "a"], 0),
    (["none", "none"], 4),
]  # fmt: skip
each_worst = pytest.mark.parametrize(("paths", "status"), WORST)


@each_worst
def test_each_path_has_a_line_and_the_exit_status_is_the_highest(states, paths, status):
    done = probe(states, *paths)
    lines = "".join(LINES[path] for path in paths)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (status, lines, b"")


@each_worst
def test_quiet_prints_nothing(states, paths, status):
    done = probe(states, "-q", *paths)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@each_worst
def test_the_json_output_is_an_array_in_the_order_of_the_paths(states, paths, status):
    done = probe(states, "--json", *paths)
    assert done.returncode == status
    found = json.loads(done.stdout)
    shown = [f"{one['path']}: {one['state']}\n" for one in found]
    assert shown == [LINES[path] for path in paths]
    single = json.loads(probe(states, "--json", paths[0]).stdout)
    assert single.keys() == found[0].keys()


def test_the_installed_command_reports_several_paths(states):
    done = sipc("probe", states / "a", states / "none")
    lines = f"{states}/a: listening\n{states}/none: path not found\n".encode()
    assert (done.returncode, done.stdout, done.stderr) == (4, lines, b"")


@pytest.mark.parametrize(
    ("paths", "status", "shown"),
    [
        (["a", "b"], 0, ["a"]), (["none", "b"], 0, ["b"]), (["file", "stale", "b", "a"], 0, ["b"]),
        (["none", "stale"], 3, ["none", "stale"]), (["file", "none"], 4, ["file", "none"]),
        (["b"], 0, ["b"]), (["none"], 4, ["none"]),
    ],
)  # fmt: skip
def test_with_any_the_first_server_is_reported_or_all_paths_with_the_lowest_status(
    states, paths, status, shown
):
    done = probe(states, "--any", *paths)
    lines = "".join(LINES[path] for path in shown)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (status, lines, b"")
    found = json.loads(probe(states, "--any", "--json", *paths).stdout)
    objects = found if len(paths) > 1 else [found]
    assert [one["path"] for one in objects] == shown


def test_an_empty_path_is_one_of_the_paths(states):
    assert probe(states, "a", "").stdout == b"a: listening\n'': invalid path\n"


@pytest.mark.parametrize("option", [["--any"], []])
def test_the_result_that_a_full_queue_leaves_is_reported_after_the_timeout(states, option):
    with busy_listener(states / "busy"):
        done = run_cli("probe", *option, "-t", "20ms", "busy", "none", cwd=states)
    assert done.stdout == b"busy: busy\nnone: path not found\n"
    assert done.returncode == (3 if option else 4)


# -- requests --------------------------------------------------------------------------


@pytest.fixture
def servers(folder):
    """An endpoint that answers with the request, one that answers "no", and a stale one."""
    stale_socket(folder / "stale")
    with EchoServer(folder / "echo") as echo, EchoServer(folder / "no", lambda _: b"no") as no:
        yield {"echo": echo, "no": no}


EXPECTATIONS = [["--expect", "ping"], ["--expect-regex", "^p"]]


@pytest.mark.parametrize("expect", EXPECTATIONS, ids=lambda expect: expect[0])
def test_each_server_gets_the_request_and_errors_name_their_path(folder, servers, expect):
    done = probe(folder, "echo", "no", "stale", "echo", "-d", "ping", *expect)
    assert done.returncode == 10
    assert done.stdout.decode() == (
        "echo: listening, answered as expected\n"
        "no: listening, response not as expected\n"
        "stale: not listening\n"
        "echo: listening, answered as expected\n"
    )
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("sipc probe: no: the response is not as expected")
    assert (servers["echo"].requests, servers["no"].requests) == ([b"ping"] * 2, [b"ping"])


@pytest.mark.parametrize("expect", EXPECTATIONS, ids=lambda expect: expect[0])
def test_with_any_the_first_good_response_is_enough(folder, servers, expect):
    done = probe(folder, "--any", "stale", "no", "echo", "echo", "-d", "ping", *expect)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"echo: listening, answered as expected\n"
    assert (servers["echo"].requests, servers["no"].requests) == ([b"ping"], [b"ping"])


def test_with_any_and_no_good_response_all_results_are_reported(folder, servers):
    done = probe(folder, "--any", "no", "stale", "-d", "ping", "--expect", "ping")
    assert done.returncode == 3
    assert done.stdout == b"no: listening, response not as expected\nstale: not listening\n"
    assert done.stderr.startswith(b"sipc probe: no: ")


def test_the_json_output_contains_each_response_and_stderr_stays_empty(folder, servers):
    done = probe(folder, "--json", "echo", "no", "stale", "-d", "x", "--expect", "x")
    assert (done.returncode, done.stderr) == (10, b"")
    found = json.loads(done.stdout)
    assert [one["response"] for one in found] == [
        "answered as expected", "response not as expected", None
    ]  # fmt: skip
    assert [one["response_bytes"] for one in found] == [1, 2, None]


# -- waiting ---------------------------------------------------------------------------


def test_wait_ends_when_the_last_server_listens(folder):
    with (
        listening(folder / "a"),
        probing(folder, "--wait", "1h", "a", "b", "c") as program,
        listening(folder / "c") as last,
    ):
        last.accept()[0].close()
        assert program.poll() is None
        with listening(folder / "b"):
            assert program.stdout.read() == b"a: listening\nb: listening\nc: listening\n"
            assert program.wait() == 0


def test_a_server_that_ends_while_others_are_awaited_is_awaited_again(folder):
    with ExitStack() as stack:
        with listening(folder / "a"):
            program = stack.enter_context(probing(folder, "--wait", "1h", "a", "b"))
        with listening(folder / "b") as second:
            second.accept()[0].close()
            wait_until(lambda: is_in_syscall(program.pid, "clock_nanosleep"), "it to wait again")
            with listening(folder / "a"):
                second.accept()[0].close()  # again, as both must listen at the same time
                assert program.wait() == 0


def test_with_any_wait_ends_when_one_server_listens(folder):
    (folder / "file").touch()
    with (
        probing(folder, "--any", "--wait", "1h", "a", "file", "b") as program,
        listening(folder / "b"),
    ):
        assert program.stdout.read() == b"b: listening\n"
        assert program.wait() == 0


@pytest.mark.parametrize("option", [["--any"], []])
def test_wait_ends_after_the_given_time(states, option):
    done = probe(states, *option, "--wait", "20ms", "stale", "none")
    assert done.stdout == b"stale: not listening\nnone: path not found\n"
    assert done.returncode == (3 if option else 4)


@pytest.mark.parametrize("arguments", [["none", "file"], ["--any", "file", "file"]])
def test_wait_ends_at_once_if_waiting_cannot_help(states, arguments):
    assert probe(states, "--wait", "1000h", *arguments).returncode == 5


@pytest.mark.parametrize("arguments", [["-t", "0"], ["--wait", "1h", "-t", "1ms"]])
def test_servers_with_full_queues_are_awaited_side_by_side(folder, arguments):
    with busy_listener(folder / "a") as first, busy_listener(folder / "b") as second:
        with probing(folder, *arguments, "a", "b") as program:
            for listener in (second, first):  # not in the order of the paths
                listener.settimeout(TIMEOUT)
                for _ in range(2):  # the connection that filled the queue, and the probe's
                    listener.accept()[0].close()
            assert program.wait() == 0


def test_wait_gone_ends_when_no_server_listens(folder):
    with ExitStack() as stack:
        with listening(folder / "a"):
            with listening(folder / "b"):
                arguments = ["--wait-gone", "1h", "a", "none", "b"]
                program = stack.enter_context(probing(folder, *arguments))
            assert program.poll() is None
        lines = b"a: path not found\nnone: path not found\nb: path not found\n"
        assert program.stdout.read() == lines
        assert program.wait() == 0


def test_wait_gone_ends_after_the_given_time_and_reports_what_still_listens(states):
    done = probe(states, "--wait-gone", "20ms", "a", "none")
    assert (done.returncode, done.stdout) == (6, b"a: listening\nnone: path not found\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait(folder, number, status):
    with probing(folder, "--wait", "1h", "a", "b", "--", "touch", "ran") as program:
        program.send_signal(number)
        assert program.wait() == status
        assert program.stdout.read() == b""
    assert not (folder / "ran").exists()


def test_any_together_with_wait_gone_is_a_usage_error(folder):
    done = probe(folder, "--any", "--wait-gone", "1s", "a")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"cannot be combined" in done.stderr
