"""`ensure_running`: servers that programs start, by the installed `sipc`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers.command import Program
from helpers.inprocess_server import run_concurrently
from helpers.procfs import children
from helpers.sending import ControlledDeadline
from helpers.sockets import busy_listener
from helpers.spawning import SERVE, Spawning
from helpers.waiting import TIMEOUT, wait_until

from simpleipc_cli import (
    NotASocket,
    PathNotFound,
    ServerBusy,
    SpawnFailed,
    State,
    ensure_running,
    probe,
    send,
)
from simpleipc_cli.api import client

STARTS = f"echo $$ >>starts; {SERVE}"
HANGS = "echo $$ >>starts; echo why >&2; exec sleep 1000"


@pytest.fixture
def spawning(endpoint):
    with Spawning(endpoint) as it:
        yield it


@pytest.fixture
def env(spawning, folder, monkeypatch):
    """The commands' environment; they run in the folder."""
    monkeypatch.chdir(folder)
    return spawning.environment()


def test_a_server_is_started_once(endpoint, spawning, env):
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for _ in range(3):
        ensure_running(endpoint, STARTS, timeout=None, env=env)
    assert send(endpoint, b"x") == b"x"
    assert len(spawning.lines("starts")) == 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_a_server_that_ends_is_reaped(endpoint, env):
    before = set(threading.enumerate())  # may include a thread for another test's server
    ensure_running(endpoint, SERVE, timeout=None, env=env)
    server = probe(endpoint).pid
    assert server in children(os.getpid())
    os.kill(server, signal.SIGTERM)
    wait_until(lambda: server not in children(os.getpid()), "it to be reaped")
    wait_until(lambda: before >= set(threading.enumerate()), "the thread to end")


def test_many_threads_start_one_server(endpoint, spawning, env):
    def ask():
        ensure_running(endpoint, STARTS, timeout=None, env=env)
        return send(endpoint, b"x", connect_timeout=None)

    assert run_concurrently(20, ask) == [b"x"] * 20
    assert len(spawning.lines("starts")) == 1


PROGRAM = """
import sys
from simpleipc_cli import ensure_running, send
ensure_running(sys.argv[1], sys.argv[2], timeout=None)
assert send(sys.argv[1], b"x", connect_timeout=None) == b"x"
"""


def test_many_programs_start_one_server(endpoint, spawning, env):
    command = [sys.executable, "-c", PROGRAM, str(endpoint), STARTS]
    programs = [subprocess.Popen(command, env=env) for _ in range(20)]
    assert [program.wait(TIMEOUT) for program in programs] == [0] * 20
    assert len(spawning.lines("starts")) == 1


def test_a_command_may_be_a_list_of_words(endpoint, folder, env):
    words = ["a b", "$HOME", "it's", '"', "*", ""]
    code = "import json,os,sys; json.dump(sys.argv[1:], open('words', 'w'));"
    code += "os.execvp('sipc', ['sipc', 'serve', '-q', '--exec', 'cat'])"
    ensure_running(endpoint, [sys.executable, "-c", code, *words], timeout=None, env=env)
    expected = '["a b", "$HOME", "it\'s", "\\"", "*", ""]'
    assert (folder / "words").read_text() == expected


def test_without_env_the_command_inherits_the_environment(endpoint, spawning, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name, value in spawning.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SIPC_PATH", str(endpoint))
    ensure_running(None, SERVE, timeout=None)
    assert probe(endpoint).state is State.LISTENING


def test_a_command_that_fails_is_reported(endpoint, spawning, env):
    with pytest.raises(SpawnFailed, match="exit status 3, and wrote: why") as raised:
        ensure_running(endpoint, "echo why >&2; exit 3", timeout=None, env=env)
    assert raised.value.hint
    spawning.check_nothing_left()


def test_a_command_that_does_not_listen_in_time_is_ended(endpoint, spawning, env, monkeypatch):
    """The time is over as soon as the command runs."""
    deadline = ControlledDeadline()
    deadline.is_over = lambda: spawning.lines("starts") != []
    monkeypatch.setattr(client, "Deadline", {7.0: deadline}.__getitem__)
    with pytest.raises(PathNotFound, match="did not start listening in time"):
        ensure_running(endpoint, HANGS, timeout=7.0, env=env)
    spawning.check_nothing_left()


def test_no_server_is_started_at_a_path_where_none_can_listen(folder, spawning, env):
    (folder / "file").write_text("precious")
    with pytest.raises(NotASocket):
        ensure_running(folder / "file", "touch started", env=env)
    with pytest.raises(PathNotFound):
        ensure_running(folder / "none" / "sock", "touch started", env=env)
    assert os.listdir(folder) == ["file"]


def test_ensure_running_starts_no_server_if_one_is_busy(endpoint, folder, env):
    with busy_listener(endpoint):
        with pytest.raises(ServerBusy):
            ensure_running(endpoint, "touch started", connect_timeout=0.05, env=env)
    assert os.listdir(folder) == ["sock"]


# signals

INTERRUPTED = """
import signal, sys
from simpleipc_cli import ensure_running
try:
    ensure_running(sys.argv[1], sys.argv[2], timeout=None)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_ends_the_command(endpoint, spawning, env):
    command = [sys.executable, "-c", INTERRUPTED, str(endpoint), HANGS]
    with Program(command, env=env, stdout=subprocess.PIPE) as program:
        spawning.wait_for_lines("starts", 1)
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=TIMEOUT)[0] == b"interrupted\n"
    spawning.check_nothing_left()


HANDLED = """
import os, signal, sys, threading
from simpleipc_cli import ensure_running, send

def on_signal(number, frame):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")  # print() may not be re-entered

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
    signal.signal(number, on_signal)

def ask():
    ensure_running(sys.argv[1], sys.argv[2], timeout=None)
    assert send(sys.argv[1], b"x") == b"x"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    print("answered", flush=True)

if sys.argv[3] == "main":
    ask()
else:
    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive():  # a signal just before a wait is handled only after it
        asking.join(0.01)
"""


@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_program_handles_its_signals_while_a_server_starts(
    endpoint, spawning, folder, env, thread
):
    """The server is started, as no handler raises an exception."""
    os.mkfifo(folder / "go")
    line = f"echo $$ >>starts; read line <go; {SERVE}"
    command = [sys.executable, "-c", HANDLED, str(endpoint), line, thread]
    with Program(command, env=env, stdout=subprocess.PIPE) as program:
        spawning.wait_for_lines("starts", 1)
        for name in (b"SIGTERM", b"SIGHUP", b"SIGINT"):
            program.send_signal(signal.Signals[name.decode()])
            while (line := program.stdout.readline()) != name + b"\n":
                assert line == b"SIGCHLD\n"
        (folder / "go").write_text("\n")
        assert program.communicate(timeout=TIMEOUT)[0].endswith(b"answered\n")


IGNORED = """
import signal, sys
from simpleipc_cli import SpawnFailed, ensure_running
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
try:
    ensure_running(sys.argv[1], sys.argv[2], timeout=None)
except SpawnFailed as error:
    print(error.hint)
"""


def test_with_sigchld_ignored_no_server_is_started_and_the_error_names_the_cause(
    endpoint, spawning, env
):
    command = [sys.executable, "-c", IGNORED, str(endpoint), "touch starts"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT)
    assert b"SIGCHLD" in done.stdout
    spawning.check_nothing_left()
    assert not (spawning.folder / "starts").exists()


def test_a_server_keeps_running_after_the_program_that_started_it_has_ended(endpoint, env):
    subprocess.run([sys.executable, "-c", PROGRAM, str(endpoint), SERVE], env=env, check=True)
    server = probe(endpoint).pid
    assert os.getsid(server) == server
    assert send(endpoint, b"x") == b"x"


def test_a_program_with_closed_standard_streams_can_start_a_server(endpoint, env):
    """Daemons close them; the server can still write to its standard error."""
    program = [sys.executable, "-c", PROGRAM, endpoint, f"{SERVE[:-3]}'echo why >&2; cat'"]
    command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *program]
    assert subprocess.run(command, env=env, timeout=TIMEOUT).returncode == 0
