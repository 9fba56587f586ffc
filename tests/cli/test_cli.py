"""What all verbs share: help, values, usage errors, and never a traceback."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.procfs import sleeps_in
from helpers.server import Server
from helpers.waiting import wait_until

VERBS = ["serve", "send", "probe", "bench"]


def test_help_lists_the_verbs():
    done = sipc("--help")
    assert done.returncode == 0
    assert re.findall(rb"^  (\w+)  ", done.stdout, re.M)[-4:] == [v.encode() for v in VERBS]


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_fits_a_terminal(verb, option):
    done = sipc(verb, option, env=environment(COLUMNS="80"))
    assert done.returncode == 0
    assert done.stdout.startswith(b"Usage: sipc %s [OPTIONS] [PATH]\n" % verb.encode())
    assert max(map(len, done.stdout.decode().splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples(verb):
    assert re.search(
        rb"\n  Examples:\n    .*sipc %s .*\n    .*sipc %s " % ((verb.encode(),) * 2),
        sipc(verb, "-h").stdout,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sned"], b"No such command 'sned'. Did you mean 'send'?"),
        (["xyz"], b"No such command 'xyz'."),
        (["send", "--dat", "x"], b"'--data'"),
    ],
)
def test_what_is_mistyped_is_suggested(arguments, told):
    done = sipc(*arguments)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]


def test_version_names_program_and_number():
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
def test_a_wrong_command_line_is_a_usage_error_in_clicks_form(arguments):
    done = sipc(*arguments)
    assert done.returncode == 2
    assert re.search(rb"^Error: ", done.stderr, re.M)
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    "value", ["", "x", "-1", "1x", "1 s", "inf", "nan", "1e3", "1s1", "\u0661s"]
)
def test_a_bad_duration_is_a_usage_error_that_shows_a_good_one(endpoint, value):
    done = sipc("probe", "--wait", value, endpoint)
    assert done.returncode == 2
    assert b"500ms" in done.stderr


@pytest.mark.parametrize("value", ["0.001", "1ms", "0.001s", "0m1ms", "0h0m0.001s", ".001"])
def test_a_duration_may_be_written_in_many_ways(endpoint, value):
    assert sipc("probe", "--wait", value, endpoint).returncode == 4


@pytest.mark.parametrize("value", ["", "x", "-1", "1k", "1KB", "1.5M", "0x10", "9" * 5000])
def test_a_bad_size_is_a_usage_error_that_shows_a_good_one(endpoint, value):
    done = sipc("serve", endpoint, "--exec", "cat", "--max-request", value)
    assert done.returncode == 2
    assert b"64K" in done.stderr


@pytest.mark.parametrize("value", ["", "8", "888", "1777", "rw", "-600", "0o600"])
def test_a_bad_mode_is_a_usage_error_that_shows_a_good_one(endpoint, value):
    done = sipc("serve", endpoint, "--exec", "cat", "--mode", value)
    assert done.returncode == 2
    assert b"0600" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["bogus"]], ids=" ".join)
def test_output_that_cannot_be_written_is_no_traceback(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([SIPC, *arguments], stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == (2 if arguments == ["bogus"] else 1)
        assert b"Traceback" not in done.stderr
        assert b"unexpected" not in done.stderr
        both = subprocess.run([SIPC, *arguments], stdout=full, stderr=full)
        assert both.returncode == done.returncode


def test_python_m_is_another_way_in(endpoint):
    done = subprocess.run(
        [sys.executable, "-m", "simpleipc_cli", "probe", endpoint], capture_output=True
    )
    assert done.returncode == 4


def test_without_descriptors_there_is_one_line_and_no_traceback(endpoint):
    with Server(endpoint, "cat"):
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
import simpleipc_cli.transport.unix.inspect
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
main()
"""


def test_a_signal_while_an_error_is_told_is_no_defect(folder):
    """Nobody reads the error, so that telling it takes as long as we like."""
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
    for arguments in (["send", "-d", "x"], ["send", "-d", "x", "--stats"]):  # both ways in
        command = [SIPC, *arguments, folder / "nobody"]
        with Program(command, stderr=writer, env=environment()) as program:
            wait_until(lambda: sleeps_in(program.pid, "write"), "it to tell the error")
            program.terminate()
            assert program.wait(30) == 143
    os.close(writer)
    told = b""
    while piece := os.read(reader, 1 << 16):
        told += piece
    os.close(reader)
    assert not told.strip(b"\0")


LOSES_A_SIGNAL = """
import os, signal, sys, threading, weakref
from simpleipc_cli.cli import _status

class Module:
    pass

def gone(_):
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):  # Python looks for signals here, and nobody can raise anything from here
        pass

def run():
    module = Module()
    watched = weakref.ref(module, gone)
    del module
    threading.Event().wait(30)
    return 0

sys.exit(_status("send", run))
"""


def test_a_signal_that_comes_where_python_loses_what_is_raised_is_heard():
    """As when a module has been loaded."""
    done = subprocess.run([sys.executable, "-c", LOSES_A_SIGNAL], capture_output=True)
    assert (done.returncode, done.stderr) == (143, b"")
