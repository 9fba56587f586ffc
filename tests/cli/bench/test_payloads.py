"""`sipc bench` with a different payload for each request: --data-lines and --data-null."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest
from helpers.bench_reports import MS
from helpers.benching import bench_json, counted_time, run_bench
from helpers.command import assert_error_line, sipc
from helpers.scripted_server import RespondingServer
from helpers.wire import message

LINES = b"one\ntwo\n\nfour\xff\r\nfive"
RECORDS = [b"one", b"two", b"", b"four\xff\r", b"five"]


@pytest.fixture
def lines(folder):
    path = folder / "lines"
    path.write_bytes(LINES)
    return path


@pytest.fixture
def server(endpoint):
    with RespondingServer(endpoint) as server:
        yield server


def test_each_line_is_sent_in_turn(endpoint, lines, server):
    found = bench_json(endpoint, "-n", "12", "--data-lines", lines)
    assert server.requests == [*RECORDS, *RECORDS, *RECORDS[:2]]
    sent = sum(map(len, server.requests))
    assert (found["counts"]["bytes_out"], found["counts"]["bytes_in"]) == (sent, sent)


def test_records_can_end_with_a_nul(endpoint, folder, server):
    (folder / "records").write_bytes(b"\n\0\0a\0b")
    bench_json(endpoint, "-n", "5", "--data-null", folder / "records")
    assert server.requests == [b"\n", b"", b"a", b"b", b"\n"]


@pytest.mark.parametrize("option", ["--data-lines", "--data-null"])
def test_records_can_come_from_standard_input(endpoint, server, option):
    separator = b"\n" if option == "--data-lines" else b"\0"
    data = separator.join([b"a", b"b", b""])
    done = run_bench(endpoint, "-n", "3", option, "-", "-q", input=data)
    assert (done.returncode, server.requests) == (0, [b"a", b"b", b"a"])


def test_records_of_any_size_arrive_whole(endpoint, folder, server):
    records = [bytes([65 + number]) * size for number, size in enumerate((1, 300_000, 65_516))]
    (folder / "records").write_bytes(b"\n".join(records))
    bench_json(endpoint, "-n", "3", "--data-lines", folder / "records")
    assert server.requests == records


@pytest.mark.parametrize("option", [[], ["--shuffle"]], ids=["in order", "shuffled"])
@pytest.mark.parametrize("loop", [["-c", "7"], ["-R", "1000"]], ids=["closed", "open"])
@pytest.mark.parametrize("processes", [1, 3])
def test_as_many_requests_as_lines_send_each_line_once(
    endpoint, folder, server, processes, loop, option
):
    (folder / "lines").write_bytes(b"".join(b"%d\n" % number for number in range(50)))
    arguments = ["--data-lines", folder / "lines", "--processes", processes, *loop, *option]
    bench_json(endpoint, "-n", "50", *arguments)
    assert Counter(server.requests) == Counter(b"%d" % number for number in range(50))


def test_the_installed_command_sends_each_line_once_from_several_processes(endpoint, lines, server):
    done = sipc("bench", endpoint, "-n5", "-c5", "--processes", 2, "-q", "--data-lines", lines)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(server.requests) == sorted(RECORDS)


def test_the_warm_up_does_not_change_which_lines_are_counted(endpoint, lines, server):
    with counted_time(MS):
        found = bench_json(endpoint, "-n", "5", "-w", "100ms", "--data-lines", lines)
    assert len(server.requests) > 5
    assert server.requests[-5:] == RECORDS
    assert found["counts"]["bytes_out"] == sum(map(len, RECORDS))


def test_a_shuffled_order_is_the_same_in_each_run(endpoint, lines, server):
    for _ in range(2):
        bench_json(endpoint, "-n", "10", "--data-lines", lines, "--shuffle")
    order = server.requests[:5]
    assert server.requests == order * 4
    assert order != RECORDS
    assert sorted(order) == sorted(RECORDS)


# -- expected responses ----------------------------------------------------------------


@pytest.mark.parametrize("option", [[], ["--shuffle"]], ids=["in order", "shuffled"])
@pytest.mark.parametrize("processes", [1, 2])
def test_each_response_is_compared_with_the_line_of_its_request(
    endpoint, folder, server, processes, option
):
    (folder / "expected").write_bytes(b"ONE\nTWO\n\nFOUR\nFive\n")
    (folder / "lines").write_bytes(b"one\ntwo\n\nfour\nfive\n")
    server.respond = lambda payload: message(payload.upper() + b"\n")
    files = ["--data-lines", folder / "lines", "--expect-lines", folder / "expected"]
    arguments = ["-n", "10", "-c", "2", "--processes", processes, *files, *option]
    counts = bench_json(endpoint, *arguments)["counts"]
    assert (counts["answered"], counts["failed"]) == (8, 2)  # FIVE is not Five


def test_one_expected_response_for_all_lines(endpoint, lines, server):
    found = bench_json(endpoint, "-n", "5", "--data-lines", lines, "--expect", "two")
    assert found["failures"]["not as expected"]["count"] == 4
    assert found["settings"]["expects"]


@pytest.mark.parametrize("expected", [b"", b"1\n2\n3\n4\n", b"1\n2\n3\n4\n5\n\n"])
def test_another_number_of_expected_responses_is_a_usage_error(
    endpoint, folder, lines, server, expected
):
    (folder / "expected").write_bytes(expected)
    done = run_bench(endpoint, "--data-lines", lines, "--expect-lines", folder / "expected")
    assert (done.returncode, done.stdout, server.requests) == (2, b"", [])
    count = expected.count(b"\n")
    assert f"expected has {count} lines, but {lines} has 5 lines" in done.stderr.decode()


# -- usage errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--data-lines", "F", "-d", "x"], "exclude each other"),
        (["--data-lines", "F", "--data-file", "F"], "exclude each other"),
        (["--data-lines", "F", "--data-null", "F"], "exclude each other"),
        (["--data-null", "F", "--size", "0"], "exclude each other"),
        (["--shuffle"], "requires --data-lines"),
        (["-d", "x", "--expect-lines", "F"], "requires --data-lines"),
        (["--data-lines", "F", "--expect-lines", "F", "--expect", "x"], "cannot be combined"),
        (["--data-lines", "-", "--expect-lines", "-"], "cannot both be standard input"),
        (["--data-null", "/dev/stdin", "--baseline", "-"], "cannot both be standard input"),
        (["--data-lines", "/dev/null"], "is empty"),
        (["--data-null", "-"], "standard input is empty"),
    ],
)
def test_options_that_cannot_be_combined_are_usage_errors(
    endpoint, lines, server, arguments, error
):
    words = [lines if word == "F" else word for word in arguments]
    done = run_bench(endpoint, *words)
    assert (done.returncode, done.stdout, server.requests) == (2, b"", [])
    assert error in done.stderr.decode()


@pytest.mark.parametrize("option", ["--data-lines", "--data-null"])
def test_a_file_that_cannot_be_read_is_an_error(endpoint, folder, server, option):
    done = run_bench(endpoint, option, folder / "none")
    assert_error_line(done, 1, "cannot read", "none")
    assert server.requests == []


# -- reports ---------------------------------------------------------------------------


@pytest.mark.parametrize("option", [[], ["--shuffle"]], ids=["in order", "shuffled"])
def test_all_reports_say_what_was_sent(endpoint, folder, lines, server, option):
    files = {name: folder / name for name in ("json", "csv", "markdown", "html")}
    written = [word for name, file in files.items() for word in (f"--{name}", file)]
    done = run_bench(endpoint, "-n", "5", "--data-lines", lines, *option, *written)
    assert (done.returncode, done.stderr) == (0, b"")
    order = "shuffled" if option else "in order"
    size = sum(map(len, RECORDS))
    fact = f"{lines}, 5 payloads {order}, {size} B in total"
    assert f"\ndata       {fact}\n" in done.stdout.decode()
    assert ", 5 requests, 3 B on average\n" in done.stdout.decode()
    assert fact in files["markdown"].read_text().replace("\\", "")
    assert fact in files["html"].read_text()
    settings = json.loads(files["json"].read_bytes())["settings"]
    expected = {"data_file": str(lines), "order": order, "payloads": 5, "payload_bytes": size}
    assert expected.items() <= settings.items()
    rows = {name: value for name, _, value in csv.reader(files["csv"].read_text().splitlines())}
    assert {name: rows[name] for name in expected} == {k: str(v) for k, v in expected.items()}


def test_a_report_of_one_payload_names_no_file(endpoint, server):
    found = run_bench(endpoint, "-n", "1", "-d", "x", "--csv", "-").stdout.splitlines()
    assert {b"data_file,text,", b"order,text,", b"payloads,count,1", b"size,bytes,1"} <= set(found)
    assert b"\ndata " not in run_bench(endpoint, "-n", "1", "-d", "x").stdout


def test_the_name_of_a_file_is_no_formula_and_valid_json(endpoint, folder, server):
    name = "=1+1\udcff"
    (folder / name).write_bytes(b"x\n")
    done = run_bench(endpoint, "-n1", "--data-lines", name, "--json", "j", "--csv", "c", cwd=folder)
    assert b"\ndata       =1+1\\udcff, 1 payload in order" in done.stdout
    assert json.loads((folder / "j").read_bytes())["settings"]["data_file"] == "=1+1\\udcff"
    assert "data_file,text,./=1+1" in (folder / "c").read_text()


def test_a_baseline_with_other_requests_gives_a_warning(endpoint, folder, lines, server):
    old = folder / "old.json"
    arguments = [endpoint, "-n", "5", "--data-lines", lines]
    assert run_bench(*arguments, "--json", old).returncode == 0
    assert b"Warning" not in run_bench(*arguments, "--baseline", old).stdout
    done = run_bench(*arguments, "--shuffle", "--baseline", old)
    assert b"Warning: order is shuffled, but in order in the baseline." in done.stdout
    lines.write_bytes(LINES + b"\nsix")
    done = run_bench(*arguments, "--baseline", old, "--markdown", "-")
    assert b"Warning: payloads is 6, but 5 in the baseline." in done.stdout
    done = run_bench(endpoint, "-n", "5", "-d", "x", "-c", "2", "--baseline", old)
    assert b"Warning: data file is none, but %s in the base" % bytes(lines) in done.stdout
    assert b"Warning: concurrency is 2, but 1 in the baseline." in done.stdout


def test_a_baseline_of_an_earlier_version_has_the_same_requests(endpoint, folder, server):
    arguments = [endpoint, "-n", "5", "-d", "x"]
    assert run_bench(*arguments, "--json", folder / "old").returncode == 0
    report = json.loads((folder / "old").read_bytes())
    for name in ("data_file", "order", "payloads", "payload_bytes"):
        del report["settings"][name]
    (folder / "old").write_text(json.dumps(report))
    done = run_bench(*arguments, "--baseline", folder / "old")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Warning" not in done.stdout
