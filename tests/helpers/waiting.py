"""Wait for states."""

from __future__ import annotations

import threading
from time import monotonic

TIMEOUT = 120.0
"""Seconds after which a test gives up on a state. Never reached when all is well."""


def wait_until(state, what: str, timeout: float = TIMEOUT):
    """Wait for a state; what it returned, once that is true."""
    ticks = threading.Event()
    end = monotonic() + timeout
    while monotonic() < end:
        if found := state():
            return found
        ticks.wait(0.005)
    raise AssertionError(f"not within {timeout} s: {what}")
