"""Mount file systems, as only root can."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.waiting import wait_until


@contextmanager
def small_disk(place: Path, size: str = "1m") -> Iterator[Path]:
    """Mount a file system of this size on a new folder."""
    place.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={size}", "none", place):
        yield place


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """Mount as mount(8) does; the last argument is the place."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        unmount = ["umount", arguments[-1]]
        # A process that exits, and has no memory any more, may still have files open there.
        wait_until(lambda: subprocess.run(unmount).returncode == 0, f"no user of {arguments[-1]}")
