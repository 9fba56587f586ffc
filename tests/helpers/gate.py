"""Let commands wait, without using a processor, until a test lets them go on."""

from __future__ import annotations

import os
from pathlib import Path


class Gate:
    """A FIFO from which each command reads a line that the test writes."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.wait = f"read -r _ <{path}"
        """The shell command that waits."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)  # opening it never waits, and it never ends

    def open(self, count: int = 1000) -> None:
        """Let this many commands go on, those that wait and those that come."""
        os.write(self._descriptor, b"\n" * count)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        """Let commands that wait go on, too: they read the end of the file."""
        os.close(self._descriptor)
        os.unlink(self._path)
