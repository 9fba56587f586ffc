"""Signals that are held until let_in()."""

from __future__ import annotations

import signal
import threading

import pytest
from helpers.waiting import TIMEOUT

from simpleipc_cli.system import BlockedSignals


class Handled(Exception):
    """Raised by a signal handler."""


@pytest.fixture(params=["SIGINT", "SIGTERM"])
def number(request):
    """A signal whose handler raises."""

    def handler(_number, _frame):
        raise Handled

    found = getattr(signal, request.param)
    before = signal.signal(found, handler)
    yield found
    signal.signal(found, before)


def test_let_in_handles_the_signals_that_were_held(number):
    with BlockedSignals() as signals:
        signal.raise_signal(number)
        done = "something"
        with pytest.raises(Handled):
            with signals.unblocked():
                done = "too much"
        assert done == "something"


def test_signals_that_arrive_during_let_in_are_handled_at_once(number):
    with BlockedSignals() as signals:
        with pytest.raises(Handled):
            with signals.unblocked():
                signal.raise_signal(number)
        signal.raise_signal(number)
        with pytest.raises(Handled):
            with signals.unblocked():
                pass


def test_signals_that_were_held_are_handled_after_the_with_statement(number):
    done = []

    def act():
        with BlockedSignals():
            signal.raise_signal(number)
            done.append("all")

    with pytest.raises(Handled):
        act()
    assert done == ["all"]
    with pytest.raises(Handled):
        signal.raise_signal(number)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with BlockedSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            with signals.unblocked():
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_signal_no_handler_is_changed(number):
    before = signal.getsignal(number)
    with BlockedSignals() as signals:
        with signals.unblocked():
            assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_signals_are_not_held_in_other_threads(number):
    """Handlers run in the main thread, which does not hold them."""
    handler = signal.getsignal(number)
    done = []

    def act():
        with BlockedSignals() as signals, signals.unblocked():
            done.append(signal.getsignal(number))

    thread = threading.Thread(target=act)
    thread.start()
    thread.join(TIMEOUT)
    assert done == [handler]
    with pytest.raises(Handled):
        signal.raise_signal(number)
