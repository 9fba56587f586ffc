"""Many requests to eight workers, while clients close and workers crash at random."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter

import pytest
from helpers.procfs import descriptors, peak_memory
from helpers.soak import SOAK
from helpers.wire import connect, decode, message, receive_all
from helpers.workers import serve_workers, worker_counts

REQUESTS = 1000 * min(SOAK, 4)  # at once; no test may take longer than some 100 seconds
ROUNDS = max(1, SOAK // 4)
WORKERS, CLIENTS = 8, 12
GROWTH = 16 << 20
"""Bytes of memory that eight threads' buffers may come to be used in, once they all were."""

# What a request tells a worker to do: its share in percent, and the response of the client,
# where "{}" is the text of the request. The crashes end the worker.
GOOD = {"echo": 86, "slow": 1}
CRASHES = {"exit": 2, "half": 1, "kill": 1, "nonsense": 1, "last": 1, "behind": 1}
HANGUPS = {"in mid-request": 3, "in mid-answer": 3}
KINDS = GOOD | CRASHES | HANGUPS
WHOLE = {"slow": b"slow", "behind": b"good"}
CUT_OFF = {"exit": b"", "half": b"half", "kill": b"half"[:3], "nonsense": b"half"}


class Load:
    """Clients that each send requests in turn, and their results."""

    def __init__(self, path, requests: range) -> None:
        self._path = path
        self._numbers = iter(requests)
        self._lock = threading.Lock()
        self.seen: Counter[str] = Counter()
        self.wrong: list[object] = []

    def run(self) -> None:
        clients = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _client(self) -> None:
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            draw = random.Random(number)
            kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
            words = f"{number} " + "x" * draw.choice(
                (0, 10, 1000, 70_000, 300_000)[: 3 + number % 3]
            )
            try:
                outcome = self._ask(kind, words.strip(), draw)
            except Exception as error:  # the test checks it
                outcome = "wrong"
                with self._lock:
                    self.wrong.append((number, kind, repr(error)))
            with self._lock:
                self.seen[outcome] += 1
                self.seen[f"asked to {kind}"] += 1

    def _ask(self, kind: str, words: str, draw: random.Random) -> str:
        with connect(self._path) as client:
            if kind in HANGUPS:
                wire = message(f"echo {words}".encode())
                client.sendall(
                    wire if kind == "in mid-answer" else wire[: draw.randrange(5, len(wire))]
                )
                return "hung up"
            argument = words if kind == "echo" else "1"
            client.sendall(message(f"{kind} {argument}".encode()))
            payload, whole = decode(receive_all(client))
        return self._judge(kind, words, payload, whole)

    def _judge(self, kind: str, words: str, payload: bytes, whole: bool) -> str:
        if whole:
            if kind == "last":
                assert payload.isdigit()
            else:
                assert payload == (words.encode() if kind == "echo" else WHOLE[kind])
            return "answered"
        if kind in CUT_OFF and payload == CUT_OFF[kind]:
            return "failed"
        raise AssertionError(f"cut off: {payload[:50]!r}")


CASES = [
    range(50),
    *(
        pytest.param(range(round_ * REQUESTS, (round_ + 1) * REQUESTS), marks=pytest.mark.soak)
        for round_ in range(ROUNDS)
    ),
]


@pytest.mark.parametrize("requests", CASES, ids=str)
def test_every_response_is_correct_while_clients_close_and_workers_crash(endpoint, requests):
    with serve_workers(endpoint, "--threads", WORKERS, "-v") as server:
        load = Load(endpoint, requests)
        load.run()
        odd = re.findall(
            "^.*(?:not started|closed its|process cannot|Traceback).*$", server.log, re.M
        )
        assert load.wrong == [], odd
        server.wait_until_idle()
        kept = len(descriptors(server.pid)) - len(server.open_at_start)
        memory = peak_memory(server.pid)
        server.stop()
        outcomes = Counter(re.findall(r"^\d+-\d+ pid.*?: ([a-z ]+)", server.log, re.M))
    said = worker_counts(server.log)
    print(f"clients saw {dict(load.seen)}\nthe log says {dict(outcomes)}, workers {said}, "  # noqa: T201
          f"{kept} descriptors kept, {memory / 2**20:.0f} MiB")  # fmt: skip
    assert kept <= WORKERS * 3 + 6
    assert memory < 64 << 20
    hung_up = outcomes["client closed"] + outcomes["request incomplete"]
    assert sum(outcomes.values()) == len(requests)
    assert outcomes["answered"] + hung_up == load.seen["answered"] + load.seen["hung up"]
    assert outcomes["handler failed"] == load.seen["failed"]
    assert said["running"] == said["failed"] == 0
    assert said["started"] == said["ended"]
    crashes = sum(load.seen[f"asked to {kind}"] for kind in CRASHES)
    assert crashes <= said["ended"] <= crashes + hung_up + WORKERS
