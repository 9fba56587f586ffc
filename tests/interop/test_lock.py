"""`sipc serve` and git's daemon at the same path: one serves, the other reports an error."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.procfs import MARK, children
from helpers.server import Server
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import ask, is_listening, pid_of_listener

REFUSAL = {
    "sipc": r"sipc serve: another server is listening on \S+: [^\n]+\n",
    "git": r"fatal: fsmonitor--daemon is already running '[^']+'\n"
    r"|error: could not start IPC thread pool on '[^']+': (Address already in use|File exists)\n",
}
"""The error message of the later one."""

RUN = ("fsmonitor--daemon", "run")


def start_ours(repository, wrapper=()) -> Program:
    return Program(
        [*wrapper, SIPC, "serve", repository.endpoint, "--exec", "echo ours"],
        env=environment(**{MARK: repository.mark}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def served_by(repository) -> str:
    """Return which program answers requests."""
    answer, whole = ask(repository.endpoint, b"builtin:fake")
    assert whole
    return "sipc" if answer == b"ours\n" else "git"


def lock_of(repository) -> Path:
    return Path(f"{repository.endpoint}.lock")


def left_over(repository) -> list[str]:
    """Return lock files and temporary names, which only a starting server needs."""
    names = os.listdir(repository.endpoint.parent)
    return [name for name in names if name.endswith(".lock") or ".sipc-" in name]


def test_git_s_daemon_does_not_replace_sipc(repository):
    with Server(repository.endpoint, "echo ours"):
        for how in ("run", "start"):
            done = repository.run("fsmonitor--daemon", how)
            assert done.returncode == 128
            assert re.fullmatch(REFUSAL["git"], done.stderr)
        assert served_by(repository) == "sipc"


def test_sipc_does_not_replace_git_s_daemon(repository):
    with repository.daemon() as pid:
        done = sipc("serve", repository.endpoint, "--exec", "echo ours")
        assert done.returncode == 9
        assert re.fullmatch(REFUSAL["sipc"], done.stderr.decode())
        assert served_by(repository) == "git"
        assert pid_of_listener(repository.endpoint) == pid


def test_sipc_and_git_each_replace_the_stale_socket_of_the_other(repository):
    with Server(repository.endpoint, "echo ours") as server:
        server.signal(signal.SIGKILL)
        server.wait()
    with repository.daemon() as pid:
        assert served_by(repository) == "git"
        os.kill(pid, signal.SIGKILL)
        repository.wait_until_alone()
        with Server(repository.endpoint, "echo ours"):
            assert served_by(repository) == "sipc"
    assert not repository.endpoint.exists()


def finish(repository, winner: str, server: Program) -> None:
    """Check that only one program serves; end it, and check that its socket is removed."""
    wait_until(lambda: is_listening(repository.endpoint), "it to listen")
    assert served_by(repository) == winner
    assert pid_of_listener(repository.endpoint) == server.pid
    wait_until(lambda: not left_over(repository), "it to be up")
    if winner == "git":
        assert ask(repository.endpoint, b"quit") == (b"", True)
    else:
        server.terminate()
    server.communicate(timeout=TIMEOUT)
    assert server.returncode == 0
    assert not repository.endpoint.exists()


@pytest.mark.parametrize("rounds", [6, soak(50)])
def test_exactly_one_of_sipc_and_git_that_start_at_once_serves(repository, seed, rounds):
    """Git starts within some ten milliseconds, sipc takes longer: so git is started later."""
    chance = random.Random(seed)
    lead = 0.1  # seconds, a first guess; adjusted so that either may win
    for _ in range(rounds):
        with start_ours(repository) as ours:
            time.sleep(lead * chance.uniform(0.9, 1.1))  # waits for no state: this is the race
            with repository.start(*RUN) as git:
                both = {"sipc": ours, "git": git}
                ended = wait_until(
                    lambda both=both: [name for name in both if both[name].poll() is not None],
                    "one of them to give up",
                )
                (loser,) = ended
                server = both.pop(loser)
                assert re.fullmatch(REFUSAL[loser], server.stderr.read())
                assert server.returncode in {"sipc": [9], "git": [1, 128]}[loser]
                ((winner, server),) = both.items()
                finish(repository, winner, server)
                lead *= 0.9 if winner == "sipc" else 1.1


def stops_in(call: str, output: Path) -> list[str]:
    """A wrapper that stops a program directly after its first such system call."""
    strace = ["strace", "-f", "-o", str(output)]
    return [*strace, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGSTOP:when=1"]


def wait_until_stopped(program: Program, output: Path) -> int:
    """Wait until a program has stopped in that call; return its process id."""
    wait_until(lambda: output.exists() and "stopped by SIGSTOP" in output.read_text(), "it to stop")
    return children(program.pid)[0]


def test_sipc_waits_for_a_daemon_of_git_that_is_about_to_listen(repository):
    """The daemon holds the lock, and its socket at the path looks stale."""
    output = repository.folder / "strace"
    with repository.start(*RUN, wrapper=stops_in("bind", output)) as git:
        pid = wait_until_stopped(git, output)
        later = time.time() + 3600
        os.utime(lock_of(repository), (later, later))  # it does not count as left over so soon
        assert sipc("probe", repository.endpoint).returncode == 3
        with start_ours(repository) as ours:
            wait_until(lambda: len(left_over(repository)) == 2, "ours to wait for the lock")
            os.kill(pid, signal.SIGCONT)
            ours.wait(TIMEOUT)
            assert ours.returncode == 9
            assert re.fullmatch(REFUSAL["sipc"], ours.stderr.read())
        assert served_by(repository) == "git"
        assert ask(repository.endpoint, b"quit") == (b"", True)
        git.communicate(timeout=TIMEOUT)


def test_the_daemon_of_git_exits_if_sipc_is_about_to_listen(repository):
    """git's daemon waits for the lock for only a tenth of a second."""
    output = repository.folder / "strace"
    with start_ours(repository, wrapper=stops_in("flock", output)) as ours:
        pid = wait_until_stopped(ours, output)
        assert lock_of(repository).exists()
        done = repository.run(*RUN)
        assert done.returncode == 1
        assert re.fullmatch(REFUSAL["git"], done.stderr)
        os.kill(pid, signal.SIGCONT)
        assert re.fullmatch(r"listening on \S+\n", ours.stderr.readline())
        assert served_by(repository) == "sipc"
        os.kill(pid, signal.SIGTERM)
        ours.communicate(timeout=TIMEOUT)
    assert left_over(repository) == []


def test_a_stale_lock_of_git_stops_git_and_delays_sipc(repository):
    output = repository.folder / "strace"
    with repository.start(*RUN, wrapper=stops_in("bind", output)) as git:
        os.kill(wait_until_stopped(git, output), signal.SIGKILL)
        git.communicate(timeout=TIMEOUT)
    lock = lock_of(repository)
    long_ago = time.time() - 3600
    os.utime(lock, (long_ago, long_ago))
    for how, words in ("run", "File exists"), ("start", "daemon terminated"):
        done = repository.run("fsmonitor--daemon", how)
        assert done.returncode == 1
        assert words in done.stderr
    assert lock.exists()
    lately = time.time() - 3
    os.utime(lock, (lately, lately))
    with Server(repository.endpoint, "echo ours"):
        assert served_by(repository) == "sipc"
        assert not lock.exists()
    with repository.daemon():
        assert served_by(repository) == "git"
