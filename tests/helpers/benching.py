"""`sipc bench`, as a process and in this process."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from types import SimpleNamespace
from unittest.mock import patch

from helpers.command import (
    SIPC,
    Program,
    environment,
)
from helpers.inprocess_cli import run_cli
from helpers.waiting import TIMEOUT, wait_until
from simpleipc_cli.bench import exchange, generator
from simpleipc_cli.bench import processes as generator_processes


@contextmanager
def benching(*arguments, program=(SIPC,), **options):
    """A running `sipc bench`, in a session of its own; nothing of it is left at the end."""
    with Program(
        [*program, "bench", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
        **options,
    ) as running:
        yield running
    wait_until(lambda: not _in_group(running.pid), "no process of it left")


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
    with (
        patch.object(generator_processes, "subprocess", starts),
        patch.object(generator_processes, "_STOP_TIMEOUT", TIMEOUT),  # a thread cannot be killed
    ):
        return run_cli("bench", *arguments, **options)


class CountedTime:
    """A clock for `run_bench` that each look at it advances, and that no delay does."""

    def __init__(self, step: int) -> None:
        """`step` in nanoseconds, like the times."""
        self._looks = count(1 << 40, step)
        self._added = 0

    def __call__(self) -> int:
        return next(self._looks) + self._added

    def advance(self, nanoseconds: int) -> None:
        self._added += nanoseconds


@contextmanager
def counted_time(step: int):
    """Let a clock of this step be that of the load."""
    clock = CountedTime(step)
    with ExitStack() as stack:
        for module in (exchange, generator, generator_processes):
            stack.enter_context(patch.object(module, "monotonic_ns", clock))
        stack.enter_context(patch.object(generator_processes, "_START_DELAY", 0))
        yield clock


def bench_json(endpoint, *arguments) -> dict:
    done = run_bench(endpoint, "--json", "-", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
