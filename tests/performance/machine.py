"""What the machine does to those who measure time on it: coming first, and knowing its pauses.

Other people's load shall not be in the figures, and where it is, a test shall know.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import contextmanager
from time import monotonic_ns

SCALE = int(os.environ.get("SIPC_PERFORMANCE", "1"))
"""How long runs are: 1 in CI, 4 for those of ten seconds."""

_NAP = 1_000_000  # nanoseconds
_OVERSLEPT = 1_000_000  # nanoseconds; when later than this, the machine did something else
_FIRST, _BEFORE_ALL = 1, 2  # real-time priorities, both above all that is ordinary


def _come_first(priority: int) -> bool:
    """Let this thread, and what it starts, run before all others; whether that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return False
    return True


@contextmanager
def coming_first():
    """What is started in here runs before everything ordinary, where the system allows it."""
    allowed = _come_first(_FIRST)
    try:
        yield
    finally:
        if allowed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Sentinel:
    """One process on each processor that naps, and knows for how long it has overslept.

    It comes before what is measured: when it is late, the machine itself has stood still.
    """

    def __init__(self) -> None:
        self.stood_still = 0
        """For how long in all, in nanoseconds, on the worst processor; known behind the `with`."""
        self.longest = 0
        """For how long at once."""

    def __enter__(self) -> Sentinel:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._processes = [
            subprocess.Popen([sys.executable, __file__, str(processor)], **pipes)
            for processor in os.sched_getaffinity(0)
        ]
        for process in self._processes:
            assert process.stdout.readline() == b"awake\n"
        return self

    def __exit__(self, *_: object) -> None:
        told = [process.communicate(timeout=30)[0].split() for process in self._processes]
        self.stood_still, self.longest = (max(map(int, each)) for each in zip(*told, strict=True))


def _stand_guard(processor: int) -> tuple[int, int]:
    """Nap until standard input ends; nanoseconds overslept in all, and at once."""
    os.sched_setaffinity(0, {processor})
    _come_first(_BEFORE_ALL)
    print("awake", flush=True)  # noqa: T201
    overslept = longest = 0
    while True:
        began = monotonic_ns()
        if select.select([sys.stdin], [], [], _NAP / 1e9)[0]:
            return overslept, longest
        late = monotonic_ns() - began - _NAP
        if late > _OVERSLEPT:
            overslept += late
            longest = max(longest, late)


if __name__ == "__main__":
    print(*_stand_guard(int(sys.argv[1])))  # noqa: T201
