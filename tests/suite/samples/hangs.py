"""Tests that hang, each in a different place, and a later one that passes."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from functools import partial

import pytest
from helpers.server import Server
from helpers.terminal import terminal
from helpers.waiting import wait_until
from helpers.wire import ask

LIMIT = 5
"""Seconds; long enough for a test to begin on a busy machine. A test in C takes twice as long."""


def hang() -> None:
    """Reach the next limit of this test soon, but no further one; there must be such a limit."""
    seconds, interval = signal.getitimer(signal.ITIMER_REAL)
    assert seconds
    signal.setitimer(signal.ITIMER_REAL, 0.1, interval)
    threading.Event().wait()


def hang_in_thread(begun: threading.Event) -> None:
    begun.set()
    threading.Event().wait()


def hang_in_c() -> None:
    """Lock a mutex twice: the call never returns, and Python handles no signal in it."""
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    while True:
        libc.pthread_mutex_lock(mutex)


def test_hangs_with_a_server_and_a_terminal(endpoint):
    with Server(endpoint, "cat", "-v") as server, terminal() as tty:
        os.write(tty.slave, b"text on the screen")
        wait_until(lambda: tty.output, "it to be on the screen")
        ask(endpoint, b"x")
        server.wait_for_log("answered")
        begun = threading.Event()
        target = partial(hang_in_thread, begun)
        threading.Thread(target=target, name="another", daemon=True).start()
        begun.wait()
        hang()


class HangsAtExit:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        hang()


@pytest.fixture
def hanging_teardown():
    yield
    hang()


def test_hangs_in_every_place(hanging_teardown):
    with HangsAtExit():
        hang()


@pytest.fixture
def hanging_setup():
    hang()


def test_hangs_in_a_setup(hanging_setup):
    pass


@pytest.mark.timeout(LIMIT)
def test_hangs_in_c():
    hang_in_c()


@pytest.fixture
def teardown_in_c():
    yield
    hang_in_c()


@pytest.mark.timeout(LIMIT)
def test_hangs_in_c_after_it_failed(teardown_in_c):
    raise AssertionError


def test_after_all():
    pass
