"""More room in pipes through which much is passed: fewer and larger reads and writes."""

from __future__ import annotations

from simpleipc_cli import system

_ROOM = 1 << 20
"""Bytes: the most that Linux gives to ordinary users (fs.pipe-max-size, pipe(7))."""


def grow_pipe(descriptor: int) -> None:
    """Let a pipe hold a mebibyte, where the system allows it; of no effect on anything else."""
    if not system.PIPES_GROW:
        return
    import fcntl  # noqa: PLC0415 - only for those who pass on much

    try:
        if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < _ROOM:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _ROOM)
    except OSError:
        pass  # no pipe, or this user's pipes take up enough already
