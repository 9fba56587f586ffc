"""Modules that most commands do not need are not loaded, to start fast."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.command import environment
from helpers.scripted_server import ScriptedServer
from helpers.sending import echo

LOADED_LATER = (
    *("observe", "spool", "rich", "mmap"),
    *("cli.line_writer", "cli.send.diagnostics", "cli.expect", "cli.output", "cli.probe.several"),
)

# Each of them takes longer to load than a small exchange takes.
HEAVY = (
    *("click", "cli.app", "argparse", "re", "enum", "typing", "signal", "socket", "select"),
    *("collections", "contextlib", "dataclasses", "functools", "subprocess", "threading"),
    *("ctypes", "inspect", "json", "struct", "tempfile", "shutil", "logging", "warnings"),
    "importlib",
)


# Not with -m, which itself loads many modules; nor the script, which an old pip makes load `re`.
PROGRAM = "from simpleipc_cli.__main__ import main; main()"


def loaded_by(*arguments) -> set[str]:
    command = [sys.executable, "-I", "-X", "importtime", "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, env=environment())
    assert done.returncode == 0
    names = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    return {name.removeprefix("simpleipc_cli.") for name in names}


@pytest.fixture(scope="module")
def bare():
    """The modules that Python loads by itself, and for other packages that are installed."""
    command = [sys.executable, "-I", "-X", "importtime", "-c", "pass"]
    lines = subprocess.run(command, capture_output=True, check=True).stderr.decode().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [["send"], ["send", "-d", "x"], ["send", "-d", "x", "-m", "9h"], ["probe"], ["probe", "-q"]],
    ids=" ".join,
)
def test_plain_forms_load_no_large_module(endpoint, arguments, bare):
    with ScriptedServer(endpoint, echo):
        loaded = loaded_by(*arguments, endpoint)
    assert {"client", "cli.parse"} <= loaded
    assert set(HEAVY) & (loaded - bare) <= ({"select"} if "-m" in arguments else set())
    assert [name for name in loaded if name.startswith(LOADED_LATER)] == []


@pytest.mark.parametrize("verb", ["send", "probe"])
def test_a_plain_form_that_click_parses_loads_no_module_of_other_options(endpoint, verb):
    with ScriptedServer(endpoint, echo):
        plain = loaded_by(verb, "--", endpoint)
    assert {"client", f"cli.{verb}.run", "click"} <= plain
    assert [name for name in plain if name.startswith(LOADED_LATER)] == []


def test_the_help_of_all_verbs_loads_no_click():
    assert not {"click", "cli.app"} & loaded_by("--help")


def test_an_option_loads_only_the_modules_that_it_needs(endpoint):
    with ScriptedServer(endpoint, echo):
        loaded = loaded_by("send", endpoint, "-d", "x", "--trace-file", "/dev/null")
    assert {"observe", "cli.line_writer"} <= loaded
    assert not {"rich", "mmap", "cli.expect"} & loaded


@pytest.mark.parametrize(
    "options",
    [
        ["--exec", "cat"],
        ["--exec", "cat", "--prestart", "1", "--log-file", "log", "--log-format", "json"],
        ["--worker", "cat", "--threads", "2", "--pid-file", "pid", "--kill-after", "0"],
        ["--call", "json:loads", "--drain-timeout", "1s", "--backlog", "5"],
    ],
    ids=" ".join,
)
def test_common_forms_of_serve_load_no_click(endpoint, options, monkeypatch):
    monkeypatch.chdir(endpoint.parent)
    loaded = loaded_by("serve", endpoint, *options, "--idle-timeout", "1ms", "-q")
    assert "server.server" in loaded
    assert not {"click", "cli.app", "cli.options", "cli.serve.command"} & loaded


def test_serve_and_bench_load_no_module_of_other_options(endpoint):
    serve = loaded_by("serve", endpoint, "--exec", "cat", "--idle-timeout", "1ms", "-q")
    assert {"handlers.exec", "server.server"} <= serve
    assert not {"json", "socket", "tempfile"} & serve
    with ScriptedServer(endpoint, echo):
        bench = loaded_by("bench", endpoint, "-n", "1", "-d", "x")
    assert "bench.generator" in bench
    assert not {"handlers.stderr", "bench.payloads", "cli.help"} & (serve | bench)
