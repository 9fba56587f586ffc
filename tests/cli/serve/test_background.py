"""`sipc serve --background`: it returns when the server listens, and not without saying why not."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import socket
import subprocess
from pathlib import Path
from threading import Event

import pytest
from helpers.background import PATIENT
from helpers.command import SIPC, assert_error_line, needs_root
from helpers.inprocess_cli import run_cli
from helpers.patience import LOCK, without_limits
from helpers.procfs import children, state, status, stop_process
from helpers.soak import SOAK, soak
from helpers.users import as_nobody
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, pid_of_listener

LONGEST_START = 0.2  # seconds; an idle machine needs less


def completed(program) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end."""
    output, errors = program.communicate(timeout=TIMEOUT)
    return subprocess.CompletedProcess(program.args, program.returncode, output, errors)


def test_the_command_returns_once_the_server_listens(background, endpoint):
    """The server leads a session, and has nothing open that its starter had open."""
    reader, writer = os.pipe()
    done = background.serve(pass_fds=[writer])
    assert ask(endpoint, b"hello") == (b"hello", True)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"listening on %s\n" % os.fsencode(endpoint)
    os.close(writer)
    assert os.read(reader, 1) == b"", "the other end is closed"
    os.close(reader)
    pid = pid_of_listener(endpoint)
    assert os.getsid(pid) == pid != os.getsid(0)
    assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3


def test_a_server_in_the_background_keeps_directory_umask_and_environment(
    background, folder, script
):
    script("#!/bin/sh\npwd; umask; echo $COLOUR\n")
    env = background.environment(COLOUR="blue")
    done = background.serve(command="handler.sh", cwd=folder, umask=0o027, env=env)
    assert done.returncode == 0
    answer, _ = ask(background.path, b"")
    assert answer.decode().split() == [str(folder), "0027", "blue"]


@pytest.mark.parametrize(
    "line",
    ["said=$({} 2>&1)", "{} 2>&1 | cat", "{} <&- >&- 2>&-", "(trap '' HUP TERM; {})"],
    ids=["substitution", "pipeline", "closed streams", "ignored signals"],
)
def test_the_command_returns_inside_every_shell_construct(background, endpoint, line):
    command = shlex.join([SIPC, *background.arguments()])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.format(command)],
        env=background.environment(),
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert ask(endpoint, b"hello") == (b"hello", True)
    if "trap" in line:  # an ignored signal stays ignored
        os.kill(pid_of_listener(endpoint), signal.SIGKILL)
        endpoint.unlink()


def test_a_server_in_the_background_keeps_logging_to_a_file_on_standard_error(
    background, endpoint, folder
):
    with (folder / "log").open("wb") as log:
        done = subprocess.run(
            [SIPC, *background.arguments(command="echo from the handler >&2; cat")],
            env=background.environment(),
            stderr=log,
            timeout=TIMEOUT,
        )
    assert done.returncode == 0
    assert ask(endpoint, b"hello") == (b"hello", True)
    wait_until(lambda: ": answered\n" in (folder / "log").read_text(), "the request in the log")
    assert " stderr: from the handler\n" in (folder / "log").read_text()


def test_the_server_survives_the_end_of_its_terminal(background, endpoint):
    ours, theirs = pty.openpty()
    done = subprocess.run(
        ["setsid", "-c", "-w", SIPC, *background.arguments()],
        env=background.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0
    os.close(theirs)
    assert b"listening on" in os.read(ours, 1000)
    os.close(ours)
    assert ask(endpoint, b"hello") == (b"hello", True)


@pytest.mark.parametrize(
    ("before", "status", "words"),
    [
        ("a server", 9, "another server is listening"),
        ("few descriptors", 1, "ulimit -n"),
    ],
)
def test_a_failed_start_is_reported_with_its_exit_status(
    background, endpoint, folder, before, status, words
):
    with socket.socket(socket.AF_UNIX) as other:
        wrapper = ""
        if before == "a server":
            other.bind(str(endpoint))
            other.listen()
        else:
            wrapper = "ulimit -n 20;"
        command = shlex.join([SIPC, *background.arguments("--pid-file", folder / "pid")])
        done = subprocess.run(
            ["sh", "-c", f"{wrapper} exec {command}"],
            env=background.environment(),
            capture_output=True,
            timeout=TIMEOUT,
        )
    assert_error_line(done, status, words)
    endpoint.unlink(missing_ok=True)
    assert os.listdir(folder) == []


@needs_root
def test_a_folder_without_write_permission_is_reported(background, folder):
    folder.chmod(0o755)
    done = as_nobody(*background.arguments(), env=background.environment())
    assert_error_line(done, 8, "permission denied")
    assert os.listdir(folder) == []


def test_a_missing_handler_program_causes_only_a_warning(background, endpoint):
    done = background.serve(command="no-such-handler")
    assert done.returncode == 0
    assert b"command not found: no-such-handler" in done.stderr
    assert ask(endpoint, b"") == (b"", False)


def test_a_server_that_does_not_listen_within_max_wait_is_terminated(background, folder):
    (folder / "sock.lock").touch()
    options = ("--max-wait", "300ms", "--pid-file", folder / "pid")
    done = background.serve(*options, program=PATIENT)
    assert_error_line(done, 6, "within 0.3 s", "--max-wait")
    (folder / "sock.lock").unlink()
    background.check_nothing_left()
    assert os.listdir(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_waiting_process_terminates_the_server(background, folder, number):
    with background.waiting_for_lock("--pid-file", folder / "pid") as (parent, _):
        parent.send_signal(number)
        done = completed(parent)
    assert (done.returncode, done.stderr, done.stdout) == (128 + number, b"", b"")
    background.check_nothing_left()
    assert os.listdir(folder) == []


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_waiting_process_at_any_moment_leaves_a_listening_server_or_none(
    background, folder, number
):
    """From before it forks until after it has returned: either a server listens, or none is left.

    One that SIGKILL cuts off leaves a server, which is then the user's.
    """
    steps = 10 * SOAK
    for step in range(steps):
        with background.start_serve("-q", "--pid-file", folder / "pid") as parent:
            Event().wait(LONGEST_START * step / steps)
            parent.send_signal(number)
            done = completed(parent)
        assert b"Traceback" not in done.stderr
        if number == signal.SIGTERM and done.returncode:
            assert done.returncode in {143, -signal.SIGTERM}
            background.check_nothing_left()
        elif done.returncode:
            wait_until(lambda: not background.left() or (folder / "sock").exists(), "a server")
        if background.left():
            assert ask(background.path, b"hello") == (b"hello", True)
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
            background.check_nothing_left()
        assert os.listdir(folder) == []


def test_a_stopped_server_is_terminated_and_cleans_up(background, folder):
    with background.waiting_for_lock() as (parent, child):
        stop_process(child)
        parent.terminate()
        assert completed(parent).returncode == 143
    background.check_nothing_left()
    assert os.listdir(folder) == []


IGNORE_SIGTERM = """
import signal
handle = signal.signal
signal.signal = lambda number, handler: handle(
    number, signal.SIG_IGN if number == signal.SIGTERM else handler
)
"""


def test_a_server_that_does_not_terminate_is_killed(background, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(IGNORE_SIGTERM)
    env = background.environment(PYTHONPATH=str(tmp_path))
    with background.waiting_for_lock(env=env, program=without_limits(*LOCK)) as (parent, child):
        parent.terminate()
        assert completed(parent).returncode == 143
        assert state(child) == "X"
    for name in os.listdir(background.folder):
        (background.folder / name).unlink()  # a killed process cannot


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, 137)])
def test_the_command_reports_a_server_that_ends_before_it_listens(
    background, folder, number, status
):
    with background.waiting_for_lock() as (parent, child):
        os.kill(child, number)
        done = completed(parent)
    if number == signal.SIGTERM:
        assert (done.returncode, done.stderr) == (status, b"")
        assert os.listdir(folder) == []
    else:
        assert_error_line(done, status, f"killed by {signal.Signals(number).name}")
        for name in os.listdir(folder):
            (folder / name).unlink()


def test_the_server_survives_sigkill_of_the_waiting_process(background, endpoint):
    with background.waiting_for_lock() as (parent, child):
        parent.kill()
        parent.wait()
        Path(f"{endpoint}.lock").unlink()
        parent.communicate(timeout=TIMEOUT)  # it closes standard error, as always
    assert pid_of_listener(endpoint) == child
    assert ask(endpoint, b"hello") == (b"hello", True)


def test_sighup_does_not_stop_a_server_in_the_background(background, endpoint):
    assert background.serve().returncode == 0
    pid = pid_of_listener(endpoint)
    for _ in range(3):
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: int(status(pid, "ShdPnd"), 16) == 0, "it to be delivered")
        assert ask(endpoint, b"hello") == (b"hello", True)


@pytest.mark.parametrize("wrapper", [[], ["nohup"]], ids=["plain", "nohup"])
def test_sighup_reopens_the_log_file(background, endpoint, folder, wrapper):
    log = folder / "log"
    done = subprocess.run(
        [*wrapper, SIPC, *background.arguments("--log-file", log)],
        env=background.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    log.rename(folder / "log.1")
    os.kill(pid_of_listener(endpoint), signal.SIGHUP)
    wait_until(log.exists, "a new log")
    assert ask(endpoint, b"hello") == (b"hello", True)
    wait_until(lambda: ": answered\n" in log.read_text(), "the request in the new log")
    assert f"listening on {endpoint}" in (folder / "log.1").read_text()


def test_sighup_during_the_start_does_not_stop_the_server(background, endpoint):
    with background.waiting_for_lock() as (parent, child):
        os.kill(child, signal.SIGHUP)
        Path(f"{endpoint}.lock").unlink()
        assert completed(parent).returncode == 0
    assert pid_of_listener(endpoint) == child


@pytest.mark.parametrize("rounds", [2, soak(40)])
def test_repeated_starts_and_stops_leave_no_process_and_no_file(
    background, endpoint, folder, rounds
):
    pid_file = folder / "pid"
    for _ in range(rounds):
        assert background.serve("-q", "--pid-file", pid_file).returncode == 0
        assert run_cli("probe", "-q", endpoint).returncode == 0
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        wait_until(lambda: not background.left(), "it to end")
        assert os.listdir(folder) == []


def test_send_spawn_may_start_a_server_in_the_background(background, endpoint):
    """The client waits for the end of the command, then for a server that listens."""
    done = background.send("exec sipc serve --background -q --exec cat")
    assert (done.returncode, done.stdout) == (0, b"hello")
    assert pid_of_listener(endpoint) not in children(os.getpid())


def test_max_wait_without_background_is_a_usage_error(endpoint):
    done = run_cli("serve", endpoint, "--exec", "cat", "--max-wait", "1s")
    assert done.returncode == 2
    assert b"--background" in done.stderr


def test_the_log_file_has_the_reason_why_the_server_ended(background, endpoint, folder):
    """Standard error is already closed then."""
    log = folder / "log"
    assert background.serve("--log-file", log, "-q").returncode == 0
    endpoint.unlink()
    wait_until(lambda: "removed or replaced" in log.read_text(), "the reason to be logged")
    assert log.read_text().count("\n") == 1
