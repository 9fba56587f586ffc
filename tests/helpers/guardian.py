"""Wait until the test run has ended, then end all that it left, and remove its folder.

A program: its argument is the run's mark; its standard input is a pipe that ends with the run.
After a byte in it the run has ended in good order, and what it left gets some time to end, too.
Each process that did not is written to standard output.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "SIPC_TEST_RUN"
GUARDIAN = "SIPC_TEST_GUARDIAN"
"""In the environment of every guardian: that of another run has to live longer than this run."""

GRACE = 10.0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def _variables(process: Path) -> list[bytes]:
    """The environment of a process, which has none yet while execve(2) runs."""
    limit = time.monotonic() + 1.0  # its disk may hang
    while not (text := _read(process / "environ")) and _is_in_exec(process):
        if time.monotonic() >= limit:
            break
        time.sleep(0.001)
    return text.split(b"\0")


def _is_in_exec(process: Path) -> bool:
    """Whether a process has memory, but not yet the code of its program."""
    size, _, _, start_of_code = [*_stat(process), *[b"0"] * 50][20:24]
    return size != b"0" and start_of_code == b"0"


def _target(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:  # it was closed just now
        return ""


def _holds(process: Path, pipe: str) -> bool:
    try:
        return any(_target(entry) == pipe for entry in process.joinpath("fd").iterdir())
    except OSError:
        return False


def _stat(process: Path) -> list[bytes]:
    """The fields of proc_pid_stat(5) after the name; the first is the state."""
    return _read(process / "stat").rpartition(b")")[2].split() or [b"Z", b"0"]


def _parent(process: Path) -> str:
    state, parent, *_ = _stat(process)
    return "0" if state in b"ZX" else parent.decode()


def left(mark: str, pipe: str) -> list[Path]:
    """Processes that carry the mark or hold the pipe, and what those have started."""
    found, parents = set(), {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        variables = _variables(process)
        if f"{GUARDIAN}=1".encode() in variables:
            continue
        if f"{MARK}={mark}".encode() in variables or _holds(process, pipe):
            found.add(process.name)
        elif (parent := _parent(process)) != "0":
            parents[process.name] = parent
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return [Path("/proc", name) for name in found]


def kill_all(mark: str, pipe: str) -> None:
    """Repeat until there is none: they may start others in between."""
    denied: set[Path] = set()
    while found := set(left(mark, pipe)) - denied:
        for process in found:
            try:
                os.kill(int(process.name), signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:  # a set-user-ID program
                denied.add(process)
        time.sleep(0.01)


def remove(folder: str) -> None:
    for root, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(path := os.path.join(root, name)):
                os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def main(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    pipe = os.readlink("/proc/self/fd/0")
    if os.read(0, 1):
        os.read(0, 1)  # the end
        limit = time.monotonic() + GRACE
        while (found := left(mark, pipe)) and time.monotonic() < limit:
            time.sleep(0.05)
        for process in found:
            command = _read(process / "cmdline").replace(b"\0", b" ").decode(errors="replace")
            os.write(1, f"{process.name} {command}\n".encode())
    kill_all(mark, pipe)
    remove(f"/tmp/sipc-test-{mark}")


if __name__ == "__main__":
    main(sys.argv[1])
