"""`sipc serve --handler-stderr`: the standard error of handlers, in the log or elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
from helpers.inprocess_cli import run_cli
from helpers.patience import without_limits
from helpers.procfs import state
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, connect, message, receive_all
from helpers.workers import WORKER, ask_worker, serve_workers

SAY = "echo oops >&2; echo good"
LOG = ("--handler-stderr", "log")
ONE_INTERVAL = without_limits("handlers.stderr._INTERVAL", "handlers.worker._EXIT_TIMEOUT")
"""A server that counts the lines of each handler from its start to its end, and lets a worker end
in its own time."""


@pytest.fixture
def log(folder) -> Path:
    return folder / "server.log"


def said(text: str) -> list[str]:
    """What handlers wrote, from a log in text."""
    return re.findall(r"^(?:[-0-9T:.+]+ )?(?:\d+-\d+|process \d+) stderr: (.*)$", text, re.M)


def requests_logged(path: Path, count: int) -> str:
    """Wait for this many requests in a log file; return the log."""

    def text() -> str | None:
        found = path.read_text()
        return found if len(re.findall(r" pid=\d+ in=", found)) == count else None

    return wait_until(text, f"{count} requests in the log")


def test_what_a_handler_says_is_in_the_log_before_its_request(endpoint, log):
    script = 'printf "one\\ntwo" >&2; exit 3'
    with Server(endpoint, script, "--log-file", log) as server:
        assert ask(endpoint, b"") == (b"", False)
        lines = requests_logged(log, 1).splitlines()
        assert server.log == "", "it goes nowhere else"
    name = f"{server.pid}-1"
    after_time = [line.partition(" ")[2] for line in lines[1:]]
    assert after_time[:2] == [f"{name} stderr: one", f"{name} stderr: two"]
    assert after_time[2].startswith(f"{name} pid=")


def test_the_json_log_has_an_object_for_each_line(endpoint):
    with Server(
        endpoint, "echo $$ >&2; printf '\\033\\000\\377\"' >&2", "--log-format", "json"
    ) as server:
        ask(endpoint, b"")
        server.wait_for_log('"request"')
        lines = map(json.loads, server.log.splitlines())
        first, second = (entry for entry in lines if entry["event"] == "stderr")
    assert list(first) == ["time", "level", "event", "id", "process", "text"]
    assert (first["level"], first["id"]) == ("warning", f"{server.pid}-1")
    assert first["text"] == str(first["process"]) == str(second["process"])
    assert second["text"] == '\x1b\0\\xff"'


def test_a_server_in_the_background_logs_what_handlers_say(background, endpoint, log):
    assert background.serve("--log-file", log, command=SAY).returncode == 0
    assert ask(endpoint, b"") == (b"good\n", True)
    assert said(requests_logged(log, 1)) == ["oops"]


def test_handlers_inherit_standard_error_if_the_log_is_text_on_stderr(endpoint):
    with Server(endpoint, "readlink /proc/self/fd/2") as server:
        own = os.readlink(f"/proc/{server.pid}/fd/2").encode()
        assert ask(endpoint, b"") == (own + b"\n", True)


def test_standard_error_can_be_inherited_although_there_is_a_log_file(endpoint, log):
    options = ["--log-file", log, "--handler-stderr", "inherit"]
    with Server(endpoint, SAY, *options) as server:
        assert ask(endpoint, b"") == (b"good\n", True)
        server.wait_for_log("^oops$")
        assert said(requests_logged(log, 1)) == []


def test_standard_error_can_be_discarded(endpoint):
    command = "readlink /proc/self/fd/2; echo oops >&2"
    with Server(endpoint, command, "--handler-stderr", "discard") as server:
        assert ask(endpoint, b"") == (b"/dev/null\n", True)
        server.wait_for_log("answered")
        assert "oops" not in server.log


def test_foreign_bytes_are_escaped(endpoint):
    with Server(endpoint, "printf '\\033[2J\\000\\377 \\r\\n' >&2", *LOG) as server:
        ask(endpoint, b"")
        server.wait_for_log("answered")
        assert said(server.log) == ["\\x1b[2J\\x00\\xff \\r"]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("byte", ["x", "\\033", "\\377"])
def test_a_line_of_any_length_is_cut(endpoint, log, byte, form):
    """The next line is whole."""
    script = f"head -c 10000000 /dev/zero | tr '\\0' '{byte}' >&2; echo >&2; echo next >&2"
    with Server(endpoint, script, "--log-file", log, "--log-format", form):
        ask(endpoint, b"")
        wait_until(lambda: "answered" in log.read_text(), "the request in the log")
    lines = log.read_text().splitlines()
    long, after = [line for line in lines if "stderr" in line]
    assert 1000 < len(long) < 4096
    assert "..." in long[-6:]
    assert "next" in after


@pytest.mark.parametrize("command", ["yes | head -n 500000", "seq -f %.0f 500000"])
def test_of_too_many_lines_the_last_are_logged_and_the_others_are_counted(endpoint, log, command):
    script = f"{command} >&2; printf last >&2; exit 3"
    with Server(endpoint, script, "--log-file", log, program=ONE_INTERVAL):
        assert ask(endpoint, b"") == (b"", False)
        lines = said(requests_logged(log, 1))
    [(at, number)] = [
        (at, int(line.split(": ")[1])) for at, line in enumerate(lines) if "dropped" in line
    ]
    assert lines[at] == f"(lines dropped: {number}: more than 1000 in 3600 s)"
    assert number + len(lines) - 1 == 500001
    assert at == 1000
    assert lines[-1] == "last"
    if "seq" in command:
        assert lines[:1000] == [str(line) for line in range(1, 1001)]
        assert lines[-3:-1] == ["499999", "500000"]


def test_a_handler_that_writes_megabytes_to_standard_error_is_answered(endpoint):
    flood = "head -c 50M /dev/zero >&2"
    script = f"read -r what; [ $what = flood ] && {flood}; echo $what"
    with Server(endpoint, script, *LOG) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"flood\n"))
            assert ask(endpoint, b"other\n") == (b"other\n", True)
            assert receive_all(client) == message(b"flood\n")
        server.wait_for_log("in=6 out=6", 2)


def test_a_handler_is_answered_when_the_log_cannot_be_written(endpoint):
    with Server(endpoint, "seq 100000 >&2; echo good", "--log-file", "/dev/full") as server:
        for _ in range(2):
            assert ask(endpoint, b"") == (b"good\n", True)
        server.wait_until_idle()


def test_a_request_ends_although_a_child_has_standard_error_open(endpoint, gate, folder):
    """The child has left the handler's group; it keeps no descriptor of the server."""
    child = f"setsid sh -c 'echo child >&2; echo $$ >{folder}/pid; {gate.wait}' >/dev/null"
    script = f"{child} & until [ -s {folder}/pid ]; do sleep 0.01; done; echo good"
    with Server(endpoint, script, *LOG) as server:
        assert ask(endpoint, b"") == (b"good\n", True)
        server.wait_for_log("answered")
        pid = int((folder / "pid").read_text())
        assert state(pid) == "S"
        assert said(server.log) == ["child"]
        server.wait_until_idle()
        gate.open()


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("kill -9 $$", "killed by SIGKILL"),
        ("trap 'echo bye >&2; exit 0' TERM; kill $$", "answered"),
        ("exec 2>&-; exit 3", "exit status 3"),
    ],
)
def test_the_last_lines_of_a_handler_are_logged_however_it_ends(endpoint, script, end):
    with Server(endpoint, f"echo oops >&2; {script}", *LOG) as server:
        ask(endpoint, b"")
        server.wait_for_log(end)
        assert said(server.log) == ["oops"] + ["bye"] * ("bye" in script)


def test_what_a_handler_says_when_its_time_is_over_is_logged(endpoint):
    script = "trap 'echo too late >&2; exit 1' TERM; echo begun >&2; sleep 1000 & wait"
    options = [*LOG, "--timeout", "100ms", "--kill-after", "1h"]
    with Server(endpoint, script, *options) as server:
        assert ask(endpoint, b"") == (b"", False)
        server.wait_for_log("handler timeout")
        assert set(said(server.log)) <= {"begun", "too late"}


@pytest.mark.parametrize("stops", [1, 2])
def test_the_lines_are_logged_while_the_server_stops(endpoint, folder, stops):
    script = f"trap 'echo bye >&2; exit 1' TERM; echo begun >&2; : >{folder}/begun; sleep 1 & wait"
    with Server(endpoint, script, *LOG, "--kill-after", "1h") as server:
        with connect(endpoint) as client:
            client.sendall(message(b""))
            wait_until((folder / "begun").exists, "it to begin")
            server.signal(signal.SIGTERM)
            if stops == 2:
                wait_until(lambda: not endpoint.exists(), "the first signal to arrive")
                server.signal(signal.SIGTERM)
            receive_all(client)
        server.wait()
    assert said(server.log)[0] == "begun"


def test_each_line_has_the_id_of_its_own_request(endpoint):
    """Also if handlers write it in pieces at the same time."""
    parts = 'for part in a b c; do printf "$word $part " >&2; done'
    script = f'read -r word; {parts}; echo "$SIPC_REQUEST_ID"'
    found = {}

    def client(number: int) -> None:
        found[f"word{number}"] = ask(endpoint, b"word%d\n" % number)[0].decode().strip()

    with Server(endpoint, script, *LOG, "--threads", "100") as server:
        clients = [threading.Thread(target=client, args=[number]) for number in range(100)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        server.wait_for_log("answered", 100)
        lines = re.findall(r"^(\S+) stderr: (.*)$", server.log, re.M)
    assert Counter(lines) == Counter(
        (name, f"{word} a {word} b {word} c ") for word, name in found.items()
    )


def test_few_descriptors_are_enough_for_all_threads(endpoint):
    """Requests wait for descriptors; none fails."""
    wrapper = ["prlimit", "--nofile=50:50"]
    with Server(endpoint, SAY, *LOG, "--threads", "50", wrapper=wrapper) as server:
        clients = [connect(endpoint) for _ in range(12)]
        for client in clients:
            client.sendall(message(b""))
        assert [receive_all(client) for client in clients] == [message(b"good\n")] * 12
        for client in clients:
            client.close()
        server.wait_for_log("answered", 12)
        assert said(server.log) == ["oops"] * 12


# -- workers


def test_a_worker_s_lines_have_the_id_of_the_request_that_it_handles(endpoint, folder):
    with serve_workers(endpoint, *LOG) as server:
        assert ask_worker(endpoint, "complain", "first") == b"good"
        assert ask_worker(endpoint, "complain", "second") == b"good"
        pid = int(ask_worker(endpoint, "pid"))
        server.wait_for_log("in=3 out=")
        assert re.findall(r"^(\S+) stderr: (.*)$", server.log, re.M) == [
            (f"{server.pid}-1", "first"),
            (f"{server.pid}-2", "second"),
        ]
        assert f"process {pid}" not in server.log


def test_dropped_lines_are_counted_for_their_own_request(endpoint):
    """The last of them explain only the request in which the worker ends."""
    with serve_workers(endpoint, *LOG, program=ONE_INTERVAL) as server:
        assert ask_worker(endpoint, "complain", *1003 * ["first"]) == b"good"
        assert ask_worker(endpoint, "echo", "second") == b"second"
        assert ask_worker(endpoint, "complain", "third", "last") == b"good"
        assert ask(endpoint, b"exit 3")[1] is False
        server.wait_for_log("handler failed")
        found = re.findall(rf"^{server.pid}-(\d) stderr: (.*)$", server.log, re.M)[1000:]
    dropped = "(lines dropped: {}: more than 1000 in 3600 s)"
    assert found == [("1", dropped.format(3)), ("3", dropped.format(2))]


def test_a_worker_without_a_request_is_not_blocked_by_what_it_says(endpoint, folder):
    with serve_workers(endpoint, *LOG, program=ONE_INTERVAL) as server:
        assert ask_worker(endpoint, "flood", folder / "go", folder / "done") == b"good"
        server.wait_for_log("answered")
        (folder / "go").touch()
        wait_until((folder / "done").exists, "it to write 10 MB")
        server.wait_for_log(r"^process \d+ stderr: x+\.\.\.$", 1000)
        assert re.search("-[0-9]+ stderr", server.log) is None


def test_a_worker_that_fails_is_explained_in_the_log(endpoint):
    worker = "echo 'cannot start' >&2; exit 3"
    with serve_workers(endpoint, *LOG, worker=worker) as server:
        assert ask(endpoint, b"hello")[1] is False
        server.wait_for_log("handler failed|spawn failed")
        assert said(server.log) == ["cannot start"]
        assert f"{server.pid}-1 stderr: cannot start" in server.log


@pytest.mark.parametrize("count", [1, 20000])
def test_what_workers_say_at_their_end_is_logged_when_the_server_stops(endpoint, count):
    worker = f"{WORKER} echo; seq {count} >&2"
    with serve_workers(
        endpoint, *LOG, "--kill-after", "1h", worker=worker, program=ONE_INTERVAL
    ) as server:
        assert ask_worker(endpoint, "hello") == b"hello"
        server.stop()
    lines = said(server.log)
    assert lines[-1] == str(count)
    assert (count == 1) == (len(lines) == 1)


def test_workers_go_on_after_a_reload(endpoint, folder, log):
    with serve_workers(endpoint, "--log-file", log):
        assert ask_worker(endpoint, "complain", "first") == b"good"
    text = requests_logged(log, 1)
    with serve_workers(endpoint, "--log-file", log) as server:
        assert ask_worker(endpoint, "complain", "second") == b"good"
        assert said(requests_logged(log, 2)) == ["first", "second"]
        log.rename(folder / "old")
        server.signal(signal.SIGHUP)
        wait_until(log.exists, "a new log file")
        assert ask_worker(endpoint, "complain", "third") == b"good"
        assert said(requests_logged(log, 1)) == ["third"]
    assert said(text) == ["first"]


# -- prestarted handlers


def test_a_prestarted_handler_s_lines_have_no_id_before_its_request(endpoint):
    script = "echo early >&2; read -r word; echo $word >&2; echo good"
    with Server(endpoint, script, *LOG, "--prestart", "1") as server:
        early = server.wait_for_log("stderr: early$")
        assert re.fullmatch(r"process \d+ stderr: early", early)
        assert ask(endpoint, b"late\n") == (b"good\n", True)
        server.wait_for_log("answered")
        assert f"{server.pid}-1 stderr: late" in server.log
        server.stop()


def test_a_prestarted_handler_that_fails_is_explained_in_the_log(endpoint):
    with Server(endpoint, "echo 'cannot start' >&2; exit 3", *LOG, "--prestart", "1") as server:
        server.wait_for_log(r"^process \d+ stderr: cannot start$")
        server.stop()


def test_the_option_is_refused_with_a_python_function(endpoint):
    done = run_cli("serve", endpoint, "--call", "os:abort", *LOG)
    assert done.returncode == 2
    assert b"--handler-stderr cannot be combined with --call" in done.stderr
