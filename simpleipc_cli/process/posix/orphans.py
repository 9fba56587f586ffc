"""Reaps processes that the kernel has made our children.

When a process exits, its children become those of the first process of the container (of the PID
namespace), or of a child subreaper (prctl(2)). If that is the server, no other process reaps what
handlers have started outside of their process group. Our own children are left to their owners,
which need their status, and rely on their number until then.
"""

from __future__ import annotations

import os
import signal

_GET_CHILD_SUBREAPER = 37  # of prctl(2)

own_children: set[int] = set()
"""Children that their owners reap."""

starting: set[int] = set()
"""Threads that start a child, which is not in `own_children` yet."""

is_due = False
"""Whether a thread must call reap() when it has started its child."""


def reap_orphans() -> None:
    """Reap orphans from now on, if the kernel gives us any. For the main thread."""
    if os.getpid() == 1 or _is_subreaper():
        signal.signal(signal.SIGCHLD, lambda _number, _frame: reap())
        reap()  # those of a program that has executed us


def _is_subreaper() -> bool:
    try:
        import ctypes  # noqa: PLC0415 - slow to load

        found = ctypes.c_int(0)
        ctypes.CDLL(None).prctl(_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    except (AttributeError, ImportError, MemoryError, OSError):  # as in best_spawn()
        return False
    return bool(found.value)


def reap() -> None:
    """Reap orphans that have exited, now or at the end of the starts that are under way.

    A child of our own that is in the list below is in `own_children`, unless its start goes on.
    """
    global is_due  # noqa: PLW0603
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            found = {int(word) for word in file.read().split()}  # orphans are the main thread's
    except OSError:  # /proc is not mounted
        return
    is_due = True  # first: a start may end now
    if starting:
        return
    is_due = False
    for pid in found - own_children:
        try:
            os.waitpid(pid, os.WNOHANG)
        except OSError:
            pass  # reaped by now, or a sandbox forbids the call
