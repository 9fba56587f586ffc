"""Clients that start servers with `send --spawn`; stop these servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from pathlib import Path

from helpers.command import SIPC, Program, environment
from helpers.inprocess_cli import run_cli
from helpers.procfs import MARK, arguments, processes
from helpers.waiting import wait_until

SERVE = "exec sipc serve -q --exec cat"
"""A server on $SIPC_PATH."""


class Spawning:
    """Clients that start servers in one folder. The end of the `with` stops these, and checks.

    What they start inherits a mark, and so does all that is started for it.
    """

    def __init__(self, path) -> None:
        self.path = str(path)
        self.folder = Path(self.path).parent
        self._mark = uuid.uuid4().hex
        self._signalled: set[int] = set()

    def environment(self, **more: str) -> dict[str, str]:
        return environment(**{MARK: self._mark}, **more)

    def command(self, line: str, *options) -> list[str]:
        """The server may take any time to listen, unless an option sets a limit."""
        if not {"--wait", "-m"} & set(options):
            options = ("--wait", "1h", *options)
        return [SIPC, "send", self.path, "--spawn", line, *map(str, options)]

    def send(self, line: str, *options, data="hello", run=run_cli, **more):
        """Run a client to its end, in this process unless `run` is `sipc`."""
        more.setdefault("env", self.environment())
        return run(*self.command(line, *options, "-d", data)[1:], **more)

    def start(self, line: str, *options, data="hello", **more) -> Program:
        """Start a client."""
        more.setdefault("env", self.environment())
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return Program(self.command(line, *options, "-d", data), **more)

    def left(self) -> dict[int, str]:
        """Return the processes that were started here and still run, including clients."""
        return processes(self._mark)

    def lines(self, name: str) -> list[str]:
        """Return the output of commands in a file in the folder."""
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def wait_for_lines(self, name: str, count: int) -> list[str]:
        return wait_until(
            lambda: len(lines := self.lines(name)) >= count and lines, f"{count} lines in {name}"
        )

    def check_nothing_left(self) -> None:
        wait_until(lambda: not self.left(), f"no process left: {self.left()}")
        left = [name for name in os.listdir(self.folder) if re.search(r"\.sipc-|\.lock$", name)]
        assert not left

    def _servers_have_ended(self) -> bool:
        """Send each server SIGTERM once, also one that a shell becomes only now."""
        left = self.left()
        for pid in left.keys() - self._signalled:
            if "serve" in arguments(pid)[2:4]:
                self._signalled.add(pid)
                end(pid, signal.SIGTERM)
        return not left

    def __enter__(self) -> Spawning:
        return self

    def __exit__(self, kind, *_: object) -> None:
        try:
            if kind is None:
                wait_until(self._servers_have_ended, "the servers to end")
                self.check_nothing_left()
        finally:
            for pid in self.left():
                end(pid, signal.SIGKILL)


def end(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
