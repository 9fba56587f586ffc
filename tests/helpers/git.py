"""A real git in a small repository, and what it traces; none is left running.

Git's own configuration is kept out, and so is the user's: only what a test says counts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid
from contextlib import contextmanager
from pathlib import Path

from helpers.command import Program, environment
from helpers.procfs import MARK, processes
from helpers.spawning import end
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import pid_of_listener

WANTED = (2, 55)
"""The first git whose daemon runs on Linux."""

STILL = [f"still/{number}" for number in range(40)]
FILES = ["a", "b", "c", "deep/er/d", "deep/e", "other/f", *STILL]
"""The initial files of every repository. Tests change only some of them."""


def is_new_enough(program: str) -> bool:
    """Return whether git works, is new enough, and was built with its daemon."""
    try:
        asked = [program, "version", "--build-options"]
        said = subprocess.run(asked, capture_output=True, text=True).stdout
    except OSError:
        return False
    version = re.match(r"git version (\d+)\.(\d+)", said)
    if not version or tuple(map(int, version.groups())) < WANTED:
        return False
    return "feature: fsmonitor--daemon" in said


class Trace:
    """A trace of git (GIT_TRACE2_EVENT), in the format of git's api-trace2 documentation."""

    def __init__(self, path: Path) -> None:
        self.events = [json.loads(line) for line in path.read_text().splitlines()]

    def data(self, category: str, key: str) -> list[str]:
        """Return all values of a key, as text."""
        return [
            str(event["value"])
            for event in self.events
            if event["event"].startswith("data")
            and (event["category"], event["key"]) == (category, key)
        ]

    @property
    def asked(self) -> list[str]:
        """Return the tokens that git sent to an fsmonitor."""
        return self.data("fsm_client", "query/command")

    @property
    def believed(self) -> list[int]:
        """Return the number of paths in each answer that git trusted."""
        return [int(value) for value in self.data("fsmonitor", "apply_count")]

    @property
    def files(self) -> int:
        """Return the number of files in the index."""
        return int(self.data("index", "read/cache_nr")[0])

    @property
    def looked_at(self) -> int:
        """Return how many files git itself checked for changes (lstat)."""
        keys = ("refresh/sum_lstat", "preload/sum_lstat")
        return sum(int(value) for key in keys for value in self.data("index", key))

    @property
    def started_a_daemon(self) -> bool:
        return any(event.get("child_class") == "fsmonitor" for event in self.events)


class Repository:
    """A work tree with a few files, all committed."""

    def __init__(self, program: str, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.endpoint = self.tree / ".git/fsmonitor--daemon.ipc"
        self.mark = uuid.uuid4().hex
        (folder / "home").mkdir()
        (folder / "bin").mkdir()
        self.program = folder / "bin/git"  # git starts its daemon by this name
        self.program.symlink_to(program)
        self.tree.mkdir()
        self.git("init", "-q", "-b", "main", "--template=")
        # No maintenance in the background, no fsync.
        self._configure("[maintenance]\n\tauto = false\n[core]\n\tfsync = none\n")
        for name in FILES:
            self.write(name, f"this is {name}\n")
        self.git("add", ".")
        self.git("commit", "-q", "-m", "all")
        self._configure("[core]\n\tfsmonitor = true\n\tuntrackedCache = true\n")

    def _configure(self, text: str) -> None:
        with (self.tree / ".git/config").open("a") as config:
            config.write(text)

    def environment(self, **more: str) -> dict[str, str]:
        """Return an environment in which only the test configures git. `more` may override."""
        kept = {name: value for name, value in environment().items() if name[:4] != "GIT_"}
        person = dict.fromkeys(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"], "A") | dict.fromkeys(
            ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"], "a@example.org"
        )
        return {
            **kept,
            **person,
            "HOME": str(self.folder / "home"),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_EXEC_PATH": str(self.folder / "bin"),
            MARK: self.mark,
            **more,
        }

    def run(self, *arguments, **more: str) -> subprocess.CompletedProcess[str]:
        """Run git to its end, also if it fails."""
        return subprocess.run(
            [self.program, *map(str, arguments)],
            cwd=self.tree,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # names of files may be any bytes
            timeout=TIMEOUT,
        )

    def git(self, *arguments, **more: str) -> str:
        """Run git, which must succeed; return its output."""
        done = self.run(*arguments, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments, wrapper=(), **options) -> Program:
        """Start git."""
        for name in ("stdout", "stderr"):
            options.setdefault(name, subprocess.PIPE)
        return Program(
            [*wrapper, self.program, *map(str, arguments)],
            cwd=self.tree,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="surrogateescape",  # names of files may be any bytes
            **options,
        )

    STATUS = ("status", "--porcelain=v2")

    def status(self) -> str:
        """Return the changes that git reports; it queries an fsmonitor."""
        return self.git(*self.STATUS)

    def traced_status(self) -> tuple[str, Trace]:
        """Return these changes, and the trace of the command."""
        path = self.folder / f"trace-{uuid.uuid4().hex}"
        said = self.git(*self.STATUS, GIT_TRACE2_EVENT=str(path), GIT_TRACE2_EVENT_NESTING="10")
        return said, Trace(path)

    def true_status(self) -> str:
        """Return the status without fsmonitor and cache; do not change the index."""
        plain = ("-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false")
        return self.git("--no-optional-locks", *plain, *self.STATUS)

    def write(self, name: str, text: str) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @contextmanager
    def daemon(self, **more: str):
        """Run git's daemon during the `with`; yield its process id."""
        self.git("fsmonitor--daemon", "start", **more)
        yield pid_of_listener(Path(more.get("GIT_DIR", self.endpoint.parent), self.endpoint.name))
        if self.run("fsmonitor--daemon", "status", **more).returncode == 0:
            self.git("fsmonitor--daemon", "stop", **more)
        self.wait_until_alone()

    def wait_until_alone(self) -> None:
        """Wait until all processes that git started have ended."""
        wait_until(lambda: not processes(self.mark), "all processes of git to end")

    def kill_all(self) -> None:
        """End the processes that a failed test has left."""
        for pid in processes(self.mark):
            end(pid, signal.SIGKILL)


def parts(answer: bytes) -> tuple[bytes, list[bytes]]:
    """Return an fsmonitor's response: the new token and the paths, each followed by a NUL."""
    assert answer.endswith(b"\0"), answer
    token, *paths = answer[:-1].split(b"\0")
    return token, paths
