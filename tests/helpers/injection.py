"""Make system calls of a running process fail, one at a time, with strace."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.procfs import state, threads
from helpers.waiting import TIMEOUT, wait_until

ERRNOS = "EINTR EAGAIN EMFILE ENFILE ENOMEM ENOSPC EIO EPERM ENOSYS".split()

STOPPED = str(Path(__file__).parents[1] / "faults" / "stopped.py")


def _may_attach() -> bool:
    try:
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    except FileNotFoundError:
        scope = 0
    return scope == 0 or (scope < 3 and os.geteuid() == 0)


needs_strace = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.skipif(not _may_attach(), reason="kernel.yama.ptrace_scope: strace needs root"),
]


@dataclass(frozen=True)
class Fault:
    """The `when`-th such call of each traced thread fails. Counted from the attachment on.

    `where` says which threads of the process are traced: the `main` thread, the other `threads`,
    or `all`, and then also what they start.
    """

    call: str
    error: str
    when: int = 1
    where: str = "all"

    def __str__(self) -> str:
        return f"{self.call}:{self.error}:{self.when}:{self.where}"


SAME_CALLS = {"poll": "poll,ppoll"}
"""Calls that Python makes in place of each other: select.poll() is ppoll(2) since 3.15."""


class Strace:
    """An attached strace. Leaving the `with` detaches it; the process goes on."""

    def __init__(self, pid: int, output: Path, fault: Fault, *, inject: bool = True) -> None:
        self._output = output
        targets = {
            "main": ["-p", str(pid)],
            "threads": [word for tid in threads(pid) if tid != pid for word in ("-p", str(tid))],
            "all": ["-f", "-p", str(pid)],
        }[fault.where]
        calls = SAME_CALLS.get(fault.call, fault.call)
        command = ["strace", "-y", "-o", str(output), *targets, "-e", f"trace={calls}"]
        if inject:
            command += ["-e", f"inject={calls}:error={fault.error}:when={fault.when}"]
        self._count = targets.count("-p")
        self._process = None
        output.write_text("")
        if targets:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
            )

    def __enter__(self) -> Strace:
        if self._process is not None:
            for _ in range(self._count):
                line = self._process.stderr.readline()
                assert b"attached" in line, line + self._process.stderr.read()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.stderr.read()
            self._process.wait(TIMEOUT)
            self._process.stderr.close()

    def calls(self) -> list[str]:
        """Return the calls that were made, in the words of strace."""
        lines = self._output.read_text(errors="replace").splitlines()
        found = (re.match(r"(?:\d+ +)?(\w+\(.*|<\.\.\. .*INJECTED.*)", line) for line in lines)
        return [match[1] for match in found if match]

    def injected(self) -> list[str]:
        """Return the calls that were made to fail."""
        return [call for call in self.calls() if "(INJECTED)" in call]


def wait_until_stopped(pid: int) -> None:
    """Wait until a process that runs stopped.py has come to its stop."""
    wait_until(lambda: state(pid) == "T", "it to stop itself")


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` numbers from 1 to `count`, the first and the last among them."""
    steps = max(most - 1, 1)
    return sorted({1 + round(step * (count - 1) / steps) for step in range(most)}) if count else []
