"""Eight simultaneous clients send valid and invalid requests to each kind of server."""

from __future__ import annotations

from random import Random

import pytest
from fuzz.conversations import Conversation, Conversations, Ending, Plan, make_plan
from fuzz.inputs import hint, rounds
from fuzz.model import Verdict
from fuzz.servers import SERVERS, Tally, check_nothing_leaks, final_counters, mistake
from helpers.wire import connect

CLIENTS = 8
CASES = [
    pytest.param(server, *case.values, id=f"{server.name}-{case.id}")
    for server in SERVERS
    for case in rounds(server.inputs)
]


def client_plan(number: int) -> Plan:
    random = Random(f"client {number}")
    plan = make_plan(random, number, b"request %d of a client " % number)
    waits_for_more = plan.verdict in (Verdict.TRUNCATED, Verdict.NOTHING)
    if waits_for_more and plan.ending in (Ending.READ, Ending.CLOSE_UNREAD):
        plan.ending = Ending.HALF_CLOSE
    return plan


@pytest.mark.soak
@pytest.mark.parametrize(("fuzzed", "numbers"), CASES)
def test_valid_requests_are_answered_correctly_and_invalid_ones_never(endpoint, fuzzed, numbers):
    tally = Tally()
    waiting = iter(numbers)
    clients = Conversations()
    with fuzzed.start(endpoint) as server:
        at_start = final_counters(server)
        try:
            while True:
                while len(clients.open) < CLIENTS and (number := next(waiting, None)) is not None:
                    clients.open.append(Conversation(connect(endpoint), client_plan(number)))
                if not clients.open:
                    break
                for one in clients.turn():
                    tally.add(one)
                    if wrong := mistake(fuzzed, one):
                        received = bytes(one.received)
                        pytest.fail(
                            f"{wrong}\n{hint(one.plan.seed)}\n{one.plan}\n"
                            f"received {len(received)} bytes: {received[:200]!r}"
                        )
        finally:
            clients.close()
        check_nothing_leaks(server, fuzzed, tally)
        counters = final_counters(server)
        tally.check({name: count - at_start.get(name, 0) for name, count in counters.items()})
