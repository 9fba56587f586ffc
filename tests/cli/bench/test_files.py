"""`sipc bench`: the files that it writes, and the baseline that it reads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest
from helpers.benching import benching, run_bench
from helpers.command import (
    SIPC,
    assert_error_line,
    environment,
    needs_root,
)
from helpers.scripted_server import RespondingServer
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli.bench import format as fmt
from simpleipc_cli.bench.report import Report

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


# Files

FORMS = ["json", "csv", "markdown", "html"]


def test_one_run_can_write_a_report_in_every_format(endpoint, folder):
    options = [word for form in FORMS for word in (f"--{form}", str(folder / form))]
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "9", *options)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(folder)) == sorted([*FORMS, "sock"])
    for form, begin in zip(FORMS, (b"{", b"", b"", b"<!DOCTYPE html>"), strict=True):
        assert (folder / form).read_bytes().startswith(begin)
        assert (folder / form).read_bytes().endswith(b"\n")


@pytest.mark.parametrize("form", FORMS)
def test_a_dash_writes_to_standard_output_in_place_of_the_text_report(endpoint, folder, form):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "9", f"--{form}", "-", cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\nload       closed loop" not in done.stdout
    assert os.listdir(folder) == ["sock"]


def test_two_formats_cannot_be_written_to_one_file(endpoint):
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


def test_the_other_files_are_written_if_one_cannot_be_written(endpoint, folder):
    with RespondingServer(endpoint):
        done = run_bench(endpoint, "-n", "9", "--json", "/dev/full", "--csv", folder / "csv")
    assert_error_line(done, 1, "/dev/full", stdout=done.stdout)
    assert re.search(rb"^rate", done.stdout, re.M)
    assert (folder / "csv").read_bytes()


def test_a_path_that_is_not_utf_8_gives_valid_json(folder):
    path = folder / "\udcff"
    with RespondingServer(path):
        done = run_bench(path, "-n", "9", "--json", "-")
    assert json.loads(done.stdout)["path"] == f"{folder}/\\udcff"


@needs_root
def test_a_report_is_written_to_a_file_that_is_a_mount_point(endpoint, folder):
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


def test_two_names_of_one_file_are_refused(endpoint, folder):
    done = run_bench(endpoint, "--json", "x", "--csv", "./x", cwd=folder)
    assert done.returncode == 2
    assert b"cannot both be written to ./x" in done.stderr
