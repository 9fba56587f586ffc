"""sipc as the client of a real git's daemon, `git fsmonitor--daemon`."""

from __future__ import annotations

import json
import os
import signal

import pytest
from helpers.command import sipc
from helpers.git import parts
from helpers.procfs import processes
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until

EVERYTHING = [b"/"]
"""The path that git's daemon names if it does not know what has changed."""


def send(repository, request: str) -> bytes:
    done = sipc("send", repository.endpoint, "-d", request)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def token(repository) -> str:
    """Return a token of the daemon that stands for the current state."""
    now, paths = parts(send(repository, "builtin:fake"))
    assert now.startswith(b"builtin:")
    assert paths == EVERYTHING
    return now.decode()


def changes(repository, since: str) -> list[bytes]:
    """Return the changed paths, once git's daemon knows them.

    It names "/" when no event of a file that it made itself has come within a second.
    """

    def known():
        paths = parts(send(repository, since))[1]
        return [] if paths == EVERYTHING else [paths]

    return wait_until(known, "git's daemon to know what has changed")[0]


def verdicts(repository) -> tuple[int, str, int]:
    """Return the state that sipc reports, and whether git reports that its daemon listens."""
    probe = sipc("probe", "--json", repository.endpoint)
    says = repository.run("fsmonitor--daemon", "status")
    return probe.returncode, json.loads(probe.stdout)["state"], says.returncode


def test_probe_and_git_report_the_same_state(repository):
    assert verdicts(repository) == (4, "path not found", 1)
    with repository.daemon() as pid:
        assert verdicts(repository) == (0, "listening", 0)
        found = json.loads(sipc("probe", "--json", repository.endpoint).stdout)
        assert found["pid"] == pid
    assert verdicts(repository) == (4, "path not found", 1)
    with repository.daemon() as pid:
        os.kill(pid, signal.SIGKILL)
        repository.wait_until_alone()
        assert verdicts(repository) == (3, "not listening", 1)
    repository.endpoint.unlink()
    repository.endpoint.mkdir()
    assert verdicts(repository) == (5, "invalid path", 1)


def test_every_change_is_in_the_response(repository):
    tree = repository.tree
    with repository.daemon():
        since = token(repository)
        assert changes(repository, since) == []

        repository.write("created", "")
        assert changes(repository, since) == [b"created"]
        since = parts(send(repository, since))[0].decode()

        repository.write("a", "something else\n")
        assert changes(repository, since) == [b"a"]
        since = parts(send(repository, since))[0].decode()

        (tree / "b").rename(tree / "deep/renamed")
        assert sorted(changes(repository, since)) == [b"b", b"deep/renamed"]
        since = parts(send(repository, since))[0].decode()

        (tree / "c").unlink()
        assert changes(repository, since) == [b"c"]


def test_file_names_of_any_bytes_arrive_unchanged(repository):
    names = [b"two words", b"new\nline", b"tab\t", b"\xff\xfe", "ä\N{PILE OF POO}".encode()]
    with repository.daemon():
        since = token(repository)
        for name in names:
            with open(os.path.join(os.fsencode(repository.tree), name), "x"):
                pass
        assert sorted(changes(repository, since)) == sorted(names)


def test_a_response_of_many_packets_arrives_whole(repository):
    names = {b"%0200d" % number for number in range(1000)}
    with repository.daemon():
        since = token(repository)
        for name in names:
            repository.write(name.decode(), "")
        found = changes(repository, since)
        assert sum(map(len, found)) > 3 * 65516
        assert set(found) == names


def test_the_command_flush_invalidates_older_tokens(repository):
    with repository.daemon():
        since = token(repository)
        now, paths = parts(send(repository, "flush"))
        assert paths == EVERYTHING
        assert now.split(b":")[1] != since.encode().split(b":")[1]
        assert parts(send(repository, since))[1] == EVERYTHING
        assert changes(repository, now.decode()) == []


@pytest.mark.parametrize(
    "bad",
    ["", "nonsense", "1700000000000000000", "builtin:", "builtin:another daemon:0", "x" * 200_000],
    ids=["empty", "nonsense", "a time", "half", "another daemon's", "long"],
)
def test_the_response_to_an_invalid_token_names_everything(repository, bad):
    with repository.daemon():
        request = repository.folder / "request"
        request.write_text(bad)
        done = sipc("send", repository.endpoint, "--data-file", request)
        assert done.returncode == 0
        assert parts(done.stdout)[1] == EVERYTHING


def test_the_command_quit_gets_an_empty_response_and_ends_the_daemon(repository):
    with repository.daemon():
        assert send(repository, "quit") == b""
        gone = sipc("probe", "--wait-gone", f"{TIMEOUT}s", repository.endpoint)
        assert gone.returncode == 0, gone
        wait_until(lambda: not processes(repository.mark), "the daemon to end")
        assert sipc("probe", repository.endpoint).returncode == 4


def test_a_request_that_kills_the_daemon_is_an_error(repository):
    """A NUL in the request makes git's daemon call BUG(), which leaves a stale socket."""
    with repository.daemon():
        done = sipc("send", repository.endpoint, input=b"builtin:\0fake")
        assert done.returncode == 7
        assert done.stdout == b""
        repository.wait_until_alone()
        assert sipc("probe", repository.endpoint).returncode == 3


@pytest.mark.parametrize("number", [500, soak(10_000)])
def test_every_request_of_bench_is_answered(repository, number):
    report = repository.folder / "report.json"
    with repository.daemon():
        since = token(repository)
        length = len(send(repository, since))
        options = ["-n", number, "-c", 4, "-d", since, "--fail-if", "errors>0", "-q"]
        done = sipc("bench", repository.endpoint, *options, "--json", report)
        assert (done.returncode, done.stderr) == (0, b"")
    counts = json.loads(report.read_text())["counts"]
    assert (counts["answered"], counts["failed"], counts["unfinished"]) == (number, 0, 0)
    assert counts["bytes_in"] >= number * length  # it names "/" if it is too busy to be sure
