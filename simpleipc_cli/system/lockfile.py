"""Lock files: flock(2), which the kernel releases however the lock's holder ends."""

from __future__ import annotations

import fcntl
import os


def lock_nowait(descriptor: int) -> bool:
    """Lock an open file; False if another process has the lock.

    A file system without locks grants every lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_at_path(descriptor: int, path: str, folder: int | None = None) -> bool:
    """Return whether `path`, relative to the descriptor `folder`, still names this open file.

    The lock of a file that was removed or replaced protects nothing.
    """
    try:
        found = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))
