"""Make sure that no process or temporary folder of the test run outlives it.

The controller (or the only process) of the run starts a guardian, guardian.py, which notices when
the run ends, however it does. What the run starts has the run's mark in its environment.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from helpers.guardian import GUARDIAN, MARK
from helpers.procfs import children


def folder() -> Path:
    """The run's folder for all temporary files. Its path is short: socket addresses are short."""
    return Path(f"/tmp/sipc-test-{os.environ[MARK]}")


class Guard:
    """The controller's end of the guardian."""

    def __init__(self) -> None:
        os.environ[MARK] = secrets.token_hex(4)
        folder().mkdir(mode=0o711)  # other users may enter subfolders that permit it
        self._end, self._alive = os.pipe()
        # A fork that executes nothing has no mark. It must not keep the pipe from ending, but the
        # guardian finds it by the other end.
        os.register_at_fork(after_in_child=self._close_alive)
        self._guardian = subprocess.Popen(
            [sys.executable, "-IS", Path(__file__).with_name("guardian.py"), os.environ[MARK]],
            stdin=self._end,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={GUARDIAN: "1"},
            cwd="/",
            start_new_session=True,
            text=True,
        )

    def _close_alive(self) -> None:
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1

    def interrupt_children(self) -> None:
        for pid in children(os.getpid()):
            if pid != self._guardian.pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)

    def finish(self, *, in_good_order: bool) -> list[str]:
        """End the run; if it is complete, return the processes that it left running."""
        if self._alive >= 0:
            if in_good_order:
                os.write(self._alive, b"\n")
            os.close(self._end)
            self._close_alive()
        return self._guardian.communicate()[0].splitlines()


guard: Guard | None = None
"""The object of this process, unless this is a worker of pytest-xdist."""
