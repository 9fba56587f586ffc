"""Reports of measurements that were never made, for tests of what is made of them."""

from __future__ import annotations

from simpleipc_cli.bench.generator import Results
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.report import Report

MS = 1_000_000
CLOSED = {"rate": None, "concurrency": 8, "duration": 10_000 * MS}
OPEN = {**CLOSED, "rate": 500.0}


def tally_of(answered: int, failed: int = 5, *, is_open: bool = False) -> Results:
    tally = Results(
        started=answered + failed + 2, unfinished=2, late=3 * is_open, skipped=int(is_open)
    )
    for number in range(answered):
        ns = MS + 1_000 * (number % 1_000)
        tally.total.record(ns)
        tally.connect.record(ns // 10)
        tally.first_byte.record(ns // 2)
        if is_open:
            tally.response.record(ns * 2)
        tally.timeline.answer(number * 1_000, ns)
    for number in range(failed):
        tally.failures.setdefault("timeout", Histogram()).record(7 * MS)
        tally.timeline.fail(number)
    tally.bytes_out, tally.bytes_in, tally.elapsed = 10 * answered, 20 * answered, 2_000 * MS
    return tally


def report_of(answered=1_000, failed=5, settings=CLOSED, share=0.25, partial=False) -> Report:
    is_open = settings["rate"] is not None
    tally = tally_of(answered, failed, is_open=is_open)
    return Report("/run/x", "2026-01-02T03:04:05+00:00", settings, tally, share, partial)
