"""A server sends valid and invalid responses to `send`, `send --lines`, `probe` and `bench`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from fuzz import model
from fuzz.conversations import Ending, Plan, make_plan
from fuzz.hostile_server import HostileServer, ServedConversation
from fuzz.inputs import hint, rounds
from fuzz.model import Verdict
from helpers.command import sipc
from helpers.inprocess_cli import run_cli
from helpers.procfs import descriptors

pytestmark = pytest.mark.soak

RIGHT = b"right"
WHOLE = (Verdict.COMPLETE, Verdict.MALFORMED)


def server_plan(number: int, payload: bytes | None = None) -> Plan:
    """Draw a plan for a server with which its client ends."""
    random = Random(f"server {number}")
    plan = make_plan(random, number, payload or b"response %d of a server " % number)
    plan.reads_message_first = random.random() < 0.7
    plan.read_size = 1 << 16  # a request may be long
    if plan.ending is Ending.READ and plan.verdict not in WHOLE:
        plan.ending = Ending.CLOSE
    if plan.ending is Ending.CLOSE_UNREAD:
        plan.reads_message_first = False
    return plan


def check_request(one: ServedConversation, request: bytes) -> None:
    """Check what a server received: the request or its start, all of it if the plan waits."""
    wire = bytes(one.received)
    received = model.decode(wire)
    assert model.is_written_by_sipc(wire), explain(one)
    assert request.startswith(received.payload), explain(one)
    if one.plan.reads_message_first:
        assert (received.verdict, received.payload) == (Verdict.COMPLETE, request), explain(one)
    if received.verdict is Verdict.COMPLETE:
        assert received.payload == request, explain(one)


def explain(one: ServedConversation) -> str:
    return f"{hint(one.plan.seed)}\n{one.plan}"


# -- one exchange in a process -------------------------------------------------------------------


class Client:
    """A `send` or a `probe`, drawn for one input."""

    def __init__(self, number: int, endpoint, folder) -> None:
        random = Random(f"client {number}")
        self.verb = random.choice(("send", "send", "send", "probe"))
        self.request = b"request %d" % number
        self.path = str(endpoint)
        self.output = folder / "output" if self.verb == "send" and random.random() < 0.2 else None
        self._run = sipc if number % 20 == 0 else run_cli
        self._input = b""
        self._options: tuple[object, ...] = ("-d", self.request.decode())
        if self.verb == "send" and random.random() < 0.3:
            self.request += random.randbytes(random.choice((10, 70_000, 500_000)))
            self._input, self._options = self.request, ()
        if self.output is not None:
            self._options += ("-o", self.output)

    def run(self, limit: str = "0") -> None:
        """Run it, with a time limit that may be 0 for none."""
        options = (*self._options, "-m" if self.verb == "send" else "-t", limit)
        self.done = self._run(self.verb, self.path, *options, input=self._input)

    def check(self, one: ServedConversation, status: int) -> None:
        """Check status, standard output and standard error."""
        done, why = self.done, f"{explain(one)}\n{self.done}"
        assert done.returncode == status, why
        error = b"" if status == 0 else rb"sipc %s: [^\n]+: [^\n]+\n" % self.verb.encode()
        assert re.fullmatch(error, done.stderr), why
        payload = one.plan.decoded.payload
        if self.verb == "probe":
            assert re.fullmatch(rb"[^\n]+: listening, [^\n]+\n", done.stdout), why
        elif self.output is None:
            assert done.stdout == payload, why
        else:
            assert done.stdout == b"", why
            assert self.output.exists() == (status == 0), why
            if status == 0:
                assert self.output.read_bytes() == payload, why
                self.output.unlink()


@pytest.mark.parametrize("numbers", rounds(200))
def test_send_and_probe_distinguish_complete_responses_from_others(folder, endpoint, numbers):
    plans = iter([server_plan(number) for number in numbers])
    with HostileServer(endpoint, lambda _: next(plans), at_once=True) as server:
        at_start = descriptors_of_this_process()
        for number in numbers:
            client = Client(number, endpoint, folder)
            client.run()
            (one,) = server.take(1)
            check_request(one, client.request)
            client.check(one, 0 if one.plan.verdict is Verdict.COMPLETE else 7)
        assert descriptors_of_this_process() == at_start


@pytest.mark.parametrize("numbers", rounds(4))
def test_a_response_that_stalls_causes_a_timeout(folder, endpoint, numbers):
    random = Random(f"timeouts {numbers}")
    plans = {number: silent_plan(number, random) for number in numbers}
    waiting = iter(plans.values())
    with HostileServer(endpoint, lambda _: next(waiting), at_once=True) as server:
        for number in numbers:
            client = Client(number, endpoint, folder)
            client.run("200ms")
            if client.done.returncode == 3:  # not connected in time
                continue
            (one,) = server.take(1)
            client.check(one, 6)


def silent_plan(number: int, random: Random) -> Plan:
    wire = server_plan(number).wire
    while model.decode(wire).verdict in WHOLE:
        wire = wire[: random.randrange(len(wire))]
    return Plan(number, [wire] if wire else [], Ending.READ)


@pytest.mark.parametrize("verb", ["send", "probe"])
def test_a_server_that_has_ended_is_reported_as_not_listening(folder, endpoint, verb):
    with HostileServer(endpoint, lambda _: server_plan(0)):
        pass
    done = run_cli(verb, endpoint, "-d", "hello")
    assert done.returncode == 3, done


# -- many exchanges in a process -----------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 8])
@pytest.mark.parametrize("numbers", rounds(500))
def test_send_lines_writes_the_response_to_each_record(endpoint, numbers, jobs):
    plans = {b"record %d" % number: server_plan(number) for number in numbers}
    options = ["--null", "-j", jobs]
    with HostileServer(endpoint, plan_of_request(plans)) as server:
        done = sipc("send", endpoint, *options, input=b"\0".join(plans))
        for one in server.take(len(plans)):
            check_request(one, b"record %d" % one.plan.seed)
    expected = list(plans.values())
    failed = [at for at, plan in enumerate(expected, 1) if plan.verdict is not Verdict.COMPLETE]
    errors = done.stderr.splitlines()
    found = [re.fullmatch(rb"sipc send: record (\d+): [^\n]+: [^\n]+", line) for line in errors]
    assert all(found), done.stderr
    assert sorted(int(match[1]) for match in found if match) == failed
    assert done.returncode == (7 if failed else 0)
    rest = done.stdout
    for plan in expected:
        response = plan.decoded.payload + b"\0"
        assert rest.startswith(response), f"{hint(plan.seed)}\n{plan}\n{rest[:200]!r}"
        rest = rest[len(response) :]
    assert rest == b""


def plan_of_request(plans: dict[bytes, Plan]) -> Callable[[bytes], Plan]:
    """Choose a plan by what the first bytes of a request say."""
    return lambda wire: plans[model.decode(wire).payload]


@pytest.mark.parametrize("numbers", rounds(5000))
def test_bench_counts_each_exchange_under_its_outcome(endpoint, numbers):
    plans = [server_plan(number, RIGHT if number % 2 else None) for number in numbers]
    waiting = iter(plans)
    size = random_size(numbers)
    options = ["-n", len(plans), "-c", 8, "--data", "x" * size, "--expect", RIGHT.decode()]
    with HostileServer(endpoint, lambda _: next(waiting)) as server:
        done = sipc("bench", endpoint, *options, "--timeout", 0, "-q", "--json", "-")
        for one in server.take(len(plans)):
            check_request(one, b"x" * size)
    assert (done.returncode, done.stderr) == (0, b"") or len(plans) == 1, done
    report = json.loads(done.stdout)
    expected = Counter(kind_of_failure(plan) for plan in plans)
    found = {kind: times["count"] for kind, times in report["failures"].items()}
    counts = report["counts"]
    assert {"": counts["answered"], **found} == {"": 0, **expected}
    answered = sum(len(plan.decoded.payload) for plan in plans if not kind_of_failure(plan))
    assert (counts["bytes_in"], counts["failed"]) == (answered, len(plans) - expected[""])
    assert counts["bytes_out"] == size * expected[""]


def random_size(numbers: range) -> int:
    return Random(f"size {numbers}").choice((0, 1, 100, 1000))


def kind_of_failure(plan: Plan) -> str:
    """Return the outcome as `bench` names it; empty for an expected response."""
    if plan.verdict is Verdict.MALFORMED:
        return "protocol"
    if plan.verdict is not Verdict.COMPLETE:
        return "truncated"
    return "" if plan.decoded.payload.removesuffix(b"\n") == RIGHT else "not as expected"


def descriptors_of_this_process() -> Counter[str]:
    return Counter(descriptors("self"))
