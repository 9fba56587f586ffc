"""The servers that the fuzzer talks to, and what they have to answer.

To add one, add it to SERVERS.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz import model
from fuzz.conversations import Conversation
from fuzz.model import Verdict
from helpers.call_server import CallServer
from helpers.procfs import children, descriptors, peak_memory
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, wait_until_accepted
from helpers.workers import WorkerServer

CALLBACKS = Path(__file__).parent
REVERSING_WORKER = f"{sys.executable} -IS {Path(__file__).with_name('reversing_worker.py')}"
THREADS = 8
# A request that the server takes for unfinished stays, and the test names it.
NO_TIMEOUTS = ("--read-timeout", "0", "--write-timeout", "0")


@dataclass(frozen=True)
class FuzzedServer:
    """A server that answers each request with `respond(payload)`."""

    name: str
    options: tuple[str, ...]
    respond: Callable[[bytes], bytes]
    inputs: int
    """The number of inputs in one round."""
    streams: bool = False
    """Whether a response may begin before its request is complete."""
    kept_processes: int = 0
    """How many handlers may wait for requests."""

    def start(self, endpoint) -> Server:
        kind = WorkerServer if self.kept_processes else Server
        if "--call" in self.options:
            kind = CallServer
        server = kind(endpoint, None, "-q", *NO_TIMEOUTS, *self.options, cwd=CALLBACKS)
        # The server accepts in order, so it has counted the connections that looked whether it
        # listens.
        assert ask(endpoint, b"first") == (self.respond(b"first"), True)
        server.wait_until_idle()
        return server


SERVERS = [
    FuzzedServer(
        "worker",
        ("--worker", REVERSING_WORKER),
        lambda payload: payload[::-1],
        inputs=500,
        kept_processes=THREADS,
    ),
    FuzzedServer(
        "worker-whole-request",
        ("--worker", REVERSING_WORKER, "--whole-request"),
        lambda payload: payload[::-1],
        inputs=4000,
        kept_processes=THREADS,
    ),
    FuzzedServer(
        "call", ("--call", "callbacks:reverse"), lambda payload: payload[::-1], inputs=4000
    ),
    FuzzedServer(
        "call-stream", ("--call", "callbacks:upper"), bytes.upper, inputs=1000, streams=True
    ),
    FuzzedServer("exec", ("--exec", "tr a-z A-Z"), bytes.upper, inputs=150, streams=True),
    FuzzedServer(
        "prestarted-exec",
        ("--exec", "tr a-z A-Z", "--prestart", "4"),
        bytes.upper,
        inputs=150,
        streams=True,
        kept_processes=4,
    ),
]

OUTCOMES = {
    Verdict.COMPLETE: "answered",
    Verdict.MALFORMED: "malformed",
    Verdict.TRUNCATED: "request_incomplete",
    Verdict.NOTHING: "closed_without_data",
}
HUNG_UP = {"client_closed", "request_incomplete"}


def mistake(server: FuzzedServer, conversation: Conversation) -> str:
    """Return the defect of a response; empty if it is correct."""
    decoded = conversation.plan.decoded
    wire = bytes(conversation.received)
    if not model.is_written_by_sipc(wire):
        return "the response is not what sipc may write"
    response = model.decode(wire)
    if decoded.verdict is Verdict.COMPLETE:
        expected = server.respond(decoded.payload)
        if conversation.saw_end and response.verdict is not Verdict.COMPLETE:
            return "a right request is not answered"
    else:
        expected = server.respond(decoded.payload) if server.streams else b""
        if response.verdict is Verdict.COMPLETE:
            return "a wrong request is answered with a complete response"
    if response.verdict is Verdict.COMPLETE and response.payload != expected:
        return "the response to a right request is wrong"
    if not expected.startswith(response.payload):
        return "a part of a response is wrong"
    return ""


def final_counters(server: Server) -> dict[str, int]:
    """Wait until every request has ended, those of killed handlers, too; return the counters."""

    def counters() -> dict[str, int] | None:
        found = server.counters()
        return None if found["in_flight"] or found["queued"] else found

    return wait_until(counters, "all requests to end")


class Tally:
    """Counts the outcomes that the server's counters must show after the conversations."""

    def __init__(self) -> None:
        self.certain: Counter[str] = Counter()
        self.possible: Counter[str] = Counter()
        self.connections = 0

    def add(self, conversation: Conversation) -> None:
        outcome = OUTCOMES[conversation.plan.verdict]
        self.connections += 1
        if conversation.saw_end:
            self.certain[outcome] += 1
        else:
            self.possible.update({outcome, *HUNG_UP})

    def check(self, counters: dict[str, int]) -> None:
        expected = {
            name: (self.certain[name], self.certain[name] + self.possible[name])
            for name in {*OUTCOMES.values(), *HUNG_UP}
        }
        wrong = {
            name: (counters.get(name, 0), limits)
            for name, limits in expected.items()
            if not limits[0] <= counters.get(name, 0) <= limits[1]
        }
        assert not wrong, f"outcomes: how many, and at least and at most: {wrong}\n{counters}"
        known = sum(counters.get(name, 0) for name in {*OUTCOMES.values(), *HUNG_UP})
        assert counters["accepted"] == known == self.connections, counters


def check_nothing_leaks(server: Server, fuzzed: FuzzedServer, tally: Tally) -> None:
    """Check what a server without clients has open, which processes, and how much memory."""
    wait_until_accepted(server.path)
    tally.connections += 1
    tally.certain[OUTCOMES[Verdict.NOTHING]] += 1
    server.wait_until_idle()
    # A killed handler may still be exiting while its replacement has already started.
    wait_until(
        lambda: len(children(server.pid)) <= fuzzed.kept_processes, "only waiting handlers left"
    )

    def opened() -> Counter[str]:
        return Counter(descriptors(server.pid)) - Counter(server.open_at_start)

    def has_only_pipes() -> bool:
        names = opened()
        others = [name for name in names if re.search("deleted|^socket:|^/", name)]
        return not others and names.total() <= 3 * fuzzed.kept_processes + 6

    wait_until(has_only_pipes, f"only pipes to waiting handlers: {opened()}")
    assert peak_memory(server.pid) < 64 << 20
