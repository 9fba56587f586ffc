"""What all verbs share: help, values, usage errors, and errors without a traceback."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import is_in_syscall
from helpers.scripted_server import ScriptedServer
from helpers.sending import echo
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli.cli.app import app

VERBS = ["serve", "send", "probe", "bench"]


@pytest.mark.parametrize("run", [sipc, run_cli])
def test_help_lists_the_verbs(run):
    done = run("--help")
    assert done.returncode == 0
    assert re.findall(rb"^  (\w+)  ", done.stdout, re.M)[-4:] == [v.encode() for v in VERBS]


def test_help_lists_the_options_of_the_group():
    shown = re.findall(r"^  (-.+?)  ", run_cli("--help").stdout.decode(), re.M)
    group = app.get_params(app.make_context("sipc", [], resilient_parsing=True))
    assert {flag for option in group for flag in option.opts} == set(", ".join(shown).split(", "))


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples_that_fits_a_terminal(verb, option):
    done = run_cli(verb, option, env=environment(COLUMNS="80"))
    assert done.returncode == 0
    assert done.stdout.startswith(b"Usage: sipc %s [OPTIONS] [PATH]" % verb.encode())
    assert max(map(len, done.stdout.decode().splitlines())) <= 80
    examples = rb"\n  Examples:\n    .*sipc %s .*\n    .*sipc %s " % ((verb.encode(),) * 2)
    assert re.search(examples, done.stdout)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_its_text_when_python_removes_docstrings(verb):
    def get_help(level):
        return sipc(*verb.split(), "--help", env=environment(PYTHONOPTIMIZE=level)).stdout

    assert get_help("2") == get_help("0") != b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sned"], b"No such command 'sned'. Did you mean 'send'?"),
        (["xyz"], b"No such command 'xyz'."),
        (["send", "--dat", "x"], b"'--data'"),
    ],
)
def test_the_error_for_a_mistyped_word_suggests_the_right_one(arguments, message):
    done = run_cli(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_the_version_option_prints_the_name_and_the_version():
    assert re.fullmatch(rb"sipc, version \d+\.\d+\.\d+\n", sipc("--version").stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"], ["send", "--bogus"], ["send", "a", "b"], ["serve", "x"], ["probe", "-t"],
        ["serve", "x", "--exec", "y", "--threads", "0"],
        ["serve", "x", "--exec", "y", "--on-hangup", "no"],
        ["serve", "x", "--exec", " "],
        ["serve", "x", "--exec", "y", "--count", "0"],
        ["serve", "x", "--exec", "y", "--backlog", "99999999999"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_command_line_is_a_usage_error_in_the_format_of_click(arguments):
    check_usage_error(run_cli(*arguments))


@pytest.mark.parametrize("arguments", [["send", "--bogus"], ["serve", "x"]], ids=" ".join)
def test_the_installed_command_reports_a_usage_error(arguments):
    check_usage_error(sipc(*arguments))


def check_usage_error(done) -> None:
    assert done.returncode == 2
    assert re.search(rb"^Error: ", done.stderr, re.M)
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    "value", ["", "x", "-1", "1x", "1 s", "inf", "nan", "1e3", "1s1", "\u0661s", "5s5s", "1s1m"]
)
def test_the_error_for_an_invalid_duration_shows_a_valid_one(endpoint, value):
    done = run_cli("probe", "--wait", value, endpoint)
    assert done.returncode == 2
    assert b"500ms" in done.stderr


@pytest.mark.parametrize("value", ["0.001", "1ms", "0.001s", "0m1ms", "0h0m0.001s", ".001"])
def test_a_duration_may_be_written_in_many_ways(endpoint, value):
    assert run_cli("probe", "--wait", value, endpoint).returncode == 4


@pytest.mark.parametrize("value", ["", "x", "-1", "1KB", "1.5M", "0x10", "9" * 5000])
def test_the_error_for_an_invalid_size_shows_a_valid_one(endpoint, value):
    done = run_cli("serve", endpoint, "--exec", "cat", "--max-request", value)
    assert done.returncode == 2
    assert b"64K" in done.stderr


@pytest.mark.parametrize("value", ["4096", "64K", "64k", "10m", "1G", "1t", "0"])
def test_a_size_may_have_a_small_or_a_large_unit(endpoint, value):
    done = run_cli("bench", endpoint, "--size", value)
    assert done.returncode == 4  # no usage error


@pytest.mark.parametrize("value", ["", "8", "888", "1777", "rw", "-600", "0o600"])
def test_the_error_for_an_invalid_mode_shows_a_valid_one(endpoint, value):
    done = run_cli("serve", endpoint, "--exec", "cat", "--mode", value)
    assert done.returncode == 2
    assert b"0600" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["bogus"]], ids=" ".join)
def test_output_that_cannot_be_written_causes_no_traceback(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([SIPC, *arguments], stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == (2 if arguments == ["bogus"] else 1)
        assert b"Traceback" not in done.stderr
        assert b"unexpected" not in done.stderr
        if arguments != ["bogus"]:
            words = b"sipc: cannot write to standard output: No space left on device: free space"
            assert done.stderr.startswith(words)
        both = subprocess.run([SIPC, *arguments], stdout=full, stderr=full)
        assert both.returncode == done.returncode


def test_python_m_runs_the_same_command(endpoint):
    done = subprocess.run(
        [sys.executable, "-m", "simpleipc_cli", "probe", endpoint], capture_output=True
    )
    assert done.returncode == 4


@pytest.mark.parametrize("verb", ["send", "probe"])
def test_the_error_names_a_module_that_cannot_be_loaded(endpoint, verb):
    module = f"simpleipc_cli.cli.{verb}.run"
    code = f"import sys; sys.modules[{module!r}] = None; from simpleipc_cli.cli import main; main()"
    command = [sys.executable, "-c", code, verb, endpoint]
    done = subprocess.run(command, capture_output=True, env=environment())
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"sipc %s: cannot load a module of Python: " % verb.encode())
    assert module.encode() in line
    assert line.endswith(b": check the installation, and the limits of files and memory")


def test_send_without_a_free_thread_prints_one_error_line(endpoint):
    code = """
import _thread, sys
def fail(*_arguments):
    raise RuntimeError("can't start new thread")
_thread.start_new_thread = fail
from simpleipc_cli.cli import main
main()
"""
    with ScriptedServer(endpoint, echo):
        done = subprocess.run(
            [sys.executable, "-c", code, "send", endpoint],
            input=bytes(1 << 24),
            capture_output=True,
            env=environment(),
        )
    assert done.returncode == 1
    assert done.stderr == (
        b"sipc send: cannot send: can't start new thread: "
        b"raise the limits of processes and memory\n"
    )


def test_without_free_descriptors_sipc_prints_one_error_line_and_no_traceback(endpoint):
    with ScriptedServer(endpoint, echo):
        for verb, *options in (["probe"], ["send", "-d", "x"]):
            done = subprocess.run(
                [sys.executable, "-c", NO_DESCRIPTORS, "sipc", verb, endpoint, *options],
                capture_output=True,
                env=environment(),
            )
            assert b"Traceback" not in done.stderr
            assert done.returncode == 1, done.stderr
            assert re.fullmatch(rb"sipc \w+: [^\n]*Too many open files[^\n]*\n", done.stderr)


# Starts the program with all modules loaded, and then no descriptor left for a socket.
NO_DESCRIPTORS = """
import difflib, os, resource, sys
sys.argv = sys.argv[1:]
from simpleipc_cli.cli.send import command as send
from simpleipc_cli.cli.probe import command as probe
from simpleipc_cli.cli import main, app
import simpleipc_cli.transport.unix.stream
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
main()
"""


def test_a_signal_during_an_error_message_ends_the_program_quietly(folder):
    """The message goes to a full pipe, so that its write waits until the signal arrives."""
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
    for arguments in (["send", "-d", "x"], ["send", "-d", "x", "--stats"]):  # by both commands
        command = [SIPC, *arguments, folder / "missing"]
        with Program(command, stderr=writer, env=environment()) as program:
            wait_until(lambda: is_in_syscall(program.pid, "write"), "it to write the message")
            program.terminate()
            assert program.wait(TIMEOUT) == 143
    os.close(writer)
    with open(reader, "rb") as errors:
        assert not errors.read().strip(b"\0")


LOSES_A_SIGNAL = """
import os, signal, sys, threading, weakref
from simpleipc_cli.cli import _status

class Module:
    pass

def gone(_):
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):  # Python looks for signals here, and discards what a handler raises
        pass

def run():
    module = Module()
    watched = weakref.ref(module, gone)
    del module
    threading.Event().wait(120)
    return 0

sys.exit(_status("send", run))
"""


def test_a_signal_during_a_callback_of_python_ends_the_program():
    """Python discards an exception in a callback, such as that of a loaded module."""
    done = subprocess.run([sys.executable, "-c", LOSES_A_SIGNAL], capture_output=True)
    assert (done.returncode, done.stderr) == (143, b"")
