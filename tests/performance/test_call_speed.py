"""The speed of callbacks in the server's process, compared with a loop that promises nothing."""

from __future__ import annotations

import socket
from time import monotonic

import pytest
from helpers.server import Server
from helpers.wire import connect, message
from performance.asking import measure
from performance.bare import Echo
from performance.machine import SCALE, coming_first

pytestmark = pytest.mark.performance

ROUNDS, SECONDS = 4 * SCALE, 0.2
SLEEP = 0.5
MAX_DELAY = 0.02
"""Seconds; the server notices a slow call after two milliseconds, if the machine lets it."""
CALLBACK = f"""
import time

def answer(request):
    if request == b"slow":
        time.sleep({SLEEP})
    return request
"""


@pytest.fixture
def server(folder):
    """A server whose callback returns the request, after a while if that is `slow`."""
    (folder / "called.py").write_text(CALLBACK)
    with coming_first():
        with Server(folder / "sock", None, "--call", "called:answer", "-q", cwd=folder) as server:
            yield server


@pytest.mark.parametrize(("clients", "limit"), [(1, 0.4), (8, 0.2)])
def test_a_callback_answers_at_a_part_of_the_rate_of_a_bare_loop(
    server, folder, state, clients, limit
):
    """Compare the best of many short turns: other activity of the machine slows the rest."""
    bare, ours = [], []
    with Echo(folder / "bare", 1, framing=True):
        for _ in range(ROUNDS):
            bare.append(measure(folder / "bare", clients, SECONDS, "packets").rate)
            ours.append(measure(server.path, clients, SECONDS, "packets").rate)
    ratio = max(ours) / max(bare)
    state(f"a bare loop with framing, {clients} clients", f"{max(bare):,.0f}/s")
    state(f"serve --call, {clients} clients", f"{max(ours):,.0f}/s, {ratio:.2f} of bare")
    assert ratio >= limit


def test_a_callback_that_sleeps_delays_no_other_client(server, state):
    delays = []
    for _ in range(5 * SCALE):
        with connect(server.path) as slow, connect(server.path) as quick:
            slow.sendall(message(b"slow"))
            began = monotonic()
            quick.sendall(message(b"quick"))
            assert quick.recv(100, socket.MSG_WAITALL) == message(b"quick")
            delays.append(monotonic() - began)
            assert slow.recv(100, socket.MSG_WAITALL) == message(b"slow")
    state("a client beside a callback that sleeps", f"{min(delays) * 1e3:.1f} ms")
    assert min(delays) <= MAX_DELAY
