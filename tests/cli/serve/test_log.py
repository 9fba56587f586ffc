"""`sipc serve`: its log, as text and as JSON, in a file that is rotated, and its counters."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import threading
from datetime import datetime
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, environment, needs_root
from helpers.inprocess_cli import run_cli
from helpers.mounts import small_disk
from helpers.patience import LOCK, without_limits
from helpers.procfs import handled_signals
from helpers.server import Server
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, message, open_connections, packets, receive_all

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


FAILURES = (
    *("handler_failed", "handler_timeout", "spawn_failed", "client_closed", "request_incomplete"),
    *("malformed", "too_large", "read_timeout", "write_timeout", "aborted", "internal_error"),
)


def objects(log) -> list[dict]:
    """Return the lines of a JSON log, each of which must be whole; the last may be in writing."""
    lines = log.splitlines() if isinstance(log, str) else log.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def requests(log) -> list[dict]:
    return [entry for entry in objects(log) if entry["event"] == "request"]


@pytest.fixture
def log(folder) -> Path:
    return folder / "server.log"


def test_the_json_log_has_an_object_for_every_request(endpoint, log):
    script = 'read -r what; case $what in fail) exit 3;; kill) kill -9 $$;; *) echo "$what";; esac'
    options = ["--log-format", "json", "--log-file", log]
    with Server(endpoint, script, *options) as server:
        with connect(endpoint) as client:
            client.sendall(message(b"hello\n"))
            assert receive_all(client) == message(b"hello\n")
            client_pid = os.getpid()
        wait_until(lambda: len(requests(log)) == 1, "the first request in the log")
        ask(endpoint, b"fail\n")
        wait_until(lambda: len(requests(log)) == 2, "the second request in the log")
        ask(endpoint, b"kill\n")
        wait_until(lambda: len(requests(log)) == 3, "the third request in the log")
        good, failed, killed = requests(log)
        server.signal(signal.SIGUSR1)
        wait_until(lambda: "stats" in log.read_text(), "the counters")
    (counted,) = [entry for entry in objects(log) if entry["event"] == "stats"]
    assert (counted["answered"], counted["failed"]) == (1, 2)
    assert list(good) == [
        *("time", "level", "event", "id", "pid", "uid", "gid", "bytes_in", "bytes_out"),
        *("status", "signal"),
        *("duration", "queue_time", "outcome", "detail", "warnings"),
    ]
    assert re.fullmatch(TIME, good["time"])
    assert datetime.fromisoformat(good["time"]).tzinfo is not None
    assert (good["pid"], good["uid"], good["gid"]) == (client_pid, os.getuid(), os.getgid())
    assert (good["bytes_in"], good["bytes_out"]) == (6, 6)
    assert good["id"] == f"{server.pid}-1"
    assert (good["status"], good["signal"], good["outcome"]) == (0, None, "answered")
    assert good["duration"] > 0
    assert good["queue_time"] >= 0
    assert (good["detail"], good["warnings"]) == (None, [])
    assert (failed["status"], failed["signal"], failed["outcome"]) == (3, None, "handler_failed")
    assert (killed["status"], killed["signal"], killed["outcome"]) == (
        None,
        "SIGKILL",
        "handler_failed",
    )
    assert killed["detail"] == "killed by SIGKILL"
    assert (objects(log)[0]["level"], objects(log)[0]["event"]) == ("info", "message")
    assert objects(log)[0]["text"] == f"listening on {endpoint}"


def test_the_json_log_is_written_to_stderr_if_no_log_file_is_given(endpoint):
    with Server(endpoint, "cat", "--log-format", "json", "-q") as server:
        with connect(endpoint) as client:
            client.sendall(b"zzzz")
            receive_all(client)
        server.wait_for_log("malformed")
        assert requests(server.log)[0]["outcome"] == "malformed"


def test_the_log_has_the_queue_time_of_each_request(endpoint, folder, log, gate):
    command = f": >{folder}/begun; {gate.wait}"
    options = ["--threads", "1", "--log-format", "json", "--log-file", log]
    with Server(endpoint, command, *options) as server, open_connections(endpoint, 2) as clients:

        def is_queued() -> bool:
            server.signal(signal.SIGUSR1)
            return '"queued": 1' in log.read_text()

        clients[0].sendall(message(b"first"))
        wait_until((folder / "begun").exists, "the first to begin")
        clients[1].sendall(message(b"second"))
        wait_until(is_queued, "the second to be in the queue")
        threading.Event().wait(0.05)  # longer in the queue: nothing is waited for
        gate.open()
        assert [receive_all(client) for client in clients] == [b"0000", b"0000"]
        wait_until(lambda: len(requests(log)) == 2, "both in the log")
        first, second = requests(log)
    assert first["queue_time"] < first["duration"]
    assert second["queue_time"] >= 0.05


@pytest.mark.parametrize("form", ["text", "json"])
def test_untrusted_bytes_and_a_path_that_is_not_utf_8_are_escaped(folder, log, form):
    path = folder / os.fsdecode(b"s\xffck")
    with Server(path, "cat", "--log-format", form, "--log-file", log) as server:
        with connect(path) as client:
            client.sendall(b"\x1b[2J")
            receive_all(client)
        wait_until(lambda: "malformed" in log.read_text(), "the request in the log")
        assert server.process.poll() is None
    raw = log.read_bytes()
    assert b"x1b" in raw
    assert not re.search(rb"[^\n -~]", raw)
    text = raw.decode()
    if form == "json":
        text = objects(text)[0]["text"]
    assert text.encode(), "no half of a surrogate pair"
    assert r"s\udcffck" in text


def test_the_text_log_is_appended_to_its_file_with_the_time_of_each_line(endpoint, log):
    log.write_text("older\n")
    with Server(endpoint, "cat", "--log-file", log) as server:
        assert ask(endpoint, b"hello") == (b"hello", True)
        wait_until(lambda: "answered" in log.read_text(), "the request in the log")
        assert server.log == "", "what goes to the file goes nowhere else"
    older, *lines = log.read_text().splitlines()
    assert older == "older"
    assert all(re.match(TIME + " ", line) for line in lines)
    assert f"listening on {endpoint}" in lines[0]


@pytest.mark.parametrize("name", [".", "missing/log"], ids=["directory", "no folder"])
def test_a_log_file_that_cannot_be_opened_is_reported_before_the_start(endpoint, folder, name):
    done = run_cli("serve", endpoint, "--exec", "cat", "--log-file", folder / name)
    assert done.returncode == 1
    assert re.fullmatch(
        rb"sipc serve: cannot open the log file [^\n]+: choose another\n", done.stderr
    )
    assert not endpoint.exists()


@pytest.mark.parametrize("total", [40, soak(400)])
def test_no_line_is_lost_while_logs_are_rotated(endpoint, folder, log, total):

    def load():
        for _ in range(total // 4):
            assert ask(endpoint, b"hello") == (b"hello", True)

    with Server(endpoint, "cat", "--log-file", log, "--log-format", "json") as server:
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(total // 10):
            log.rename(folder / f"old.{number}")
            server.signal(signal.SIGHUP)
            wait_until(log.exists, "a new log file")
        for thread in threads:
            thread.join()
        logs = [log, *folder.glob("old.*")]
        wait_until(lambda: sum(len(requests(file)) for file in logs) == total, "every request")
        assert server.stop() == 0, "SIGHUP was no wish for the end"


def test_sighup_stops_a_server_without_a_log_file(endpoint):
    with Server(endpoint, "cat") as server:
        server.signal(signal.SIGHUP)
        assert server.wait() == 0


def test_after_sighup_the_server_keeps_the_old_log_file_if_the_folder_was_removed(endpoint, folder):
    logs = folder / "logs"
    logs.mkdir()
    log, moved = logs / "log", folder / "moved"
    with Server(endpoint, "cat", "--log-file", log) as server:
        logs.rename(moved)
        server.signal(signal.SIGHUP)
        wait_until(
            lambda: "cannot open the log file" in (moved / "log").read_text(), "an error in the log"
        )
        assert ask(endpoint, b"hello") == (b"hello", True)
        wait_until(lambda: "answered" in (moved / "log").read_text(), "the request in it")
        moved.rename(logs)
        log.unlink()
        server.signal(signal.SIGHUP)
        wait_until(log.exists, "a new log file")
        assert ask(endpoint, b"hello") == (b"hello", True)
        wait_until(lambda: "answered" in log.read_text(), "the request in the new one")


PAGE = os.sysconf("SC_PAGE_SIZE")


def fill_disk(ballast: Path) -> None:
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - it takes many writes


def leave_room(log: Path, room: int) -> None:
    """Add a line to a log, so that the last page of the file has this much room, in bytes."""
    line = json.dumps({"event": "padding", "text": ""})
    missing = -(log.stat().st_size + len(line) + 1 + room) % PAGE
    with open(log, "a") as file:
        file.write(line.replace('""', f'"{"x" * missing}"') + "\n")
    assert -log.stat().st_size % PAGE == room


@needs_root
def test_a_full_disk_loses_only_lines_of_the_log(endpoint, folder):
    place = folder / "small"
    with small_disk(place, str(16 * PAGE)):
        log, ballast = place / "log", place / "ballast"
        with Server(endpoint, "cat", "--log-file", log, "--log-format", "json") as server:
            wait_until(lambda: "listening on" in log.read_text(), "its first line")
            leave_room(log, 100)  # the next line is cut off there
            fill_disk(ballast)
            for _ in range(10):
                assert ask(endpoint, b"hello") == (b"hello", True)
            server.wait_until_idle()
            ballast.unlink()
            assert ask(endpoint, b"hello") == (b"hello", True)
            wait_until(lambda: "lines were lost" in log.read_text(), "the number of lost lines")
            server.stop()
        whole, torn = [], 0
        for line in log.read_text().splitlines():
            try:
                whole.append(json.loads(line))
            except ValueError:
                torn += 1
    assert torn == 1
    [said] = [entry["text"] for entry in whole if "lines were lost" in entry.get("text", "")]
    lost = int(re.search(r"\((\d+) lines", said)[1])
    assert len([entry for entry in whole if entry["event"] == "request"]) + lost == 11


def test_the_counters_are_the_sums_over_all_requests(endpoint):
    script = (
        'read -r what; case $what in fail) exit 3;; wait) exec sleep 1000;; *) echo "$what";; esac'
    )
    with Server(endpoint, script, "--threads", "1", "-v") as server:
        assert ask(endpoint, b"hello\n") == (b"hello\n", True)
        assert ask(endpoint, b"hello\n") == (b"hello\n", True)
        assert ask(endpoint, b"fail\n") == (b"", False)
        connect(endpoint).close()
        server.wait_for_log("client connected and closed")
        with connect(endpoint) as client:
            client.sendall(b"zzzz")
            receive_all(client)
        with connect(endpoint) as client:
            client.sendall(packets(b"half"))
        server.wait_for_log("request incomplete")
        with open_connections(endpoint, 4) as clients:
            for client in clients[:3]:
                client.sendall(message(b"wait\n"))
            wait_until(lambda: server.counters()["requests"] == 8, "all requests to have come")
            found = server.counters()
            assert found["in_flight"] == 1
            assert found["queued"] == 2
            assert found["idle"] == 1
        server.wait_until_idle()
        ended = server.counters_at_rest()
    for one in (found, ended):
        assert one["requests"] == sum(
            one[name] for name in ("answered", "failed", "in_flight", "queued")
        )
        assert one["failed"] == sum(one.get(name, 0) for name in FAILURES)
    assert found["answered"] == ended["answered"] == 2
    names = ("handler_failed", "malformed", "request_incomplete")
    assert [found[name] for name in names] == [1, 1, 1]
    assert ended["client_closed"] == 3
    assert (ended["bytes_in"], ended["bytes_out"]) == (6 + 6 + 5 + 4 + 3 * 5, 12)
    assert ended["accepted"] == 10


def test_the_reason_of_a_failed_start_is_in_the_log_and_on_stderr(endpoint, log):
    endpoint.write_text("precious")
    done = run_cli("serve", endpoint, "--exec", "cat", "--log-file", log, "--log-format", "json")
    assert done.returncode == 5
    (line,) = objects(log.read_text())
    assert (line["level"], line["event"]) == ("error", "message")
    assert line["text"] == done.stderr.decode().rstrip("\n")


def test_sighup_during_the_start_reopens_the_log_file(endpoint, folder, log):
    lock = folder / "sock.lock"
    lock.touch()  # of another server that starts, which is waited for
    program = without_limits(*LOCK)
    command = [*program, "serve", endpoint, "--exec", "cat", "--log-file", log]
    with Program(command, env=environment()) as server:
        wait_until(lambda: signal.SIGUSR1 in handled_signals(server.pid), "it to handle signals")
        wait_until(log.exists, "it to open the log file")
        log.rename(folder / "old")
        server.send_signal(signal.SIGHUP)
        lock.unlink()
        wait_until(lambda: endpoint.exists() and log.exists(), "a new log file")
        server.terminate()
        assert server.wait(TIMEOUT) == 0


@pytest.mark.parametrize(("option", "lines"), [("-q", 1), ("-v", 5)], ids=["quiet", "verbose"])
def test_quiet_logs_only_problems_and_verbose_logs_more(endpoint, option, lines):
    with Server(endpoint, "read -r line; exit $line", option) as server:
        assert ask(endpoint, b"0\n") == (b"", True)
        assert ask(endpoint, b"3\n") == (b"", False)
        connect(endpoint).close()
        assert server.stop() == 0
    assert len(server.log.splitlines()) == lines, server.log
    assert "exit status 3" in server.log


def test_a_closed_log_pipe_does_not_stop_the_server(endpoint):
    command = [SIPC, "serve", endpoint, "--exec", "cat"]
    with Program(command, stderr=subprocess.PIPE, env=environment()) as server:
        server.stderr.readline()
        server.stderr.close()
        for _ in range(3):
            assert ask(endpoint, b"hello") == (b"hello", True)
        server.terminate()
        assert server.wait() == 0
