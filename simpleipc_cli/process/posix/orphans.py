"""Reap orphans: processes that the kernel has made children of this process.

When a process exits, the first process of the container (the PID namespace), or a child subreaper
(prctl(2)), becomes the parent of its children. If that is the server, it must reap the processes
that handlers have started outside of their process group. It must not reap its own children here:
their owners need the status, and use the number until then.
"""

from __future__ import annotations

import os
import signal

_GET_CHILD_SUBREAPER = 37  # of prctl(2)

own_children: set[int] = set()
"""The numbers of own children, which other modules reap."""

starting: set[int] = set()
"""Threads that are starting a child, which is not in `own_children` yet."""

is_due = False
"""Whether a thread must call reap() when it has started its child."""


def reap_orphans() -> None:
    """Reap orphans from now on, if this process gets any. Call it in the main thread."""
    if os.getpid() == 1 or _is_subreaper():
        signal.signal(signal.SIGCHLD, lambda _number, _frame: reap())
        reap()  # children that this process had before execve()


def _is_subreaper() -> bool:
    try:
        import ctypes  # noqa: PLC0415 - slow to load

        found = ctypes.c_int(0)
        ctypes.CDLL(None).prctl(_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    except (AttributeError, ImportError, MemoryError, OSError):  # as in best_spawn()
        return False
    return bool(found.value)


def kill_children() -> None:
    """Kill all own children and their process groups. Takes no lock, and does not block."""
    for pid in tuple(own_children):
        try:
            os.killpg(pid, signal.SIGKILL)
        except OSError:
            pass  # it has ended, or runs as another user


def reap() -> None:
    """Reap orphans that have exited; if a child is being started, do it after the start.

    All own children in the list below are in `own_children`, unless one is being started.
    """
    global is_due  # noqa: PLW0603
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            found = {int(word) for word in file.read().split()}  # the main thread gets orphans
    except OSError:
        return  # without Linux's /proc orphans cannot be listed: they stay zombies
    is_due = True  # set it before the check: a start may end now
    if starting:
        return
    is_due = False
    for pid in found - own_children:
        try:
            os.waitpid(pid, os.WNOHANG)
        except OSError:
            pass  # reaped already, or a sandbox forbids the call
