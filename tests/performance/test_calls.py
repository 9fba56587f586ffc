"""A small request takes few calls, and few of them lead to another module."""

from __future__ import annotations

import pytest
from performance import count_calls

pytestmark = pytest.mark.performance


def test_a_small_request_takes_few_calls_and_few_changes_of_module(state):
    calls = count_calls.calls_of_a_request()
    changes = count_calls.module_changes(calls)
    state("a request of two bytes", f"{len(calls)} calls, {changes} changes of module")
    assert calls[0].function == "accept"
    assert calls[-1].function == "request"
    assert len(calls) <= count_calls.MAX_CALLS
    assert changes <= count_calls.MAX_MODULE_CHANGES
