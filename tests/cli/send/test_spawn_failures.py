"""`sipc send --spawn`: the command fails, hangs or listens elsewhere, the client is killed."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
from collections import Counter
from contextlib import contextmanager
from functools import partial

import pytest
from helpers.command import assert_error_line, sipc
from helpers.gate import Gate
from helpers.inprocess_cli import run_cli
from helpers.procfs import arguments, is_in_syscall, is_running
from helpers.sending import ControlledDeadline, EchoServer
from helpers.soak import SOAK
from helpers.sockets import stale_socket
from helpers.spawning import SERVE, Spawning
from helpers.waiting import wait_until
from helpers.wire import is_listening

from simpleipc_cli.cli.send import run as send_run
from simpleipc_cli.deadline import Deadline

ROUNDS = (SOAK + 2) // 3  # repetitions of a test that starts many programs
STARTS = "echo $$ >>starts; "
WAITING = f"{STARTS} read line <go; "
HANGS = f"{STARTS} sleep 1000 & sleep 1000"


@pytest.fixture
def gate(folder):
    with Gate(folder / "go") as it:
        yield it


LOCK = f".sipc-spawn-{os.geteuid()}-sock"


@contextmanager
def held_lock(folder):
    """Hold the lock of a client that starts a server."""
    path = folder / LOCK
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("exit 3", ["failed, exit status 3: "]),
        ("no-such-command", ["failed, exit status 127", "no-such-command: not found"]),
        ("./no-such-file -x", ["failed, exit status 127"]),
        ("kill -KILL $$", ["failed, killed by SIGKILL: "]),
        ("echo out; echo one >&2; echo two >&2; exit 1", ["and wrote: one | two: "]),
        (r"printf '\n \033[31mred\nend' >&2; exit 1", [r"wrote: \x1b[31mred | end: "]),
        (r"printf '\377\n' >&2; exit 1", [r"wrote: \xff: "]),
        ("yes x | head -n 100000 >&2; echo end >&2; exit 1", ["wrote: x | x | x | x | end: "]),
        ("head -c 300000 /dev/zero | tr '\\0' y >&2; exit 1", ["wrote: ...yyyy"]),
        ("sipc serve --bogus", ["failed, exit status 2", "No such option"]),
        ("sipc serve missing/sock --exec cat", ["exit status 4", "there is no folder missing"]),
        ("sleep 1000 & exit 5", ["failed, exit status 5"]),
        ("sleep 1000 >&2 & echo why >&2; exit 5", ["failed, exit status 5", "wrote: why: "]),
        (")", ["failed, exit status 2", "yntax error"]),
    ],
    ids=[
        *("status", "not found", "no file", "signal", "two lines", "control", "no utf-8", "many"),
        *("long line", "usage", "no folder", "background", "held stderr", "no shell syntax"),
    ],
)
def test_a_command_that_fails_is_reported_at_once_with_its_last_lines_of_stderr(
    spawning, folder, line, words
):
    """At once: no time limit is set."""
    run = sipc if line == "exit 3" else run_cli
    done = spawning.send(line, "--wait", "0", run=run, cwd=folder)
    assert_error_line(done, 1, "the server's command failed", *words)
    assert len(done.stderr) < 1000
    assert os.listdir(folder) == []


def test_a_client_that_was_started_with_sigchld_ignored_learns_the_status(spawning):
    command = ["env", "--ignore-signal=CHLD", *spawning.command("exit 3", "-d", "x")]
    done = subprocess.run(command, env=spawning.environment(), capture_output=True)
    assert_error_line(done, 1, "failed, exit status 3: ")


def test_a_process_left_by_a_failed_command_does_not_delay_the_client(spawning, folder):
    flood = "setsid sh -c 'echo flood; echo >up; exec yes flood' >&2 &"
    line = f"mkfifo up; {flood} read line <up; exit 3"
    done = spawning.send(line, "--wait", "0", cwd=folder)
    assert_error_line(done, 1, "failed, exit status 3, and wrote: flood")
    (pid,) = wait_until(partial(running, spawning, "yes"), "the process to be the flood")
    os.kill(pid, signal.SIGKILL)


def running(spawning, program: str) -> list[int]:
    return [pid for pid in spawning.left() if arguments(pid)[:1] == [program]]


def has_started(spawning) -> bool:
    return bool(spawning.lines("starts"))


def has_ended(spawning) -> bool:
    """Return whether the command has started and ended, reaped or not."""
    return has_started(spawning) and not is_running(int(spawning.lines("starts")[0]))


def listens_elsewhere(spawning) -> bool:
    return has_ended(spawning) and is_listening(spawning.folder / "other")


def has_logged(spawning) -> bool:
    return spawning.lines("log") == ["listening on other"]


ENDED = "did not start listening in time and was terminated"
NOT_LISTENING = {
    "hangs": (HANGS, has_started, f"{ENDED}: "),
    "ignores TERM": (f"trap '' TERM; {HANGS}; sleep 1000", has_started, f"{ENDED}: "),
    "says why": (f"echo why >&2; {HANGS}", has_started, f"{ENDED}, and wrote: why: "),
    "elsewhere": (
        "sipc serve other --exec cat 2>&1 | tee log >&2",
        has_logged,
        f"{ENDED}, and wrote: listening on other: ",
    ),
    "background": (
        f"{STARTS} sipc serve other -q --exec cat & exit 0",
        listens_elsewhere,
        "exited with status 0: ",
    ),
    "does nothing": (f"{STARTS} exit 0", has_ended, "exited with status 0: "),
}


@pytest.mark.parametrize(("line", "is_over", "what"), NOT_LISTENING.values(), ids=NOT_LISTENING)
def test_a_command_that_does_not_listen_in_time_is_ended(
    spawning, folder, max_time, line, is_over, what
):
    max_time.is_over = partial(is_over, spawning)
    done = spawning.send(line, "-m", "1h", cwd=folder)
    assert_error_line(done, 4, f"{spawning.path} does not exist, ", what, "SIPC_PATH", "--wait")
    spawning.check_nothing_left()
    # The command's own server may be killed before it has removed its socket.
    assert set(os.listdir(folder)) <= {"starts", "log", "other"}


@pytest.mark.parametrize(
    ("options", "seconds"), [([], 10), (["--wait", "1h"], 3600)], ids=["by default", "with --wait"]
)
def test_a_server_has_ten_seconds_or_the_time_of_wait_to_listen(
    spawning, folder, monkeypatch, options, seconds
):
    """Here the limit of this length ends when the command has started."""
    limit = ControlledDeadline()
    limit.is_over = partial(has_started, spawning)

    class WithoutClock(Deadline):
        def capped(self, given):
            is_meant = given is not None and 0.9 * seconds <= given <= seconds
            return limit if is_meant else super().capped(given)

    monkeypatch.setattr(send_run, "Deadline", WithoutClock)
    command = ["send", spawning.path, "-d", "x", "--spawn", HANGS, *options]
    done = run_cli(*command, env=spawning.environment(), cwd=folder)
    assert_error_line(done, 4, ENDED)
    spawning.check_nothing_left()


@pytest.mark.parametrize("wait", [[], ["--wait", "0"]], ids=["alone", "with --wait"])
def test_max_time_also_limits_the_start_of_the_server(spawning, endpoint, folder, max_time, wait):
    stale_socket(endpoint)
    max_time.is_over = partial(has_started, spawning)
    done = spawning.send(HANGS, "-m", "1h", *wait, cwd=folder)
    assert_error_line(done, 3, f"no server is listening on {spawning.path}, ", "was terminated")
    spawning.check_nothing_left()
    assert sorted(os.listdir(folder)) == ["sock", "starts"]


def test_a_command_that_creates_another_file_at_the_path_is_ended(spawning, endpoint, folder):
    done = spawning.send("echo precious >new; mv new sock; sleep 1000", "--wait", "0", cwd=folder)
    assert_error_line(done, 5, f"{endpoint} is a file, not a socket")
    spawning.check_nothing_left()
    assert endpoint.read_text() == "precious\n"


def test_send_waits_for_a_slow_command(spawning, folder, gate):
    with spawning.start(WAITING + SERVE, "--wait", "0", cwd=folder) as client:
        spawning.wait_for_lines("starts", 1)
        wait_until(lambda: is_in_syscall(client.pid, "poll"), "it to wait")
        gate.open()
        assert client.communicate() == (b"hello", b"")


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, HANGS),
        (signal.SIGTERM, HANGS),
        (signal.SIGHUP, HANGS),
        (signal.SIGTERM, f"trap '' INT TERM; {HANGS}; sleep 1000"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP", "a command that ignores signals"],
)
def test_a_client_ended_by_a_signal_ends_a_command_that_does_not_listen(
    spawning, folder, number, line
):
    with spawning.start(line, "-o", "answer", cwd=folder) as client:
        spawning.wait_for_lines("starts", 1)
        client.send_signal(number)
        assert client.communicate() == (b"", b"")
        assert client.returncode == 128 + number
    spawning.check_nothing_left()
    assert os.listdir(folder) == ["starts"]
    assert spawning.send(SERVE).stdout == b"hello"


BEGINNINGS_AND_ENDS = r"flock|openat.*\.sipc-|v?fork|clone|wait4|pidfd_open|unlink"


@pytest.mark.soak
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_signal_at_any_system_call_does_not_prevent_a_later_client(
    endpoint, folder, tmp_path, name
):
    """After SIGTERM a listening server or nothing is left, after SIGKILL no lock is held."""
    met = 0
    moments = moments_of_a_start(endpoint, tmp_path)
    for call, count in moments:
        inject = ["-e", f"inject={call}:signal={name}:when={count}"]
        with Spawning(endpoint) as spawning:
            done = traced(spawning, tmp_path / "trace", *inject)
            met += done.returncode != 0
            assert done.returncode in {0, 143, -signal.SIGKILL}, (call, count, done.stderr)
            if name == "SIGTERM":
                listening = is_listening(endpoint)
                expected = ["sock"] if listening else []  # a server may still create its files
                wait_until(partial(is_all_there, folder, expected), f"{expected} {call} {count}")
                if not listening:
                    spawning.check_nothing_left()
            assert spawning.send(SERVE).stdout == b"hello", (call, count)
            (folder / LOCK).unlink(missing_ok=True)
        assert os.listdir(folder) == []
    assert met > len(moments) / 2, "some, but not all, come after the end"


def is_all_there(folder, names: list[str]) -> bool:
    return os.listdir(folder) == names


def moments_of_a_start(endpoint, tmp_path) -> list[tuple[str, int]]:
    """The system calls of a client that starts a server: each name, and its number."""
    with Spawning(endpoint) as spawning:
        assert traced(spawning, tmp_path / "trace").stdout == b"hello"
    counts: Counter[str] = Counter()
    moments, begun = [], False
    for line in (tmp_path / "trace").read_text().splitlines():
        if call := re.match(r"\w+(?=\()", line):
            counts[call[0]] += 1
            begun = begun or LOCK in line
            # Calls at which objects begin and end, unless there is time for all calls.
            if begun and (SOAK >= 20 or re.match(BEGINNINGS_AND_ENDS, line)):
                moments.append((call[0], counts[call[0]]))
    return moments


def traced(spawning, trace, *options) -> subprocess.CompletedProcess[bytes]:
    """Run a client under strace, without its child processes."""
    return subprocess.run(
        ["strace", "-qq", "-o", trace, *options, *spawning.command(SERVE, "-d", "hello")],
        env=spawning.environment(),
        capture_output=True,
    )


def test_a_client_ended_by_a_signal_does_not_end_a_server_that_listens(spawning, endpoint):
    """Also if the client has not yet seen that the server listens: here it is stopped."""
    with spawning.start(f"kill -STOP $PPID; {SERVE}") as client:
        wait_until(lambda: is_listening(endpoint), "a server")
        client.send_signal(signal.SIGINT)
        client.send_signal(signal.SIGCONT)
        client.communicate()
        assert client.returncode == 130
    assert run_cli("send", endpoint, "-d", "again").stdout == b"again"


def test_after_the_starting_client_was_killed_the_next_client_starts_a_server(
    spawning, folder, gate
):
    with spawning.start(WAITING + SERVE, "--wait", "0", cwd=folder) as first:
        spawning.wait_for_lines("starts", 1)
        with spawning.start(WAITING + SERVE, "--wait", "0", cwd=folder) as second:
            first.kill()
            first.communicate()
            spawning.wait_for_lines("starts", 2)
            gate.open()
            assert second.communicate() == (b"hello", b"")
    (server,) = wait_until(lambda: len(left := serving(spawning)) == 1 and left, "one to win")
    assert str(server) in spawning.lines("starts")


def serving(spawning) -> list[int]:
    """Return the process ids of the commands that still run."""
    return [pid for pid in spawning.left() if str(pid) in spawning.lines("starts")]


def test_the_command_of_a_killed_client_can_write_its_log_and_listen(
    spawning, endpoint, folder, gate
):
    """The standard error of the command has a reader though the client has ended."""
    line = f"{WAITING} head -c 300000 /dev/zero >&2 && {SERVE}"
    with spawning.start(line, cwd=folder) as client:
        spawning.wait_for_lines("starts", 1)
        client.kill()
        client.communicate()
    gate.open()
    assert run_cli("send", endpoint, "-d", "x", "--wait", "1h").stdout == b"x"
    assert spawning.send("false").stdout == b"hello"
    (folder / LOCK).unlink()  # of the killed client; no other client has started since


def test_the_next_start_removes_the_lock_file_of_a_killed_client(spawning, folder):
    with spawning.start(HANGS, cwd=folder) as client:
        pid = int(spawning.wait_for_lines("starts", 1)[0])
        client.kill()
        client.communicate()
    assert (folder / LOCK).exists()
    assert spawning.send(SERVE, cwd=folder).stdout == b"hello"
    os.killpg(pid, signal.SIGKILL)
    assert sorted(os.listdir(folder)) == ["sock", "starts"]


@pytest.mark.parametrize("limits", [["--wait", "20ms"], ["-m", "20ms"], ["-m", "1ms"]])
def test_the_same_limits_apply_while_another_client_starts_the_server(spawning, folder, limits):
    with held_lock(folder):
        done = spawning.send("touch here", *limits, cwd=folder)
    lock = str(folder / LOCK)
    assert_error_line(done, 4, "does not exist", "has not finished", lock)
    assert os.listdir(folder) == []


def test_while_another_client_starts_a_server_send_uses_any_server_that_listens(
    spawning, endpoint, folder
):
    with held_lock(folder) as lock, spawning.start("touch here", cwd=folder) as client:
        wait_until(lambda: is_in_syscall(client.pid, "clock_nanosleep"), "it to wait")
        with EchoServer(endpoint):
            assert client.communicate() == (b"hello", b"")
            lock.unlink()
    assert os.listdir(folder) == ["sock"]


@pytest.mark.parametrize("removed", [True, False], ids=["ended", "killed"])
def test_after_the_starting_client_has_ended_the_next_client_starts_a_server(
    spawning, folder, removed
):
    path = folder / LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with spawning.start(f"echo x >>starts; {SERVE}", cwd=folder) as client:
        wait_until(lambda: is_in_syscall(client.pid, "clock_nanosleep"), "it to wait")
        assert spawning.lines("starts") == []
        if removed:
            path.unlink()
        os.close(lock)
        assert client.communicate() == (b"hello", b"")
    assert spawning.lines("starts") == ["x"]


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_if_some_of_many_clients_are_killed_all_others_get_responses(endpoint, folder, number):
    """Each client that has the lock is killed, but for the last, which starts the server."""
    line = f"echo $PPID >>parents; {WAITING}{SERVE}"
    for _ in range(ROUNDS):
        with Gate(folder / "go") as gate, Spawning(endpoint) as spawning:
            started = [spawning.start(line, cwd=folder) for _ in range(8)]
            clients = {client.pid: client for client in started}
            for count in range(1, 6):
                holder = clients.pop(int(spawning.wait_for_lines("parents", count)[-1]))
                holder.send_signal(number)
                holder.communicate()
            spawning.wait_for_lines("parents", 6)
            gate.open()
            for client in clients.values():
                assert client.communicate() == (b"hello", b"")
                assert client.returncode == 0
            assert len(spawning.lines("parents")) == 6
        for name in ("parents", "starts"):
            (folder / name).unlink()
        assert os.listdir(folder) == []


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "file"])
def test_a_file_at_the_path_of_the_lock_that_is_no_lock_is_not_changed(spawning, folder, kind):
    lock = folder / LOCK
    match kind:
        case "folder":
            lock.mkdir()
        case "link":
            lock.symlink_to("precious")
        case "pipe":
            os.mkfifo(lock)
        case "file":
            lock.write_text("precious")
    assert_error_line(spawning.send("touch here", cwd=folder), 1, str(lock))
    assert os.listdir(folder) == [LOCK]
    lock.rmdir() if kind == "folder" else lock.unlink()
