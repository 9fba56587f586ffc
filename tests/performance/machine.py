"""Priority for the processes that measure time, and measurement of the machine's pauses.

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
"""Length of the runs: 1 in CI, 4 for runs of ten seconds."""

_NAP = 1_000_000  # nanoseconds
_OVERSLEPT = 1_000_000  # nanoseconds; a longer delay means that the machine ran something else
_FIRST, _BEFORE_ALL = 1, 2  # real-time priorities, both above all ordinary processes


def _come_first(priority: int) -> bool:
    """Run this thread and its children before all others; return whether that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return False
    return True


@contextmanager
def coming_first():
    """Run processes started within before all ordinary ones, if the system allows it."""
    allowed = _come_first(_FIRST)
    try:
        yield
    finally:
        if allowed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Sentinel:
    """One sleeping process on each processor that measures how late it wakes up.

    It has a higher priority than what is measured: if it is late, the machine has paused.
    """

    def __init__(self) -> None:
        self.stood_still = 0
        """The sum of the delays in nanoseconds on the worst processor; set after the `with`."""
        self.longest = 0
        """The longest single delay in nanoseconds."""

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
    """Sleep in steps until standard input ends; return the sum and the maximum of delays."""
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
