"""What every verb does with the signal state that it inherits from its parent process.

Each program starts from a known state, whatever the test run has inherited: GNU env sets it.
"""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, assert_error_line, environment
from helpers.procfs import children, handled_signals
from helpers.server import Server
from helpers.soak import soak
from helpers.spawning import SERVE, Spawning
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, connect, is_listening, message
from helpers.workers import serve_workers

ALL_IGNORED_AND_BLOCKED = ("--ignore-signal", "--block-signal")
OF_GLIBC = 0b11 << 31  # signals 32 and 33 are its own, and its posix_spawn ignores them
REPORT_STATE = "grep -E '^Sig(Blk|Ign)' /proc/self/status"

CLIENTS = {
    "send": ["send", "--wait", "1h", "-d", "x"],
    "probe": ["probe", "--wait", "1h"],
    "bench": ["bench", "-q", "-z", "1h"],
}
each_client = pytest.mark.parametrize("verb", CLIENTS)


def inherit(*options: str) -> list[str]:
    """The start of a command line that sets the signal state by `options` of env."""
    return ["env", "--default-signal", *options]


def run(*command, **options) -> subprocess.CompletedProcess[bytes]:
    options.setdefault("env", environment())
    return subprocess.run([*map(str, command)], capture_output=True, timeout=120, **options)


def assert_default_state(status: str) -> None:
    """Check the signal state that a handler has written."""
    blocked, ignored = (int(line.split()[1], 16) for line in status.splitlines())
    assert (blocked, ignored & ~OF_GLIBC) == (0, 0)


@contextmanager
def running_client(verb: str, path, folder, *options: str):
    """A client with this signal state, which only a signal ends."""
    command = [*inherit(*options), SIPC, *CLIENTS[verb], path]
    with Program(command, stderr=subprocess.PIPE, env=environment()) as client:
        if verb == "bench":
            wait_until((folder / "asked").exists, "a request of the load")
        else:
            wait_until(
                lambda: signal.SIGTERM in handled_signals(client.pid), "it to handle signals"
            )
        yield client


@pytest.fixture
def place(endpoint, folder):
    """The endpoint of a client of each verb: with a server or without one."""

    @contextmanager
    def at(verb: str):
        if verb != "bench":
            yield endpoint
            return
        with Server(endpoint, f"touch {folder}/asked; cat"):
            yield endpoint

    return at


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_server_ends_on_a_signal_that_was_blocked(endpoint, number):
    with Server(endpoint, "cat", wrapper=inherit("--block-signal")) as server:
        server.signal(number)
        assert server.wait() == 0


@each_client
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, soak(signal.SIGHUP)])
def test_a_client_ends_on_a_signal_that_was_blocked(place, folder, verb, number):
    with place(verb) as path, running_client(verb, path, folder, "--block-signal") as client:
        client.send_signal(number)
        assert client.wait(TIMEOUT) == 128 + number
        assert client.stderr.read() == b""


def test_a_time_limit_holds_though_sigalrm_was_blocked(endpoint):
    with Server(endpoint, "cat"):
        hard = ("-d", "a" * 60 + "b", "--expect-regex", "(a|a)*$c")  # takes 2**60 steps
        command = [*inherit("--block-signal"), SIPC, "send", endpoint, "-m", "1s", *hard]
        done = run(*command)
        assert done.returncode == 6, done.stderr
        assert b"in time" in done.stderr


def test_signals_that_were_blocked_reload_a_server_and_log_its_counters(endpoint, folder):
    log = folder / "log"
    wrapper = inherit("--block-signal")
    with Server(endpoint, "cat", "--log-file", log, wrapper=wrapper) as server:
        log.rename(folder / "log.1")
        server.signal(signal.SIGHUP)
        wait_until(log.exists, "a new log")
        server.signal(signal.SIGUSR1)
        wait_until(lambda: "counters: " in log.read_text(), "counters")


@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one process", "two"])
def test_bench_reports_though_sigchld_was_ignored(endpoint, folder, options):
    report = folder / "report"
    with Server(endpoint, "cat"):
        bench = ["bench", endpoint, "-n", "20", "-c", "2", *options, "--json", report]
        done = run(*inherit("--ignore-signal=CHLD"), SIPC, *bench)
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(report.read_text())["counts"]["answered"] == 20


def test_a_server_learns_how_handlers_end_though_sigchld_was_ignored(endpoint):
    with Server(endpoint, "exit 3", wrapper=inherit("--ignore-signal=CHLD")) as server:
        assert ask(endpoint, b"x") == (b"", False)
        server.wait_for_log("status=3 .*: exit status 3")


@pytest.mark.parametrize("state", ["--ignore-signal=CHLD", "--block-signal"])
def test_the_status_of_a_failed_start_in_the_background_is_returned(
    background, endpoint, folder, state
):
    def serve(path, *options):
        arguments = ["serve", path, "--exec", "cat", "--background", *options]
        return run(*inherit(state), SIPC, *arguments, env=background.environment())

    (folder / "slow.lock").touch()  # as if another server were starting
    assert_error_line(serve(folder / "slow", "--max-wait", "100ms"), 6, "did not listen within")
    (folder / "slow.lock").unlink()
    assert serve(endpoint).returncode == 0
    assert_error_line(serve(endpoint), 9)


def test_a_client_that_starts_a_server_learns_its_status_though_sigchld_was_ignored(endpoint):
    with Spawning(endpoint) as spawning:
        client = spawning.command("exit 3", "-d", "x")
        done = run(*inherit("--ignore-signal=CHLD"), *client, env=spawning.environment())
        assert_error_line(done, 1, "failed, exit status 3")


@pytest.mark.parametrize("options", [(), ("--prestart", "1")], ids=["started", "prestarted"])
def test_a_handler_starts_with_default_signals(endpoint, options):
    command = f"cat >/dev/null; {REPORT_STATE}"
    wrapper = inherit(*ALL_IGNORED_AND_BLOCKED)
    with Server(endpoint, command, *options, wrapper=wrapper) as server:
        status, complete = ask(endpoint, b"x")
        assert complete
        assert_default_state(status.decode())
        assert server.stop() == 0


def test_a_worker_starts_with_default_signals(endpoint, folder):
    worker = f"{REPORT_STATE} >{folder}/state; : >{folder}/begun; exec sleep 1000"
    wrapper = inherit(*ALL_IGNORED_AND_BLOCKED)
    with serve_workers(endpoint, wrapper=wrapper, worker=worker), connect(endpoint) as client:
        client.sendall(message(b"x"))
        wait_until((folder / "begun").exists, "the worker to begin")
        assert_default_state((folder / "state").read_text())


def test_a_handler_of_a_server_in_the_background_starts_with_default_signals(background, endpoint):
    serve = [SIPC, *background.arguments(command=REPORT_STATE)]
    done = run(*inherit(*ALL_IGNORED_AND_BLOCKED), *serve, env=background.environment())
    assert done.returncode == 0, done.stderr
    assert_default_state(ask(endpoint, b"")[0].decode())


def test_a_server_that_a_client_starts_has_the_default_signal_state(endpoint, folder):
    with Spawning(endpoint) as spawning:
        client = spawning.command(f"{REPORT_STATE} >{folder}/state; {SERVE}", "-d", "x")
        command = [*inherit(*ALL_IGNORED_AND_BLOCKED), *client]
        done = run(*command, env=spawning.environment())
        assert done.stdout == b"x", done.stderr
        assert_default_state((folder / "state").read_text())


def test_a_server_ends_on_sigterm_though_that_was_ignored(endpoint):
    with Server(endpoint, "cat", wrapper=inherit("--ignore-signal=TERM")) as server:
        assert server.stop() == 0


def test_a_server_in_the_background_ends_on_sigterm_though_that_was_ignored(background, endpoint):
    serve = [SIPC, *background.arguments("--pid-file", f"{endpoint}.pid")]
    done = run(*inherit("--ignore-signal=TERM"), *serve, env=background.environment())
    assert done.returncode == 0, done.stderr
    run("kill", Path(f"{endpoint}.pid").read_text().strip())
    wait_until(lambda: not is_listening(endpoint), "its end")


@each_client
def test_a_client_ends_on_sigterm_though_that_was_ignored(place, folder, verb):
    with place(verb) as path, running_client(verb, path, folder, "--ignore-signal=TERM") as client:
        client.terminate()
        assert client.wait(TIMEOUT) == 143


@each_client
def test_a_client_keeps_sigint_and_sighup_ignored(place, folder, verb):
    """As in a background job of a script, and under nohup. The lower number is handled first."""
    state = ["--ignore-signal=INT,HUP"]
    with place(verb) as path, running_client(verb, path, folder, *state) as client:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            client.send_signal(number)
        assert client.wait(TIMEOUT) == 143


def test_a_background_job_of_a_script_is_not_interrupted(endpoint):
    """A shell without job control makes the server ignore SIGINT and SIGQUIT."""
    script = f'{SIPC} serve "$0" --exec cat & echo $!; wait $!'
    command = [*inherit(), "sh", "-c", script, endpoint]
    with Program(command, stdout=subprocess.PIPE, env=environment(), text=True) as shell:
        pid = shell.stdout.readline().strip()
        wait_until(lambda: is_listening(endpoint), "it to listen")
        assert children(shell.pid) == [int(pid)]
        run("kill", "-INT", pid)
        run("kill", "-QUIT", pid)
        assert ask(endpoint, b"hello") == (b"hello", True)
        run("kill", pid)
        assert shell.wait(TIMEOUT) == 0


def test_a_server_that_does_not_reload_keeps_sighup_ignored(endpoint):
    with Server(endpoint, "cat", wrapper=inherit("--ignore-signal=HUP")) as server:
        server.signal(signal.SIGHUP)
        assert ask(endpoint, b"hello") == (b"hello", True)
        assert server.stop() == 0


def test_sighup_reloads_a_server_though_it_was_ignored_at_the_start(endpoint, folder):
    log = folder / "log"
    wrapper = inherit("--ignore-signal=HUP")
    with Server(endpoint, "cat", "--log-file", log, wrapper=wrapper) as server:
        log.rename(folder / "log.1")
        server.signal(signal.SIGHUP)
        wait_until(log.exists, "a new log")


def test_a_server_writes_its_counters_though_sigusr1_was_ignored(endpoint):
    with Server(endpoint, "cat", wrapper=inherit("--ignore-signal=USR1")) as server:
        server.signal(signal.SIGUSR1)
        server.wait_for_log("^counters: ")
