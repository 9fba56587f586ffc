"""End each test that hangs, without ending the run.

pytest-timeout knows how long each test may take (the option, the marker). What it does after
that is replaced here, because it watches a test only until it fails: not the `with` statements
and fixtures that are left then, nor code that does not return to Python.

After the limit, the test fails with the stacks of all threads; so does, each quarter of the limit
later, whatever still hangs in it. After twice the limit the process ends, with the stacks on
stderr: where that is a worker of pytest-xdist, the controller starts another.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from contextlib import contextmanager

import pytest
from pytest_timeout import is_debugging

from helpers.report import show_on_failure

_stderr = -1
_in_phase = False


def pytest_configure() -> None:
    global _stderr  # noqa: PLW0603 - before pytest captures it
    _stderr = os.dup(2)


def pytest_timeout_set_timer(item, settings):
    def on_alarm(_number, _frame) -> None:
        # Raised outside of the phases, it would end pytest; it comes again.
        if _in_phase and not is_debugging():
            stacks = _stacks()
            show_on_failure("stacks of the other threads", lambda: stacks, lambda: False)
            pytest.fail(f"the test took more than {settings.timeout:g} s")

    if not item.config.option.usepdb:
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, settings.timeout / 4)
        item.stash[_hard_limit] = 2 * settings.timeout
        _start_hard_limit(item)
    return True


def pytest_exception_interact(node) -> None:
    """Start again what pytest has cancelled because the test failed."""
    _start_hard_limit(node)


def pytest_runtest_logfinish() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()


_hard_limit = pytest.StashKey[float]()


def _start_hard_limit(node) -> None:
    if limit := node.stash.get(_hard_limit, None):
        faulthandler.dump_traceback_later(limit, exit=True, file=_stderr)


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(ident, '?')}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    )


@contextmanager
def _phase():
    global _in_phase  # noqa: PLW0603
    _in_phase = True
    try:
        yield
    finally:
        _in_phase = False


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup():
    with _phase():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call():
    with _phase():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown():
    with _phase():
        return (yield)
