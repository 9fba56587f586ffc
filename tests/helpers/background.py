"""Servers in the background: start them, and end all of them."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

from helpers.command import Program, sipc
from helpers.patience import GRACE, LOCK, without_limits
from helpers.procfs import children
from helpers.spawning import Spawning
from helpers.waiting import wait_until

PATIENT = without_limits(*LOCK, *GRACE)


class Background(Spawning):
    """Servers in the background on one path.

    The end of the `with` stops them, and checks the result.
    """

    def arguments(self, *options, command="cat") -> list[str]:
        return ["serve", self.path, "--exec", command, "--background", *map(str, options)]

    def serve(self, *options, command="cat", **more) -> subprocess.CompletedProcess[bytes]:
        """Run the command that starts a server; return when it has exited and closed its output."""
        more.setdefault("env", self.environment())
        return sipc(*self.arguments(*options, command=command), **more)

    def start_serve(self, *options, command="cat", program=PATIENT, **more) -> Program:
        """Start the command, without waiting for it."""
        more.setdefault("env", self.environment())
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return Program([*program, *self.arguments(*options, command=command)], **more)

    @contextmanager
    def waiting_for_lock(self, *options, **more):
        """Start a server that waits for a lock; return the process and its child, the server."""
        lock = Path(f"{self.path}.lock")
        lock.touch()
        try:
            with self.start_serve(*options, **more) as parent:
                wait_until(self._has_bound, "it to wait for the lock")
                (child,) = children(parent.pid)
                yield parent, child
        finally:
            lock.unlink(missing_ok=True)

    def _has_bound(self) -> bool:
        return any(re.search(r"\.sipc-[0-9a-f]+$", name) for name in os.listdir(self.folder))

    def check_nothing_left(self) -> None:
        super().check_nothing_left()
        assert not Path(self.path).exists()
