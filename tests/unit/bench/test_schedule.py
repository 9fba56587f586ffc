"""When requests are due: arithmetic, without a clock."""

from __future__ import annotations

import pytest

from simpleipc_cli.bench.generator import Schedule, interval_of

SECOND = 1_000_000_000


@pytest.mark.parametrize("seconds", [1, 10])
def test_the_rate_decides_how_many_requests_are_due(seconds):
    for rate in range(1, 5001):
        schedule = Schedule(7 * SECOND, interval_of(rate), 1)
        end = (7 + seconds) * SECOND
        assert schedule.count_skipped(7 * SECOND, end) == rate * seconds
        assert schedule.count_skipped(8 * SECOND, end) == rate * (seconds - 1)


@pytest.mark.parametrize("rate", [0.001, 0.3, 1e9])
def test_a_rate_of_any_size_has_an_interval_between_requests(rate):
    assert interval_of(rate) == pytest.approx(SECOND / rate)


def test_in_a_closed_loop_a_request_is_due_when_a_client_is_free():
    schedule = Schedule(5, None, 2)
    assert (schedule.start(6), schedule.next_due(), schedule.start(7)) == (6, 5, 7)
    assert schedule.next_due() is None
    schedule.release(30)
    schedule.release(20)
    assert schedule.next_due() == 20
    assert schedule.count_skipped(0, 100) == 0
