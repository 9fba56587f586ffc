"""`sipc bench`: its requests, counts, files, conditions and exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from helpers.command import (
    SIPC,
    Program,
    assert_error_line,
    environment,
    needs_root,
    sipc,
)
from helpers.inprocess_cli import run_cli
from helpers.procfs import children
from helpers.scripted_server import RespondingServer
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import connect, message

from simpleipc_cli.bench import format as fmt
from simpleipc_cli.bench import processes as generator_processes
from simpleipc_cli.bench.report import Report


@contextmanager
def benching(*arguments, **options):
    """A running `sipc bench`, in a session of its own; nothing of it is left at the end."""
    with Program(
        [SIPC, "bench", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
        **options,
    ) as program:
        yield program
    wait_until(lambda: not _in_group(program.pid), "no process of it left")


def _in_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class LoadThread(threading.Thread):
    """Generates load as a process does, and starts much faster. In place of subprocess.Popen."""

    def __init__(self, _command: object, **_pipes: object) -> None:
        super().__init__()
        ends = [*os.pipe(), *os.pipe()]
        modes = ["rb", "wb", "rb", "wb"]
        self._commands, self.stdin, self.stdout, self._reports = map(open, ends, modes)
        self.start()

    def run(self) -> None:
        with self._commands, self._reports, suppress(EOFError):
            generator_processes.generate(self._commands, self._reports)

    def poll(self) -> int | None:
        return None if self.is_alive() else 0

    def wait(self) -> int:
        self.join()
        return 0


def run_bench(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
    """Run `sipc bench` in this process, and in threads in place of other processes."""
    starts = SimpleNamespace(Popen=LoadThread, PIPE=None, STDOUT=None)
    with patch.object(generator_processes, "subprocess", starts):
        return run_cli("bench", *arguments, **options)


def bench_json(endpoint, *arguments) -> dict:
    done = run_bench(endpoint, "--json", "-", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Requests


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ([], b""),
        (["-d", "ping"], b"ping"),
        (["--size", "100000"], bytes(100000)),
        (["--size", "0"], b""),
    ],
    ids=["nothing", "data", "size", "size 0"],
)
def test_the_given_number_of_requests_is_sent(endpoint, arguments, payload):
    with RespondingServer(endpoint) as server:
        found = bench_json(endpoint, "-n", "7", *arguments)
    assert server.requests == [payload] * 7
    counts = found["counts"]
    assert (counts["started"], counts["answered"], counts["failed"]) == (7, 7, 0)
    assert counts["bytes_out"] == counts["bytes_in"] == 7 * len(payload)


@pytest.mark.parametrize("source", ["file", "-"])
def test_the_request_can_come_from_a_file(endpoint, folder, source):
    (folder / "request").write_bytes(b"\0\xff\n")
    name = "-" if source == "-" else folder / "request"
    with RespondingServer(endpoint) as server:
        done = run_bench(endpoint, "-n", "2", "--data-file", name, input=b"\0\xff\n")
    assert done.returncode == 0, done.stderr
    assert server.requests == [b"\0\xff\n"] * 2


@pytest.mark.parametrize("processes", [1, 2])
def test_the_given_number_of_requests_is_in_flight(endpoint, processes):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        with benching(endpoint, "-c", 5, "-n", 20, "--processes", processes, "-q") as program:
            wait_until(lambda: len(server.requests) == 5, "five requests")
            server.go_on.set()
            assert program.wait(TIMEOUT) == 0
        assert len(server.requests) == 20


def test_an_open_loop_does_not_wait_for_responses(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        with benching(endpoint, "-R", 1000, "-n", 50, "-q") as program:
            wait_until(lambda: len(server.requests) == 50, "all requests without a response")
            server.go_on.set()
            assert program.wait(TIMEOUT) == 0


def test_the_warm_up_is_not_counted(endpoint):
    with RespondingServer(endpoint) as server:
        found = bench_json(endpoint, "-R", "100", "-n", "5", "-w", "100ms")
    assert found["counts"]["answered"] == 5
    assert len(server.requests) == 15


def test_a_run_without_a_number_of_requests_ends_after_its_time(endpoint):
    with RespondingServer(endpoint) as server:
        found = bench_json(endpoint, "-z", "300ms", "-c", "2")
    assert found["counts"]["answered"] == len(server.requests) > 0
    assert found["elapsed"] >= 300_000_000


def test_a_run_takes_ten_seconds_by_default():
    assert b"[default: 10s, unless -n is given]" in b" ".join(run_bench("-h").stdout.split())


@pytest.mark.parametrize(("limit", "processes"), [(64, 1), (30, 4)])
def test_a_low_soft_limit_of_descriptors_is_raised(endpoint, limit, processes):
    command = f'ulimit -S -n {limit}; exec "{SIPC}" bench "{endpoint}" -q -c 80 -n 200'
    command += f" --processes {processes}"
    with RespondingServer(endpoint) as server:
        done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment())
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(server.requests) == 200


@pytest.mark.parametrize(
    ("limit", "processes", "what", "remedy"),
    [
        (64, 1, "80 at once need 104", "--processes or a lower --concurrency"),
        (40, 40, "40 processes need 104", "fewer --processes"),
    ],
)
def test_a_low_hard_limit_of_descriptors_is_an_error(endpoint, limit, processes, what, remedy):
    command = f'ulimit -n {limit}; exec "{SIPC}" bench "{endpoint}" -q -c 80 -n 200'
    command += f" --processes {processes}"
    with RespondingServer(endpoint) as server:
        done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment())
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"sipc bench: {what} descriptors, but the limit is {limit}: raise it with"
        f" ulimit -n, or use {remedy}\n"
    )
    assert server.requests == []


# What it counts


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (b"", "truncated"),
        (b"0008pang", "truncated"),
        (b"nonsense", "protocol"),
        (message(b"pang"), "not as expected"),
    ],
    ids=["hang-up", "cut off", "nonsense", "another response"],
)
def test_failures_are_counted_by_kind_and_never_timed_as_responses(endpoint, response, kind):
    responses = iter([response, message(b"pong"), message(b"pong\n"), response] * 2)
    with RespondingServer(endpoint, respond=lambda _: next(responses)):
        found = bench_json(endpoint, "-n", "8", "--expect", "pong")
    assert {name: times["count"] for name, times in found["failures"].items()} == {kind: 4}
    assert found["times"]["service"]["count"] == 4


def test_timeouts_are_failures(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        done = run_bench(endpoint, "-n", "2", "-c", "2", "--timeout", "50ms")
        server.go_on.set()
    assert done.returncode == 1
    assert done.stderr == (
        b"sipc bench: no request was answered; most frequent failure: timeout:"
        b" test with sipc send\n"
    )
    assert re.search(rb"^timeout +2 ", done.stdout, re.M)


@pytest.mark.parametrize("loop", [["-c", 4], ["-R", 400]], ids=["closed", "open"])
def test_counts_add_up_when_the_server_restarts(endpoint, loop):
    with ExitStack() as stack:
        first = stack.enter_context(RespondingServer(endpoint))
        program = stack.enter_context(benching(endpoint, *loop, "-z", "1h", "--json", "-"))
        wait_until(lambda: len(first.requests) > 20, "some requests")
        first.stop()
        endpoint.unlink()
        second = stack.enter_context(RespondingServer(endpoint))
        wait_until(lambda: len(second.requests) > 20, "some requests more")
        program.send_signal(signal.SIGINT)
        found = json.loads(program.communicate(timeout=TIMEOUT)[0])
    counts = found["counts"]
    assert counts["started"] == sum(counts[end] for end in ("answered", "failed", "unfinished"))
    received = len(first.requests) + len(second.requests)
    assert counts["answered"] <= received <= counts["started"]
    assert received - counts["answered"] <= counts["unfinished"]
    assert set(found["failures"]) <= {"refused", "truncated"}


# How it ends


@pytest.mark.parametrize(
    ("number", "status", "processes"),
    [
        (signal.SIGINT, 130, 1),
        (signal.SIGTERM, 143, 1),
        (signal.SIGHUP, 129, 1),
        (signal.SIGINT, 130, 2),
    ],
)
def test_a_signal_ends_the_load_and_a_partial_report_is_written(
    endpoint, folder, number, status, processes
):
    with RespondingServer(endpoint) as server:
        options = ["-c", 4, "-z", "1h", "--processes", processes, "--json", folder / "report"]
        with benching(endpoint, *options) as program:
            wait_until(lambda: len(server.requests) > 20, "some requests")
            os.killpg(program.pid, number)  # as a terminal does
            output, errors = program.communicate(timeout=TIMEOUT)
    assert (program.returncode, errors) == (status, b"")
    assert b"\nPartial: interrupted before the end of the load.\n" in output
    found = json.loads((folder / "report").read_bytes())
    assert found["partial"] is True
    counts = found["counts"]
    assert counts["started"] == counts["answered"] + counts["unfinished"]
    assert 0 <= len(server.requests) - counts["answered"] <= 4


def test_a_signal_ends_the_load_while_no_response_comes(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        with benching(endpoint, "-c", 2, "--timeout", 0) as program:
            wait_until(lambda: len(server.requests) == 2, "two requests")
            program.send_signal(signal.SIGINT)
            output, _ = program.communicate(timeout=TIMEOUT)
        assert program.returncode == 130
        assert b"2 sent, 0 answered, 0 failed, 2 unfinished" in output


def test_the_processes_of_a_killed_bench_end(endpoint):
    with RespondingServer(endpoint) as server:
        with benching(endpoint, "-c", 2, "-z", "1h", "--processes", 2) as program:
            wait_until(lambda: len(server.requests) > 20, "some requests")
            assert len(children(program.pid)) >= 2
            program.kill()
            program.communicate(timeout=TIMEOUT)


@pytest.mark.parametrize("kind", ["missing", "stale", "file"])
def test_an_invalid_endpoint_is_an_error_before_any_load(endpoint, folder, kind):
    if kind == "stale":
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(endpoint))
    elif kind == "file":
        endpoint.touch()
    done = run_bench(endpoint, "--json", folder / "report")
    assert done.returncode == {"missing": 4, "stale": 3, "file": 5}[kind]
    assert re.fullmatch(rb"sipc bench: [^\n]+: [^\n]+\n", done.stderr)
    if kind != "file":
        assert b": start a server there, or wait for one with sipc probe --wait\n" in done.stderr
    assert done.stdout == b""
    assert not (folder / "report").exists()


# Conditions


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("p98>5ms", "unknown figure 'p98'"),
        ("p99>5", "p99 cannot be '5'"),
        ("p99=5ms", "unknown operator '='"),
        ("rate", "no operator after rate"),
        ("", "unknown figure ''"),
    ],
)
def test_an_invalid_condition_is_refused_before_any_load(endpoint, expression, complaint):
    with RespondingServer(endpoint) as server:
        done = run_bench(endpoint, "--fail-if", "p50>1s", "--fail-if", expression)
    assert done.returncode == 2
    assert complaint in done.stderr.decode()
    assert server.requests == []


def test_a_condition_that_holds_is_a_failure(endpoint):
    conditions = ["errors>0", "p50>1h", "rate>0", "requests!=400"]
    options = [word for each in conditions for word in ("--fail-if", each)]
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "400", *options)
    assert done.returncode == 10
    table = done.stdout.decode().partition("\nConditions\n")[2].splitlines()[1:5]
    results = [(line.split()[0], line.split()[-1]) for line in table]
    expected = ["passed", "passed", "failed", "passed"]
    assert results == list(zip(conditions, expected, strict=True))
    assert re.fullmatch(
        rb"sipc bench: fail if rate>0: rate is [\d.,]+/s: see the report\n", done.stderr
    )


def test_conditions_that_do_not_hold_are_a_success(endpoint):
    with RespondingServer(endpoint):
        done = run_cli(
            "bench", endpoint, "-n", "9", "--fail-if", "errors > 0", "--fail-if", "p50>1h"
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_percentile_of_too_few_samples_passes_if_their_bounds_decide(endpoint):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "20", "--fail-if", "p99>1h", "--fail-if", "p99<1ns")
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"^p99>1h +[^-\n]+ passed$", done.stdout, re.M)


def test_a_condition_that_stays_open_fails_and_names_the_number_of_requests(endpoint):
    slow = threading.Event()

    def respond(request: bytes) -> bytes:
        slow.wait(0.2)  # only the first, so that the two longest times differ
        slow.set()
        return message(request)

    with RespondingServer(endpoint, respond=respond):
        done = run_bench(endpoint, "-n", "5", "--fail-if", "p99>100ms")
    assert done.returncode == 10
    assert re.fullmatch(
        rb"sipc bench: fail if p99>100ms: p99 is [^:]+ to [^:]+, which counts as failed:"
        rb" use -n 100 or more: see the report\n",
        done.stderr,
    )
    assert b"failed: use -n 100 or more\n" in done.stdout


# Baselines


def test_a_baseline_shows_what_has_changed(endpoint, folder):
    with RespondingServer(endpoint):
        assert run_bench(endpoint, "-n", "60", "--json", folder / "old").returncode == 0
        done = run_bench(endpoint, "-n", "60", "--baseline", folder / "old")
    assert done.returncode == 0
    table = done.stdout.decode().partition("\nSince the baseline\n")[2].splitlines()
    assert table[0].split() == ["baseline", "now", "change", "verdict"]
    old = Report.from_json(json.loads((folder / "old").read_bytes()))
    for name, line in zip(("rate", "mean", "p50", "p75"), table[1:], strict=False):
        assert line.split("  ")[0] == name
        assert fmt.format_figure(name, old.values()[name]) in line
    for line in table[1:11]:
        assert re.search(r"  (better|worse|within noise|too few samples)$", line)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"[" * 100_000, b'{"schema": "sipc-bench", "version": 2}', b"\xff\xfe"],
    ids=["missing", "empty", "no report", "deep", "of another version", "no text"],
)
def test_an_invalid_baseline_is_refused_before_any_load(endpoint, folder, content):
    if content is not None:
        (folder / "old").write_bytes(content)
    with RespondingServer(endpoint) as server:
        done = run_bench(endpoint, "--baseline", folder / "old")
    assert done.returncode == 1
    assert re.fullmatch(rb"sipc bench: [^\n]*old[^\n]*: [^\n]+\n", done.stderr)
    assert server.requests == []


def test_the_baseline_may_be_the_file_that_is_written(endpoint, folder):
    report = folder / "report"
    with RespondingServer(endpoint):
        assert run_bench(endpoint, "-n", "9", "--json", report).returncode == 0
        done = run_bench(endpoint, "-n", "8", "--json", report, "--baseline", report)
    assert done.returncode == 0
    assert json.loads(report.read_bytes())["counts"]["started"] == 8


# Files

FORMS = ["json", "csv", "markdown", "html"]


def test_every_form_can_be_written_at_once(endpoint, folder):
    options = [word for form in FORMS for word in (f"--{form}", str(folder / form))]
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "9", *options)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(folder)) == sorted([*FORMS, "sock"])
    for form, begin in zip(FORMS, (b"{", b"", b"", b"<!DOCTYPE html>"), strict=True):
        assert (folder / form).read_bytes().startswith(begin)
        assert (folder / form).read_bytes().endswith(b"\n")


@pytest.mark.parametrize("form", FORMS)
def test_a_dash_is_standard_output_in_place_of_the_report(endpoint, folder, form):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "9", f"--{form}", "-", cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\nload       closed loop" not in done.stdout
    assert os.listdir(folder) == ["sock"]


def test_two_forms_cannot_go_to_one_file(endpoint):
    done = run_bench(endpoint, "--json", "-", "--html", "-")
    assert done.returncode == 2
    assert b"two reports cannot both be written to -" in done.stderr


def test_files_that_cannot_be_written_are_an_error_before_any_load(endpoint, folder):
    with RespondingServer(endpoint) as server:
        done = run_bench(endpoint, "--csv", folder / "a", "--html", folder / "no" / "b")
    assert done.returncode == 1
    assert re.fullmatch(rb"sipc bench: cannot write to [^\n]+/no/b: [^\n]+\n", done.stderr)
    assert server.requests == []
    assert os.listdir(folder) == ["sock"]


@pytest.mark.parametrize("options", ["", "--csv -"], ids=["the report", "a dash"])
def test_a_full_disk_leaves_the_old_file_and_the_report_is_printed(endpoint, folder, options):
    (folder / "report").write_text("old")
    command = f'ulimit -f 1; exec "{SIPC}" bench "{endpoint}" -n 99 --json "{folder}/report"'
    with RespondingServer(endpoint):
        command = ["bash", "-c", f"{command} {options}"]
        done = subprocess.run(command, capture_output=True, env=environment())
    assert done.returncode == 1
    assert re.fullmatch(rb"sipc bench: cannot write to [^\n]+: [^\n]+\n", done.stderr)
    assert re.search(rb"^rate", done.stdout, re.M)
    assert (folder / "report").read_text() == "old"
    assert sorted(os.listdir(folder)) == ["report", "sock"]


def test_a_file_that_cannot_be_written_does_not_cost_the_others(endpoint, folder):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "9", "--json", "/dev/full", "--csv", folder / "csv")
    assert_error_line(done, 1, "/dev/full", stdout=done.stdout)
    assert re.search(rb"^rate", done.stdout, re.M)
    assert (folder / "csv").read_bytes()


def test_a_path_that_is_no_text_is_valid_json(folder):
    path = folder / "\udcff"
    with RespondingServer(path):
        done = run_bench(path, "-n", "9", "--json", "-")
    assert json.loads(done.stdout)["path"] == f"{folder}/\\udcff"


@needs_root
def test_the_report_overwrites_a_mount_point(endpoint, folder):
    (folder / "report").touch()
    mount = 'mount --bind "$0" "$0" && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", mount, folder / "report"]
    with RespondingServer(endpoint):
        command = [*wrapper, SIPC, "bench", endpoint, "-n", "9", "--json", folder / "report"]
        done = subprocess.run(command, capture_output=True, env=environment())
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"^rate", done.stdout, re.M)
    assert json.loads((folder / "report").read_bytes())["counts"]["answered"] == 9
    assert sorted(os.listdir(folder)) == ["report", "sock"]


def test_an_interrupted_run_replaces_the_old_file_completely(endpoint, folder):
    (folder / "report").write_text("old")
    with RespondingServer(endpoint) as server:
        with benching(endpoint, "-z", "1h", "--json", folder / "report") as program:
            wait_until(lambda: len(server.requests) > 5, "some requests")
            program.send_signal(signal.SIGINT)
            server.go_on.clear()
            program.communicate(timeout=TIMEOUT)
    assert json.loads((folder / "report").read_bytes())["partial"] is True
    assert sorted(os.listdir(folder)) == ["report", "sock"]


# The report for people


def test_quiet_prints_nothing(endpoint):
    with RespondingServer(endpoint):
        done = sipc("bench", endpoint, "-n", "9", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_without_a_terminal_there_is_no_colour_and_no_progress(endpoint):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "400", env=environment(TERM="xterm-256color"))
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    assert b"\r" not in done.stdout
    assert max(map(len, done.stdout.decode().splitlines())) <= 80


def test_the_report_is_ascii(endpoint):
    with RespondingServer(endpoint):
        done = sipc("bench", endpoint, "-n", "9", env=environment(PYTHONIOENCODING="ascii"))
    assert b"#" in done.stdout
    assert done.stdout.isascii()


def test_usage_is_checked(endpoint):
    for arguments in (
        ["-d", "x", "--size", "1"], ["-d", "x", "--data-file", "x"], ["-c", "0"], ["-n", "0"],
        ["-R", "0"], ["-R", "-1"], ["--processes", "0"], ["-z", "x"], ["--size", "x"],
        ["-R", "nan"],
    ):  # fmt: skip
        assert run_bench(endpoint, *arguments).returncode == 2, arguments


# Where it is started


def test_modules_in_the_working_directory_are_not_imported(endpoint, folder):
    (folder / "struct.py").write_text("raise ImportError('a stranger')\n")
    with RespondingServer(endpoint):
        done = sipc("bench", endpoint, "-n", "3", "-q", "--processes", "2", cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_signal_ends_it_while_its_processes_start(endpoint):
    with RespondingServer(endpoint) as server:
        with benching(endpoint, "-c", 64, "--processes", 64, "-z", "1h") as program:
            wait_until(lambda: children(program.pid), "the first process")
            program.send_signal(signal.SIGINT)
            output, errors = program.communicate(timeout=TIMEOUT)
    assert (program.returncode, errors) == (130, b"")
    assert b"\nPartial: interrupted before the end of the load.\n" in output
    assert server.requests == []


def test_a_run_without_requests_is_a_failure(endpoint):
    with RespondingServer(endpoint) as server:
        server.go_on.clear()
        options = ["-R", "1000", "-c", "1", "-w", "100ms", "-z", "100ms", "--timeout", "300ms"]
        done = run_bench(endpoint, *options)
        server.go_on.set()
    assert done.returncode == 1
    assert b"sipc bench: no request was" in done.stderr


def test_a_busy_server_is_an_error_whose_remedy_bench_has(endpoint):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(endpoint))
        busy.listen(0)
        with connect(endpoint):
            done = sipc("bench", endpoint, "-n", "1")
    assert_error_line(done, 3, "is busy")
    assert b"--wait" not in done.stderr


def test_two_names_of_one_file_are_noticed(endpoint, folder):
    done = run_bench(endpoint, "--json", "x", "--csv", "./x", cwd=folder)
    assert done.returncode == 2
    assert b"cannot both be written to ./x" in done.stderr


def test_numbers_too_large_for_a_float_are_refused_before_any_load(endpoint, folder):
    with RespondingServer(endpoint) as server:
        assert run_bench(endpoint, "-n", "1", "--json", folder / "old").returncode == 0
        report = json.loads((folder / "old").read_bytes())
        for change in ({"elapsed": 10**400}, {"generator": {"cpu_share": 10**400}}):
            (folder / "old").write_text(json.dumps({**report, **change}))
            done = run_bench(endpoint, "--baseline", folder / "old")
            assert done.returncode == 1
            assert b"it is incomplete or damaged" in done.stderr
    assert len(server.requests) == 1
