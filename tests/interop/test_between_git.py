"""sipc between two programs of a real git: `git status` and git's daemon."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
from helpers.command import SIPC, sipc
from helpers.git import STILL, parts
from helpers.random_changes import Changes
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import is_listening


@pytest.fixture
def real(repository):
    """The endpoint of git's daemon, which watches this work tree for another repository.

    So it leaves the repository's own endpoint to others, and never sees its path taken.
    """
    other = repository.folder / "other.git"
    shutil.copytree(repository.tree / ".git", other)
    with repository.daemon(GIT_DIR=str(other), GIT_WORK_TREE=str(repository.tree)):
        yield other / repository.endpoint.name


def pass_on(real, *options) -> str:
    """A handler that sends its request to another server."""
    return shlex.join([SIPC, "send", *map(str, options), str(real)])


def answer_with_paths(endpoint, since: bytes) -> bytes | None:
    """Return the response of git's daemon; if it is too busy to be sure, it names only "/"."""
    done = sipc("send", endpoint, input=since)
    assert done.returncode == 0
    return done.stdout if len(parts(done.stdout)[1]) > 1 else None


def test_git_status_is_the_same_through_sipc(repository, real, seed):
    # Git's daemon ends itself when a folder is moved where it has no watch yet.
    changes = Changes(repository.tree, seed, folders=False)
    asked, believed = [], 0
    log = repository.folder / "wire.log"
    with Server(repository.endpoint, pass_on(real, "--trace-file", log)):
        asked += repository.traced_status()[1].asked
        while believed < 4:  # git's daemon may be too busy to respond in a second
            what = changes.make()
            said, trace = repository.traced_status()
            assert said == repository.true_status(), f"after it {what}"
            asked += trace.asked
            if trace.believed:
                believed += 1
                assert trace.looked_at <= trace.files - len(STILL)
    lines = log.read_text().splitlines()
    assert re.findall(r'> sent \w+ \(\d+ bytes\): "(.*)"', "\n".join(lines)) == asked
    assert sum("< received 0000: flush" in line for line in lines) == len(asked)


def test_a_response_of_many_packets_is_forwarded_unchanged(repository, real):
    with Server(repository.endpoint, pass_on(real)):
        since, _ = parts(sipc("send", real, "-d", "flush").stdout)
        for number in range(1000):
            repository.write(f"{number:0200}", "")
        through = wait_until(lambda: answer_with_paths(repository.endpoint, since), "all paths")
        assert through == wait_until(lambda: answer_with_paths(real, since), "all paths")
        assert len(parts(through)[1]) == 1000


def test_git_scans_the_work_tree_if_its_daemon_dies(repository, real):
    with Server(repository.endpoint, pass_on(real)) as server:
        repository.status()
        repository.status()
        repository.write("a", "something else\n")
        assert sipc("send", real, input=b"\0").returncode == 7  # git's BUG(): it aborts
        wait_until(lambda: not is_listening(real), "the end of its socket")
        done = repository.run(*repository.STATUS)
        assert done.returncode == 0
        assert done.stdout == repository.true_status() != ""
        assert done.stderr == "error: could not read IPC response\n"
        server.wait_for_log("handler failed: exit status 3")
