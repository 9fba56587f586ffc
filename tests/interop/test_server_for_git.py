"""sipc as the server of a real git: `git status` gets the changed paths from it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from helpers.command import environment, sipc
from helpers.git import STILL
from helpers.procfs import is_in_syscall
from helpers.random_changes import Changes
from helpers.server import Server
from helpers.soak import soak
from helpers.waiting import TIMEOUT, wait_until

HERE = Path(__file__).parent
HALF = "printf 'tok:2\\0'"
"""The beginning of a response that, if complete, would mean that nothing has changed."""

AS_FIRST = "cat >/dev/null; printf 'tok:1\\0/\\0'"
"""A response with a token, which says that any path may have changed."""


def snapshots(repository) -> str:
    """A handler that names all changed paths, and no others."""
    folder = repository.folder / "snapshots"
    folder.mkdir()
    handler = [sys.executable, "-IS", HERE / "fsmonitor_handler.py", repository.tree, folder]
    return shlex.join(map(str, handler))


def recipe(repository) -> str:
    """The handler in the documentation."""
    return shlex.join([str(HERE / "fsmonitor.sh"), str(repository.tree)])


SOAK = [
    soak(snapshots, 50),
    soak(recipe, 20),
]


@pytest.mark.parametrize(("handler", "number"), [(snapshots, 12), (recipe, 3), *SOAK])
def test_git_status_is_the_same_with_and_without_sipc(repository, seed, handler, number):
    changes = Changes(repository.tree, seed)
    believed = 0
    with Server(repository.endpoint, handler(repository)):
        repository.status()
        for _ in range(number):
            what = changes.make()
            if changes.random.random() < 0.1:
                repository.git("add", "-A")  # a new index, with a new token
            said, trace = repository.traced_status()
            assert said == repository.true_status(), f"after it {what}"
            assert len(trace.asked) == 1
            assert not trace.started_a_daemon
            if trace.believed:
                believed += 1
                assert trace.looked_at <= trace.files - len(STILL)
    if handler is snapshots:
        assert believed == number


def test_the_recipe_names_exactly_the_paths_that_have_changed(repository):
    """With a clock two seconds ahead, so that what was before its answer is before its token."""
    ahead = repository.folder / "bin/date"
    ahead.write_text('#!/bin/sh\nexec /bin/date -d "3 seconds" "$@"\n')
    ahead.chmod(0o755)
    path = f"{ahead.parent}:{environment()['PATH']}"
    with Server(repository.endpoint, recipe(repository), env=environment(PATH=path)):
        repository.status()
        token = time.time() + 1
        wait_until(lambda: time.time() > token + 1, "what was before to be of another second")
        repository.write("a", "something else\n")
        repository.write("deep/e", "something else, too\n")
        said, trace = repository.traced_status()
    assert said == repository.true_status() != ""
    assert trace.believed == [2]
    assert trace.looked_at == 2


@pytest.fixture
def changed(repository):
    """A repository with changes of which git knows nothing, but has a token from before them."""
    with Server(repository.endpoint, AS_FIRST):
        repository.status()
        repository.status()
        assert repository.true_status() == ""
    repository.write("a", "something else\n")
    repository.write("new", "new\n")
    (repository.tree / "b").unlink()
    return repository


def assert_git_looked_itself(repository, git, errors="error: could not read IPC response\n"):
    output, said = git.communicate(timeout=TIMEOUT)
    assert git.returncode == 0
    assert output == repository.true_status() != ""
    assert said.endswith(errors)


@pytest.mark.parametrize(
    ("handler", "options", "outcome"),
    [
        pytest.param("exit 3", [], "handler failed: exit status 3", id="says nothing and fails"),
        pytest.param(f"{HALF}; exit 1", [], "handler failed", id="fails with half an answer"),
        pytest.param(f"{HALF}; kill -9 $$", [], "SIGKILL", id="killed with half an answer"),
        pytest.param(
            f"{HALF}; sleep 99", ["--timeout", "200ms"], "handler timeout", id="handler timeout"
        ),
        pytest.param("./there/is/none", [], "handler failed", id="missing"),
    ],
)
def test_git_scans_the_work_tree_if_a_handler_fails(changed, handler, options, outcome):
    with Server(changed.endpoint, handler, *options) as server:
        assert_git_looked_itself(changed, changed.start(*changed.STATUS))
        server.wait_for_log(outcome)


def test_git_scans_the_work_tree_if_the_server_dies_within_a_response(changed):
    pid = changed.folder / "pid"
    with Server(
        changed.endpoint, f"{HALF}; echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 99"
    ) as server:
        git = changed.start(*changed.STATUS)
        wait_until(pid.exists, "the handler to run")
        server.signal(signal.SIGKILL)
        assert_git_looked_itself(changed, git)
        os.killpg(int(pid.read_text()), signal.SIGKILL)  # the server cannot create a token
    assert sipc("probe", changed.endpoint).returncode == 3


@pytest.mark.parametrize("handler", ["true", "printf 'tok:2\\0'"], ids=["nothing", "no path"])
def test_git_shows_no_change_after_a_response_without_paths(changed, handler):
    """So a handler must fail rather than send an empty response."""
    with Server(changed.endpoint, handler):
        said, trace = changed.traced_status()
    assert said == "" != changed.true_status()
    assert (trace.asked, trace.believed, trace.looked_at) == (["tok:1"], [0], 0)


def test_git_waits_for_a_slow_response(changed):
    """Without a time limit: test_what_git_does shows its system calls."""
    go_on = changed.folder / "go on"
    os.mkfifo(go_on)
    with Server(changed.endpoint, f"cat '{go_on}'"), changed.start(*changed.STATUS) as git:
        wait_until(lambda: is_in_syscall(git.pid, "read"), "git to wait")
        go_on.write_bytes(b"tok:2\0a\0b\0new\0")
        output, errors = git.communicate(timeout=TIMEOUT)
        assert (output, errors) == (changed.true_status(), "")


def test_git_reads_a_response_of_many_packets(repository):
    """More paths than fit into a packet, each of them new to git."""
    names = [f"{number:0200}" for number in range(1000)]
    answer = repository.folder / "answer"
    answer.write_bytes(b"tok:2\0" + b"".join(b"%s\0" % name.encode() for name in names))
    with Server(repository.endpoint, AS_FIRST):
        repository.status()
        repository.status()
    for name in names:
        repository.write(name, "")
    with Server(repository.endpoint, f"cat {answer}"):
        said, trace = repository.traced_status()
    assert trace.believed == [len(names)]
    assert said.splitlines() == [f"? {name}" for name in names]
