"""Tests that hang, each in a different place, and a later one that passes."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

import pytest
from helpers.server import Server
from helpers.terminal import terminal
from helpers.waiting import wait_until
from helpers.wire import ask


def hang() -> None:
    threading.Event().wait()


def reach_limit(*, again: bool = False) -> None:
    """Let this test time out soon, and the later limits soon after."""
    _, interval = signal.getitimer(signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, 0.1, interval / 750 if again else 0)


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
        reach_limit()
        threading.Thread(target=hang, name="another", daemon=True).start()
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
    reach_limit(again=True)
    with HangsAtExit():
        hang()


@pytest.fixture
def hanging_setup():
    reach_limit()
    hang()


def test_hangs_in_a_setup(hanging_setup):
    pass


@pytest.mark.timeout(2)
def test_hangs_in_c():
    hang_in_c()


@pytest.fixture
def teardown_in_c():
    yield
    hang_in_c()


@pytest.mark.timeout(2)
def test_hangs_in_c_after_it_failed(teardown_in_c):
    raise AssertionError


def test_after_all():
    pass
