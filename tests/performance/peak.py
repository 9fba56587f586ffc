"""Runs a command, and prints its peak memory in KiB to stderr.

The peak of a child that it has waited for counts if it is higher; that of cat is lower.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(pid, number))
    _, status, usage = os.wait4(pid, 0)
    print(usage.ru_maxrss, file=sys.stderr)  # noqa: T201
    sys.exit(os.waitstatus_to_exitcode(status))
