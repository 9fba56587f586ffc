"""All verbs under Wine, with each other and with clients that do not use the package."""

from __future__ import annotations

import json
import os
import re

import pytest
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wine import HERE, processes_with_argument, windows_path

ECHO = "echo.py"


def unique(folder, name="sock"):
    """A Windows path that no other program uses."""
    return windows_path(folder / name)


@pytest.fixture
def path(folder):
    return unique(folder)


@pytest.fixture
def python(wine):
    """The command that runs a script of this folder, as a command line for Windows."""
    interpreter = windows_path(wine.words[-1])
    return lambda script: f'"{interpreter}" "{windows_path(HERE / script)}"'


def pipe_client(wine, name, path, *arguments, **options):
    ran = wine.run("pipe_client.py", name, path, *arguments, **options)
    assert ran.status == 0, ran.err
    return ran.out.strip()


# probe


def test_probe_reports_a_server_and_a_missing_server(wine, path):
    missing = wine.sipc("probe", path)
    assert (missing.status, missing.out) == (4, f"{path}: path not found\n")
    with wine.server(path, "--exec", "echo hello"):
        listening = wine.sipc("probe", path)
        assert (listening.status, listening.out) == (0, f"{path}: listening\n")
        found = json.loads(wine.sipc("probe", "--json", path).out)
        assert found["type"] == "named pipe"
        assert found["pid"] > 0
        assert found["uid"] is None
    assert wine.sipc("probe", "-q", path).status == 4


def test_a_name_too_long_for_a_pipe_is_invalid(wine):
    ran = wine.sipc("probe", "x" * 300)
    assert ran.status == 5
    assert ran.out.endswith(": invalid path\n")


def test_the_name_of_a_pipe_is_used_unchanged(wine, folder):
    name = rf"\\.\pipe\{folder.name}"
    with wine.server(name, "--exec", "echo hello"):
        assert wine.sipc("probe", name).status == 0


# send and serve


def test_request_and_response_bytes_are_unchanged(wine, path, python):
    request = bytes(range(256)) + b"\r\n\n\x1a" * 3
    with wine.server(path, "--exec", python(ECHO)):
        ran = wine.sipc("send", path, input=request)
        assert (ran.status, ran.raw, ran.err) == (0, request, "")
        ran = wine.sipc("send", path, input=b"")
        assert (ran.status, ran.raw) == (0, b"")


def test_a_handler_has_variables_about_its_request(wine, path):
    with wine.server(path, "--exec", "echo %PROTO% %UNIXLOCALPATH% %SIPC_REQUEST_ID%"):
        ran = wine.sipc("send", "-d", "x", path)
    assert re.fullmatch(re.escape(f"UNIX {path} ") + r"\d+-1\s*", ran.out)


def test_a_failed_handler_is_logged(wine, path):
    with wine.server(path, "--exec", "echo half & exit 3") as server:
        ran = wine.sipc("send", "-d", "x", path)
        assert ran.status == 7
        assert "cut off" in ran.err
        server.wait_for_log("exit status 3")


@pytest.fixture
def sleeper(python, folder):
    """A handler that sleeps, started by a shell that waits for it; see gone()."""
    return f"{python('sleeper.py')} {folder.name} & rem"


def gone(folder):
    """Wait until the handler and its children have ended."""
    wait_until(lambda: not processes_with_argument(folder.name), "the handler has ended")


def test_a_handler_that_exceeds_its_timeout_is_ended_with_its_children(wine, path, folder, sleeper):
    options = ("--timeout", "15s", "--kill-after", "0")
    with wine.server(path, "--exec", sleeper, *options) as server:
        client = wine.start("pipe_client.py", "hang", path, "0005x0000")
        server.wait_for_log("asleep")
        assert processes_with_argument(folder.name)
        server.wait_for_log("handler timeout")
        gone(folder)
        assert "cannot be killed" not in server.log
        client.communicate(timeout=TIMEOUT)


def test_a_client_that_closes_ends_its_handler(wine, path, folder, sleeper):
    with wine.server(path, "-v", "--exec", sleeper) as server:
        client = wine.start("pipe_client.py", "hang", path, "0005x0000")
        server.wait_for_log("asleep")
        client.communicate(timeout=TIMEOUT)
        server.wait_for_log("client closed")
        gone(folder)


def test_no_handler_outlives_a_killed_server(wine, path, folder, sleeper):
    with wine.server(path, "--exec", sleeper) as server:
        client = wine.start("pipe_client.py", "hang", path, "0005x0000")
        server.wait_for_log("asleep")
        assert processes_with_argument(folder.name)
        server.process.kill()
        gone(folder)
        client.communicate(timeout=TIMEOUT)


def test_the_whole_request_is_read_before_the_handler_starts(wine, path, python):
    with wine.server(path, "--whole-request", "--exec", python(ECHO)):
        ran = wine.sipc("send", path, input=b"x" * 300_000)
        assert ran.raw == b"x" * 300_000


@pytest.mark.parametrize("megabytes", [4, soak(100)])
def test_a_large_request_is_answered_though_the_client_writes_all_before_it_reads(
    wine, path, python, megabytes
):
    with wine.server(path, "--exec", python(ECHO)):
        assert pipe_client(wine, "half_duplex", path, megabytes) == f"{megabytes << 20} True"


@pytest.mark.parametrize("requests", [4, *[soak(32)] * 4])
def test_all_requests_of_eight_simultaneous_clients_are_answered(wine, path, requests):
    with wine.server(path, "--exec", "echo hello") as server:
        count = 8 * requests
        assert pipe_client(wine, "many", path, 8, requests) == f"{count} b'hello\\r\\n'"
        server.wait_for_log(": answered", count)
    outcomes = [line.rpartition(": ")[2] for line in server.log.splitlines()[1:]]
    assert outcomes == ["answered"] * count


def test_malformed_messages_end_only_their_connection(wine, path):
    malformed = ["zzzz", "0001", "0003", "-004", "fff1"]
    with wine.server(path, "--exec", "echo hello") as server:
        assert pipe_client(wine, "raw", path, *malformed).split("\n") == ["b''"] * 5
        wait_until(lambda: server.log.count("malformed") == 5, "five lines in the log")
        assert wine.sipc("send", "-d", "x", path).status == 0


def test_a_truncated_message_is_no_request(wine, path, folder):
    witness = folder / "ran"
    command = f'set /p X= & echo x > "{windows_path(witness)}"'
    with wine.server(path, "-v", "--whole-request", "--exec", command) as server:
        pipe_client(wine, "leave", path, "0009hello00")
        server.wait_for_log("request incomplete")
        assert not witness.exists()


def test_the_path_of_a_killed_server_can_be_served_again(wine, path):
    for _ in range(2):
        with wine.server(path, "--exec", "echo hello"):
            ran = wine.sipc("send", "-d", "x", path)
            assert (ran.status, ran.out.strip()) == (0, "hello")


def test_exactly_one_of_two_servers_that_start_at_once_serves(wine, path):
    programs = [wine.start("run_sipc.py", "serve", path, "--exec", "echo hello") for _ in "ab"]
    try:
        wait_until(lambda: any(one.poll() is not None for one in programs), "one to give up")
        lost = [one for one in programs if one.poll() is not None]
        assert [one.returncode for one in lost] == [9]
        # Not to its end: the wineserver may have inherited it from this process, and keeps running.
        assert b"another server is listening" in lost[0].stderr.readline()
        assert wine.sipc("send", "--wait", f"{TIMEOUT}s", "-d", "x", path).status == 0
    finally:
        for one in programs:
            one.kill()
        for one in programs:
            one.communicate()


def test_the_server_ends_at_a_quit_request(wine, path):
    with wine.server(path, "--quit-on", "quit", "--exec", "echo hello") as server:
        assert wine.sipc("send", "-d", "quit", path).status == 0
        assert server.wait() == 0
    assert wine.sipc("probe", path).status == 4


def test_ctrl_c_drains_the_server(wine, path):
    """Typed on a terminal: without a console Windows has no Ctrl-C. Nor has Wine 8, even
    with one, what sends Ctrl-Break to a group of processes."""
    with wine.terminal("serve", path, "--exec", "echo hello") as (program, tty):
        tty.wait_for(b"listening on")
        tty.type(b"\x03")
        assert program.wait(TIMEOUT) == 0


# workers


def test_a_worker_answers_several_requests(wine, path, python):
    with wine.server(path, "--threads", "1", "--worker", python("worker.py")):
        answers = [wine.sipc("send", "-d", word, path).out.split() for word in ("a", "b", "c")]
    assert [answer[1:] for answer in answers] == [["1", "a"], ["2", "b"], ["3", "c"]]
    assert len({answer[0] for answer in answers}) == 1


def test_a_worker_answers_large_requests(wine, path, python):
    request = bytes(range(256)) * 20_000
    with wine.server(path, "--worker", python("worker.py")):
        for _ in range(2):
            ran = wine.sipc("send", path, input=request)
            assert (ran.status, ran.err) == (0, "")
            assert ran.raw.split(b" ", 2)[2] == request


def test_a_worker_that_ends_is_replaced(wine, path, python):
    with wine.server(path, "--threads", "1", "--worker", python("worker.py")) as server:
        assert wine.sipc("send", "-d", "a", path).out.split()[1:] == ["1", "a"]
        assert wine.sipc("send", "-d", "end", path).status == 7
        server.wait_for_log("exit status 3")
        assert wine.sipc("send", "-d", "b", path).out.split()[1:] == ["1", "b"]


def test_workers_that_fail_at_their_start_are_started_with_backoff(wine, path):
    with wine.server(path, "-v", "--count", "12", "--worker", "exit 3") as server:
        # The pauses grow: even on a slow machine some intervals are shorter than the longest pause.
        assert pipe_client(wine, "each", path, *["hello"] * 12).split("\n") == ["cut off"] * 12
        assert server.wait() == 0
    assert "spawn failed: workers fail to start (worker " in server.log
    starts = server.log.count("started worker")
    assert 2 <= starts < 12
    assert f"{starts} workers failed to start" in server.log


def test_a_request_that_kills_its_worker_fails_no_other_request(wine, path, python):
    words = ("leave", "leave", "leave", "a", "leave", "end", "end", "b")
    options = ("-v", "--threads", "1", "--worker", python("worker.py"))
    with wine.server(path, *options) as server:
        answers = pipe_client(wine, "each", path, *words).split("\n")
        server.wait_for_log("started worker", 7)
    last_words = [answer.rpartition(" ")[2] for answer in answers]
    assert last_words == ["off", "off", "off", "a", "off", "off", "off", "b"]
    assert "fail to start" not in server.log
    assert server.log.count("started worker") == 7  # no request was given to two workers


def test_a_request_that_was_not_read_is_given_to_another_worker(wine, path, python):
    with wine.server(path, "-v", "--threads", "1", "--worker", python("worker.py")) as server:
        answers = pipe_client(wine, "each", path, "last", "a", "last", "b").split("\n")
        server.wait_for_log("started worker", 3)
    assert [answer.split()[1:] for answer in answers] == [
        ["1", "last"],
        ["1", "a"],
        ["2", "last"],
        ["1", "b"],
    ]
    assert server.log.count("started worker") == 3


# bench


def test_bench_prints_a_report(wine, path):
    with wine.server(path, "--exec", "echo hello"):
        ran = wine.sipc("bench", path, "-n", "20", "-c", "4", "-d", "ping", "--json", "-")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["counts"]["answered"] == 20


# options that Windows does not support


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "x", "--exec", "x", "--group", "users"],
        ["serve", "x", "--exec", "x", "--allow-user", "me"],
    ],
    ids=lambda words: words[-2] if not words[-1].startswith("-") else words[-1],
)
def test_options_not_supported_on_windows_are_refused(wine, arguments):
    ran = wine.sipc(*arguments)
    assert ran.status == 2
    assert "not supported on this platform" in ran.err


# options of send


def test_send_supports_files_statistics_traces_and_expectations(wine, path, folder, python):
    request, answer, trace = (folder / name for name in ("request", "answer", "trace"))
    request.write_bytes(b"one\r\ntwo\n\x1a")
    answer.write_bytes(b"old")
    with wine.server(path, "--exec", python(ECHO)):
        ran = wine.sipc(
            *("send", path, "--data-file", windows_path(request)),
            *("-o", windows_path(answer), "--stats"),
            *("--expect-regex", "one.\ntwo", "--trace-file", windows_path(trace)),
        )
        assert ran.status == 0, ran.err
        assert answer.read_bytes() == request.read_bytes()
        assert json.loads(ran.err)["bytes_received"] == len(request.read_bytes())
        assert len(trace.read_text().splitlines()) > 3
        ran = wine.sipc("send", path, "-d", "x", "--expect", "y")
        assert (ran.status, ran.out) == (10, "x")


def test_client_and_server_have_the_same_default_path(wine):
    with wine.server("--exec", "echo hello"):
        assert wine.sipc("send", "-d", "x").out.strip() == "hello"
        assert wine.sipc("probe", "-q").status == 0


def test_a_failed_exchange_leaves_only_the_old_file(wine, path, folder):
    (folder / "response").write_bytes(b"old")
    with wine.server(path, "--exec", "echo hello"):
        output = windows_path(folder / "response")
        ran = wine.sipc("send", path, "-d", "x", "--expect", "y", "-o", output)
    assert ran.status == 10, ran.err
    assert (folder / "response").read_bytes() == b"old"
    assert [name for name in os.listdir(folder) if ".sipc-" in name] == []


def test_a_failed_bench_leaves_no_report_file(wine, path, folder):
    with wine.server(path, "--exec", "echo hello"):
        written, missing = map(windows_path, (folder / "json", folder / "missing" / "csv"))
        ran = wine.sipc("bench", path, "-n", "2", "--json", written, "--csv", missing)
    assert ran.status == 1
    assert "cannot write to" in ran.err
    assert [name for name in os.listdir(folder) if "json" in name] == []


def test_a_terminal_shows_a_progress_bar(wine, path, sleeper):
    with wine.server(path, "--exec", sleeper):
        with wine.terminal("send", path, "-d", "x", "--progress") as (_, tty):
            tty.wait_for(b"received")
