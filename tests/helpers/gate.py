"""Let handlers wait, without using a processor, until a test lets them go on."""

from __future__ import annotations

import os
from pathlib import Path


class Gate:
    """A FIFO from which each handler reads a line that the test writes."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.wait = f"read -r _ <{path}"
        """The shell command that waits."""
        self._descriptor = os.open(path, os.O_RDWR)

    def open(self, count: int = 1000) -> None:
        """Let this many handlers go on, those that wait and those that come."""
        os.write(self._descriptor, b"\n" * count)

    def close(self) -> None:
        """Handlers that wait go on, too: they read the end of the file."""
        os.close(self._descriptor)
