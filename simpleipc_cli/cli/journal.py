"""Priorities for lines on stderr where systemd's journal reads it: sd-daemon(3).

The journal takes a prefix like `<3>` off a line, and stores it as the line's priority.
"""

from __future__ import annotations

import os
from enum import IntEnum


class Priority(IntEnum):
    """What the journal, like syslog(3), calls a line."""

    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7


def is_journal(descriptor: int) -> bool:
    """Tell whether a descriptor is the one that JOURNAL_STREAM names: systemd.exec(5).

    Processes whose stderr was redirected inherit the variable, too: hence the comparison.
    """
    named = os.environ.get("JOURNAL_STREAM")
    if named is None:
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def with_priority(text: bytes, priority: Priority) -> bytes:
    """Prefix each line of a text, as the journal stores each by itself."""
    return b"\n".join(b"<%d>%s" % (priority, line) for line in text.split(b"\n"))
