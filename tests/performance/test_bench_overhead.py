"""How much of a server's possible rate `sipc bench` reaches, and with how much memory.

Nothing here is a limit: machines differ, and other people use them, too. The figures are
stated at the end of the run, and what would be absurd fails.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from statistics import median

import pytest
from helpers.command import SIPC, Program, environment, sipc
from helpers.procfs import children, peak_memory
from helpers.waiting import TIMEOUT, wait_until
from performance.bare import Echo, bare_rate
from performance.machine import SCALE

pytestmark = pytest.mark.performance

LOOPS = 2
"""Processes of the server."""

ROUNDS = 3
REQUESTS = SCALE * 3000
PROCESSES = (1, 2)
SHAPES = ((1, 1), (32, 1), (64, 2))
"""Loads of `sipc bench`: --concurrency and --processes."""


def bench_rate(path: Path, concurrency: int, processes: int) -> float:
    """Return the reported requests per second; all must be answered."""
    shape = ("-c", concurrency, "--processes", processes)
    run = sipc("bench", path, "-d", "hello", "-n", REQUESTS, *shape, "--json", "-")
    report = json.loads(run.stdout)
    assert report["counts"]["answered"] == REQUESTS
    return report["rate"]


def test_the_run_states_the_overhead_of_bench(endpoint, state):
    """Run the loads in turn, so that other activity of the machine affects them alike."""
    bare: dict[int, list[float]] = {processes: [] for processes in PROCESSES}
    bench: dict[tuple[int, int], list[float]] = {shape: [] for shape in SHAPES}
    with Echo(endpoint, LOOPS):
        for _ in range(ROUNDS):
            for processes, rates in bare.items():
                rates.append(bare_rate(endpoint, processes, REQUESTS))
            for shape, rates in bench.items():
                rates.append(bench_rate(endpoint, *shape))
    for processes, rates in bare.items():
        state(f"bare loop, {processes} processes", f"{median(rates):,.0f} requests/s")
    for (concurrency, processes), rates in bench.items():
        shape = f"-c {concurrency} --processes {processes}"
        state(f"sipc bench {shape}", f"{median(rates):,.0f} requests/s")
    best = [max(map(median, rates.values())) for rates in (bench, bare)]
    ratio = best[0] / best[1]
    state("sipc bench at its best, of the bare loop at its best", f"{ratio:.2f}")
    assert ratio > 0.05


FEW, MANY = SCALE * 10_000, SCALE * 30_000
"""Requests after which memory is measured: with FEW the timeline has all of its buckets."""

GROWTH = 1 << 20
"""Bytes by which the processes may grow between the two measurements."""


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def memory(pid: int) -> int:
    """Return the peak memory of a process and its descendants in bytes."""
    return sum(map(peak_memory, family(pid)))


def test_the_memory_of_bench_does_not_grow_at_full_speed(endpoint, state):
    options = ["-c", "16", "--processes", "2", "-z", "3600", "--json", "-"]
    with Echo(endpoint, LOOPS) as server:
        command = [SIPC, "bench", str(endpoint), "-d", "hello", *options]
        with Program(command, env=environment(), stdout=-1, stderr=-1) as bench:
            wait_until(lambda: server.answered() >= FEW, "a few answers")
            early = memory(bench.pid)
            wait_until(lambda: server.answered() >= MANY, "many answers", TIMEOUT + SCALE * 30)
            late = memory(bench.pid)
            bench.send_signal(signal.SIGINT)
            report = json.loads(bench.communicate(timeout=TIMEOUT)[0])
    assert report["counts"]["answered"] >= MANY - 1  # one connection was a probe
    of = "memory of two processes and the one that started them"
    state(f"{of}, after {FEW:,} requests", f"{early / 2**20:.1f} MiB")
    state(f"{of}, after {MANY:,} requests", f"{late / 2**20:.1f} MiB")
    assert late - early <= GROWTH
