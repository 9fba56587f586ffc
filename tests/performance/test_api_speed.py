"""The speed of a program's `send()`, compared with a client that checks no response."""

from __future__ import annotations

import os
from contextlib import contextmanager
from time import perf_counter

import pytest
from performance.asking import PAYLOAD, ask_packets
from performance.bare import Echo
from performance.machine import SCALE, coming_first

from simpleipc_cli import send

pytestmark = pytest.mark.performance

ROUNDS, REQUESTS = 40, SCALE * 100
GOAL = 0.7
"""Rate of `send()` divided by that of the bare client."""


def rate(ask, path: str) -> float:
    """Return the requests per second of a loop."""
    began = perf_counter()
    for _ in range(REQUESTS):
        ask(path)
    return REQUESTS / (perf_counter() - began)


def send_bytes(path: str) -> None:
    assert send(path, PAYLOAD) == PAYLOAD


@contextmanager
def on_two_processors(path):
    """A server on one processor, and this thread on another one: where both run matters most."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        with coming_first(), Echo(path, 1):
            os.sched_setaffinity(0, {max(allowed)})
            yield
    finally:
        os.sched_setaffinity(0, allowed)


def test_sends_in_a_loop_are_nearly_as_fast_as_a_bare_client(endpoint, state):
    """Compare the best of many short turns: other activity of the machine slows the rest."""
    bare, ours = [], []
    with on_two_processors(endpoint):
        for _ in range(ROUNDS):
            bare.append(rate(ask_packets, str(endpoint)))
            ours.append(rate(send_bytes, str(endpoint)))
    ratio = max(ours) / max(bare)
    state("a bare client in a loop", f"{max(bare):,.0f}/s")
    state("send() in a loop", f"{max(ours):,.0f}/s, {ratio:.2f} of bare")
    assert ratio >= GOAL
