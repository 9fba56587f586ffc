"""Run the installed `sipc`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers.waiting import TIMEOUT, wait_until

SIPC = str(Path(sys.executable).with_name("sipc"))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, or mounts: root")


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, without variables that sipc reads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"SIPC_PATH", "XDG_RUNTIME_DIR", "LISTEN_FDS", "NOTIFY_SOCKET"}
    }
    return {**kept, "PATH": f"{Path(SIPC).parent}:{kept['PATH']}", **more}


def sipc(
    *arguments,
    input: bytes = b"",  # noqa: A002
    program=(SIPC,),
    **options,
) -> subprocess.CompletedProcess[bytes]:
    """Run the installed sipc, or another program, to its end."""
    options.setdefault("env", environment())
    options.setdefault("timeout", TIMEOUT)
    command = [*program, *map(str, arguments)]
    return subprocess.run(command, input=input, capture_output=True, **options)


class Program(subprocess.Popen):
    """A running program. A failing `with` kills it in place of waiting for its end."""

    def __exit__(self, kind, *rest) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def read_line(process: subprocess.Popen) -> str:
    """Read a line that it prints, but no more: communicate() does not return what was buffered."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
        line += byte
    return line.decode()


@contextmanager
def started_at_once(commands) -> Iterator[tuple[Program, list[Program]]]:
    """Start programs of which all but one must exit; return that one and the others."""
    with ExitStack() as stack:
        options = {"stderr": subprocess.PIPE, "env": environment()}
        programs = [stack.enter_context(Program(command, **options)) for command in commands]

        def others() -> list[Program] | None:
            ended = [program for program in programs if program.poll() is not None]
            return ended if len(ended) >= len(programs) - 1 else None

        losers = wait_until(others, "all but one to end")
        (winner,) = set(programs) - set(losers)
        yield winner, losers


def assert_error_line(done, status: int, *words: str, stdout: bytes = b"") -> None:
    """Check a failed command: its exit status, one line on stderr, and its standard output."""
    assert done.returncode == status, done.stderr
    assert re.fullmatch(rb"sipc \w+: [^\n]+: [^\n]+\n", done.stderr), done.stderr
    assert (done.stdout or b"") == stdout
    for word in words:
        assert word.encode() in done.stderr, done.stderr
