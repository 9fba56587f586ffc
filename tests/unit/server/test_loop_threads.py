"""Takeovers that only a test can time: LoopThreads with a run that it controls."""

from __future__ import annotations

import threading
from collections import deque
from time import sleep

import pytest
from helpers.waiting import TIMEOUT

from simpleipc_cli.server.loop_threads import LoopThreads


class Run:
    """A run whose call ends, or can be polled, when the test says so."""

    def __init__(self, *, ends_during_takeover=False, refusals=0):
        self.call = self._call
        self._ends_during_takeover = ends_during_takeover
        self._refusals = refusals
        self._may_return = threading.Event()
        self.has_returned = threading.Event()
        self.takeovers = 0

    def _call(self):
        assert self._may_return.wait(TIMEOUT)
        self.has_returned.set()

    def make_pollable(self):
        self.takeovers += 1
        if self.takeovers <= self._refusals:
            return False
        if self._ends_during_takeover:
            self._may_return.set()
            assert self.has_returned.wait(TIMEOUT)
        return True

    def let_return(self):
        self._may_return.set()


def run_loop(runs):
    """Run a loop that makes these calls; return what it passed on, in order."""
    calls, passed, pending = deque(), [], deque(runs)

    def run_once():
        if pending:
            run = pending.popleft()
            calls.append((run, lambda *_: passed.append(run)))
            return True
        for run in runs:
            run.let_return()
        return not all(run in passed for run in runs)

    LoopThreads(run_once, calls).run()
    return passed


def test_a_call_that_returns_during_its_takeover_is_passed_on_once():
    run, other = Run(ends_during_takeover=True), Run(ends_during_takeover=True)
    assert run_loop([run, other]) == [run, other]
    assert run.takeovers == other.takeovers == 1


def test_short_calls_without_end_do_not_keep_events_waiting():
    """Each call is followed by another, as those of clients that wait in the queue."""
    calls, rounds, made = deque(), [], []

    def on_called():
        made.append(1)
        if len(rounds) < 3 and len(made) < 100_000:
            calls.append((Short(), on_called))

    class Short:
        def call(self):
            sleep(0.0001)

        def make_pollable(self):
            return False

    def run_once():
        rounds.append(1)
        return len(rounds) < 4

    calls.append((Short(), on_called))
    LoopThreads(run_once, calls).run()
    assert len(rounds) == 4
    assert 3 <= len(made) < 100_000


def test_a_takeover_without_a_descriptor_is_tried_again():
    run, other = Run(refusals=3), Run(ends_during_takeover=True)
    assert run_loop([run, other]) == [run, other]
    assert run.takeovers == 4


def test_a_call_that_was_stopped_before_it_began_is_not_passed_on():
    stopped, other = Run(), Run(ends_during_takeover=True)
    stopped.call = None
    calls, passed = deque(), []
    pending = deque([stopped, other])

    def run_once():
        if pending:
            run = pending.popleft()
            calls.append((run, lambda *_: passed.append(run)))
            return True
        return False

    LoopThreads(run_once, calls).run()
    assert passed == [other]
    assert stopped.takeovers == 0


def test_the_failure_of_the_loop_is_raised_whichever_thread_has_it():
    def fail(*_):
        raise ZeroDivisionError

    for run in (None, Run(ends_during_takeover=True)):
        calls = deque([] if run is None else [(run, fail)])
        with pytest.raises(ZeroDivisionError):
            LoopThreads(fail, calls).run()
