"""`sipc bench`, as a process and in this process."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from unittest.mock import patch

from helpers.command import (
    SIPC,
    Program,
    environment,
)
from helpers.inprocess_cli import run_cli
from helpers.waiting import wait_until
from simpleipc_cli.bench import processes as generator_processes


@contextmanager
def benching(*arguments, **options):
    """A running `sipc bench`, in a session of its own; nothing of it is left at the end."""
    with Program(
        [SIPC, "bench", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
        **options,
    ) as program:
        yield program
    wait_until(lambda: not _in_group(program.pid), "no process of it left")


def _in_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class LoadThread(threading.Thread):
    """Generates load as a process does, and starts much faster. In place of subprocess.Popen."""

    def __init__(self, _command: object, **_pipes: object) -> None:
        super().__init__()
        ends = [*os.pipe(), *os.pipe()]
        modes = ["rb", "wb", "rb", "wb"]
        self._commands, self.stdin, self.stdout, self._reports = map(open, ends, modes)
        self.start()

    def run(self) -> None:
        with self._commands, self._reports, suppress(EOFError):
            generator_processes.generate(self._commands, self._reports)

    def poll(self) -> int | None:
        return None if self.is_alive() else 0

    def wait(self) -> int:
        self.join()
        return 0


def run_bench(*arguments, **options) -> subprocess.CompletedProcess[bytes]:
    """Run `sipc bench` in this process, and in threads in place of other processes."""
    starts = SimpleNamespace(Popen=LoadThread, PIPE=None, STDOUT=None)
    with patch.object(generator_processes, "subprocess", starts):
        return run_cli("bench", *arguments, **options)


def bench_json(endpoint, *arguments) -> dict:
    done = run_bench(endpoint, "--json", "-", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
