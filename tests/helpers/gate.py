"""Make commands wait, without using a processor, until a test lets them continue."""

from __future__ import annotations

import os
from pathlib import Path


class Gate:
    """A FIFO from which each command reads a line that the test writes."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.wait = f"read -r _ <{path}"
        """A shell command that waits."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)  # open() does not block, reads get no end

    def open(self, count: int = 1000) -> None:
        """Let this many commands continue, those that wait now or later."""
        os.write(self._descriptor, b"\n" * count)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the gate. Waiting commands continue, too: they read the end of the file."""
        os.unlink(self._path)  # first: a command that opened it without a writer would wait
        os.close(self._descriptor)
