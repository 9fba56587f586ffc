"""How many system calls a server makes for a small request."""

from __future__ import annotations

from helpers.injection import needs_strace
from helpers.system_calls import calls_of_a_request

pytestmark = needs_strace

MAX_CALLS = 34  # mostly 32


def test_a_request_of_a_few_bytes_takes_few_system_calls_of_the_server(folder):
    calls = calls_of_a_request(folder)
    assert len(calls) <= MAX_CALLS, "\n".join(calls)
