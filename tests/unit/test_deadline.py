from __future__ import annotations

import pytest

from simpleipc_cli.deadline import NEVER, Deadline, InactivityTimer

START = 1000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("simpleipc_cli.deadline.monotonic", clock)
    return clock


# Deadline


def test_the_remaining_time_decreases_to_zero_and_not_below(clock):
    deadline = Deadline(5)
    left = []
    for clock.now in (START, START + 2, START + 5, START + 60):
        left.append((deadline.remaining(), deadline.expired()))
    assert left == [(5, False), (3, False), (0, True), (0, True)]


def test_without_a_limit_a_deadline_never_passes(clock):
    deadline = Deadline(None)
    clock.now += 1e9
    assert (deadline.remaining(), deadline.expired()) == (None, False)


def test_a_deadline_of_0_seconds_has_passed(clock):
    assert Deadline(0).expired()
    assert Deadline(-1).remaining() == 0


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [(5, 3, 3), (3, 5, 3), (4, 4, 4), (5, None, 5), (None, 3, 3), (None, None, None)],
)
def test_sooner_returns_the_earlier_of_two_deadlines(clock, mine, other, expected):
    assert Deadline(mine).capped(other).remaining() == expected


def test_sooner_counts_its_seconds_from_now(clock):
    deadline = Deadline(5)
    clock.now += 3
    assert deadline.capped(4).remaining() == 2
    assert deadline.capped(1).remaining() == 1


def test_sooner_does_not_change_its_deadline(clock):
    deadline = Deadline(5)
    deadline.capped(1)
    assert deadline.remaining() == 5


# Timers of inactivity


def test_a_timer_expires_only_while_it_runs():
    timer = InactivityTimer(10)
    assert timer.expires_at() == NEVER
    timer.set_running(True, 100)
    assert timer.expires_at() == 110


def test_a_paused_timer_keeps_the_time_it_has_run():
    timer = InactivityTimer(10)
    timer.set_running(True, 0)
    timer.set_running(False, 4)
    assert timer.expires_at() == NEVER
    timer.set_running(True, 100)
    assert timer.expires_at() == 106
    timer.set_running(False, 101)
    timer.set_running(True, 200)
    assert timer.expires_at() == 205


def test_starting_a_running_timer_again_changes_nothing():
    timer = InactivityTimer(10)
    timer.set_running(True, 0)
    timer.set_running(True, 7)
    assert timer.expires_at() == 10


def test_pausing_a_paused_timer_again_changes_nothing():
    timer = InactivityTimer(10)
    timer.set_running(True, 0)
    timer.set_running(False, 1)
    timer.set_running(False, 9)
    timer.set_running(True, 20)
    assert timer.expires_at() == 29


def test_progress_restarts_a_running_timer():
    timer = InactivityTimer(10)
    timer.set_running(True, 0)
    timer.set_running(False, 3)
    timer.set_running(True, 5)
    timer.reset(8)
    assert timer.expires_at() == 18


def test_progress_resets_a_paused_timer_which_stays_paused():
    timer = InactivityTimer(10)
    timer.set_running(True, 0)
    timer.set_running(False, 3)
    timer.reset(4)
    assert timer.expires_at() == NEVER
    timer.set_running(True, 6)
    assert timer.expires_at() == 16


def test_a_timer_without_a_limit_never_expires():
    timer = InactivityTimer(None)
    timer.set_running(True, 0)
    assert timer.expires_at() == NEVER
