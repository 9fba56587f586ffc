"""Many requests to callbacks of each kind, while clients hang up and callbacks fail or wait."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
from helpers.call_server import CallServer
from helpers.procfs import peak_memory
from helpers.waiting import wait_until
from helpers.wire import ask, connect, decode, message, receive_all

SOAK = int(os.environ.get("SIPC_SOAK", "3"))
REQUESTS = 1000 * min(SOAK, 25)  # in one test; SIPC_SOAK=25 makes 100,000 of the four kinds
CLIENTS = 12

MODULE = """\
import asyncio, time

class Asked(Exception):
    pass

def answer(request):
    if request.startswith(b"fail"):
        raise Asked
    if request.startswith(b"slow"):
        time.sleep(0.005)
    return request[::-1]

def stream(request, reply):
    reply.write(answer(request.read()))

async def answer_later(request):
    if request.startswith(b"slow"):
        await asyncio.sleep(0.005)
        return request[::-1]
    return answer(request)

async def stream_later(request, reply):
    await reply.write(await answer_later(await request.read()))
"""
KINDS = ["answer", "stream", "answer_later", "stream_later"]
# What a client does: how often in a hundred.
ACTS = {"echo": 80, "slow": 4, "fail": 6, "hang up in mid-request": 5, "hang up at once": 5}


class Load:
    """Clients that ask in turn, and what they saw."""

    def __init__(self, path, requests: int) -> None:
        self._path = path
        self._numbers = iter(range(requests))
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
            act = draw.choices(list(ACTS), list(ACTS.values()))[0]
            sizes = (0, 10, 1000, 70_000, 300_000)[: 3 + (number % 50 == 0) * 2]
            payload = f"{act[:4]} {number} ".encode() + b"x" * draw.choice(sizes)
            try:
                outcome = self._ask(act, payload, draw)
            except Exception as error:  # the test looks at it
                outcome = "wrong"
                self.wrong.append((number, act, repr(error)))
            with self._lock:
                self.seen[outcome] += 1

    def _ask(self, act: str, payload: bytes, draw: random.Random) -> str:
        wire = message(payload)
        with connect(self._path) as client:
            if act.startswith("hang"):
                client.sendall(wire[: draw.randrange(5, len(wire))] if "mid" in act else wire)
                return "hung up"
            client.sendall(wire)
            found = decode(receive_all(client))
        assert found == ((b"", False) if act == "fail" else (payload[::-1], True))
        return "failed" if act == "fail" else "answered"


@pytest.mark.parametrize("requests", [50, pytest.param(REQUESTS, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_response_is_right_and_nothing_is_left(endpoint, folder, kind, requests):
    (folder / "callbacks.py").write_text(MODULE)
    log = folder / "log"
    with CallServer(
        endpoint, None, "--call", f"callbacks:{kind}", "-q", "--log-file", log, cwd=folder
    ) as server:
        server.warm_up()
        load = Load(endpoint, requests)
        load.run()
        assert load.wrong == []
        assert ask(endpoint, b"last") == (b"tsal", True)
        memory = peak_memory(server.pid)

        def threads() -> int:
            return len(os.listdir(f"/proc/{server.pid}/task"))

        # Main, leader, watcher, eight workers, asyncio's, and its pool of two for each and 32.
        wait_until(lambda: threads() <= 11 + 1 + 48, "callbacks' threads to end")
        assert memory < 96 << 20
        counters = final_counters(server, log)
    hung_up = counters.get("client_closed", 0) + counters.get("request_incomplete", 0)
    seen = load.seen
    assert counters["requests"] == requests + 2
    assert counters["in_flight"] == counters["queued"] == counters.get("stuck", 0) == 0
    assert counters.get("handler_failed", 0) == seen["failed"]
    assert counters["answered"] + hung_up == seen["answered"] + seen["hung up"] + 2


def final_counters(server: CallServer, log: Path) -> dict[str, int]:
    """The counters that SIGUSR1 writes to the log file, once all requests have ended."""

    def counters() -> dict[str, int] | None:
        before = log.read_text().count("counters:")
        server.signal(signal.SIGUSR1)
        wait_until(lambda: log.read_text().count("counters:") > before, "counters")
        line = re.findall(r"counters:.*\n", log.read_text())[-1]
        found = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}
        return None if found["in_flight"] or found["queued"] or found.get("stuck") else found

    return wait_until(counters, "all requests to end")
