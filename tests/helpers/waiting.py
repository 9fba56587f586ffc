"""Wait for states."""

from __future__ import annotations

from time import monotonic, sleep

TIMEOUT = 120.0
"""Seconds after which a wait for a state fails."""

_FIRST_DELAY, _MAX_DELAY = 0.001, 0.02


def wait_until(state, what: str, timeout: float = TIMEOUT):
    """Call `state` until it returns something true; return that."""
    end = monotonic() + timeout
    pause = _FIRST_DELAY
    while not (found := state()):
        assert monotonic() < end, f"not within {timeout} s: {what}"
        sleep(pause)
        pause = min(1.5 * pause, _MAX_DELAY)
    return found
