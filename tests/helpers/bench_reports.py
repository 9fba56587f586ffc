"""Computed reports, without a run; each call returns the same."""

from __future__ import annotations

import random
from functools import cache
from heapq import heapify, heapreplace

from simpleipc_cli.bench.generator import LATE_AFTER, Results
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report, Settings

US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000
LONGEST = (1 << 47) - 1  # 39 hours

STARTED_AT = "2026-01-02T03:04:05+00:00"


class Run:
    """Adds requests to a Results object, as the load generator does."""

    def __init__(self, path: str = "/run/user/1000/sipc.sock", **settings: object) -> None:
        self.path = path
        self.settings = Settings(**settings)
        self.results = Results()

    def respond(self, due: int, start: int, end: int) -> None:
        results = self.results
        results.started += 1
        results.late += start > due + LATE_AFTER
        results.total.record(end - start)
        results.connect.record((end - start) // 20)
        results.first_byte.record((end - start) * 9 // 10)
        if self.settings.rate is not None:
            results.response.record(end - due)
        results.timeline.bucket_at(end).times.record(end - due)
        results.bytes_out += 64
        results.bytes_in += 4096
        results.elapsed = max(results.elapsed, end)

    def fail(self, kind: str, start: int, end: int) -> None:
        self.results.started += 1
        self.results.failures.setdefault(kind, Histogram()).record(end - start)
        self.results.timeline.bucket_at(end).failures += 1
        self.results.elapsed = max(self.results.elapsed, end)

    def report(self, cpu_share: float = 0.31, partial: bool = False) -> Report:
        self.results.cpu_share = cpu_share
        return Report(self.path, STARTED_AT, self.settings, self.results, partial)


def times(seed: int, median: int, sigma: float = 0.35):
    """Return realistic service times, with a log-normal distribution."""
    chance = random.Random(seed)
    while True:
        yield max(1, round(median * chance.lognormvariate(0, sigma)))


@cache
def open_loop(
    rate: int = 500,
    seconds: int = 10,
    stall: tuple[int, int] | None = None,
    median: int = MS,
    concurrency: int = 64,
    seed: int = 1,
    path: str = "/run/user/1000/sipc.sock",
    cpu_share: float = 0.31,
) -> Report:
    """An open loop; during `stall` (from, to) the server sends no response.

    Calls with equal arguments return the same object: do not change it.
    """
    run = Run(
        path,
        rate=float(rate),
        concurrency=concurrency,
        duration=seconds * SECOND,
        warmup=SECOND,
        timeout=30 * SECOND,
        size=64,
    )
    took = times(seed, median)
    free = [0] * concurrency
    heapify(free)
    for number in range(rate * seconds):
        due = number * SECOND // rate
        start = max(due, free[0])
        end = start + next(took)
        if stall and start < stall[1] and end > stall[0]:
            end = stall[1] + next(took) // 4
        heapreplace(free, end)
        run.respond(due, start, end)
    return run.report(cpu_share)


@cache
def closed_loop(
    seconds: int = 10,
    median: int = MS,
    concurrency: int = 8,
    seed: int = 1,
    slow_every: int = 100,
    failing: tuple[int, int] | None = None,
    cpu_share: float = 0.31,
    partial: bool = False,
) -> Report:
    """A closed loop; one of `slow_every` requests takes ten times as long.

    During `failing` (from, to) the server refuses, and some other requests fail, too. Calls with
    equal arguments return the same object: do not change it.
    """
    run = Run(concurrency=concurrency, duration=seconds * SECOND, timeout=30 * SECOND)
    took = times(seed, median)
    free = [0] * concurrency
    heapify(free)
    number = 0
    while free[0] < seconds * SECOND:
        number += 1
        start = free[0]
        duration = next(took) * (10 if number % slow_every == 0 else 1)
        if failing and failing[0] <= start < failing[1]:
            run.fail("refused", start, start + duration // 30)
            heapreplace(free, start + duration // 30 + 10 * MS)
            continue
        if failing and number % 250 == 249:
            kind = ("timeout", "truncated", "not as expected")[number // 250 % 3]
            run.fail(kind, start, start + duration * 5)
        else:
            run.respond(start, start, start + duration)
        heapreplace(free, start + duration)
    return run.report(cpu_share, partial)


def stalled() -> Report:
    """An open loop in which the server sent no response from the fourth to the sixth second."""
    return open_loop(stall=(4 * SECOND, 6 * SECOND))


def failing() -> Report:
    """A closed loop with several kinds of failures, interrupted, and limited by its generator."""
    outage = (3 * SECOND, 5 * SECOND)
    return closed_loop(median=4 * MS, failing=outage, partial=True, cpu_share=0.97)


CLOSED = {"rate": None, "concurrency": 8, "duration": 10 * SECOND}
OPEN = {**CLOSED, "rate": 500.0}


def results_of(answered: int, failed: int = 5, *, is_open: bool = False) -> Results:
    results = Results(
        started=answered + failed + 2, unfinished=2, late=3 * is_open, skipped=int(is_open)
    )
    for number in range(min(answered, 1_000)):
        ns = MS + 1_000 * number
        count = len(range(number, answered, 1_000))
        results.total.record(ns, count)
        results.connect.record(ns // 10, count)
        results.first_byte.record(ns // 2, count)
        if is_open:
            results.response.record(ns * 2, count)
    for number in range(answered):
        results.timeline.bucket_at(number * 1_000).times.record(MS + 1_000 * (number % 1_000))
    for number in range(failed):
        results.failures.setdefault("timeout", Histogram()).record(7 * MS)
        results.timeline.bucket_at(number).failures += 1
    results.bytes_out, results.bytes_in, results.elapsed = 10 * answered, 20 * answered, 2 * SECOND
    return results


def report_of(answered=1_000, failed=5, settings=CLOSED, share=0.25, partial=False) -> Report:
    """A report with times spread evenly from 1 to 2 ms, and with failures of one kind."""
    is_open = settings["rate"] is not None
    results = results_of(answered, failed, is_open=is_open)
    results.cpu_share = share
    return Report("/run/x", STARTED_AT, Settings(**settings), results, partial)
