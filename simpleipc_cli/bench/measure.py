"""Run one measurement, from its plan to its report. Knows no screen and no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from simpleipc_cli.bench.generator import LoadPlan, Results, interval_of
from simpleipc_cli.bench.processes import INITIAL_PROGRESS, GeneratorProcesses, Progress, split
from simpleipc_cli.bench.report import Report
from simpleipc_cli.errors import SipcError
from simpleipc_cli.system.fd_limit import DescriptorLimit

_PROGRESS_INTERVAL = 0.1  # seconds, which is also how soon Ctrl-C is noticed (tunable)
_OTHER_DESCRIPTORS = 24  # descriptors of a process besides its connections, with a reserve
_DESCRIPTORS_PER_PROCESS = 2  # in the parent: a connection, and one that reports the end


class Interrupted(Exception):
    """Raised by `on_progress` to end the load early; not an error."""


def measure(
    plan: LoadPlan, processes: int, rate: float | None, on_progress: Callable[[Progress], None]
) -> Report:
    """Generate the load in at most `processes` processes, and return the report.

    A `rate` (requests per second) makes the loop an open one. `on_progress` is called about ten
    times a second. If it raises Interrupted, the load ends, and the report is a partial one.
    Raises SipcError if the load cannot be generated.
    """
    if rate is not None:
        plan = replace(plan, interval=interval_of(rate))
    plans = split(plan, processes)
    _raise_descriptor_limit(max(share.concurrency for share in plans), len(plans))
    started_at = datetime.now().astimezone().isoformat(timespec="seconds")
    results, cpu_share, partial = Results(), 0.0, False
    try:
        with GeneratorProcesses(plans, lambda: on_progress(INITIAL_PROGRESS)) as running:
            try:
                running.run(on_progress, _PROGRESS_INTERVAL)
            except Interrupted:
                partial = True
                running.stop()
            results, cpu_share = running.results(), running.max_cpu_share()
    except Interrupted:  # before all had started
        partial = True
    return Report(
        path=plan.path,
        started_at=started_at,
        settings=_settings(plan, len(plans), rate),
        results=results,
        cpu_share=cpu_share,
        partial=partial,
    )


def _settings(plan: LoadPlan, processes: int, rate: float | None) -> dict[str, object]:
    """Return the settings as the report keeps them."""
    return {
        "concurrency": plan.concurrency,
        "processes": processes,
        "requests": plan.requests,
        "duration": plan.duration,
        "rate": rate,
        "warmup": plan.warmup,
        "timeout": plan.timeout,
        "size": len(plan.payload) if plan.size is None else plan.size,
        "expects": plan.expect is not None,
    }


def _raise_descriptor_limit(connections: int, processes: int) -> None:
    """Raise the limit on open files, which the processes inherit, if needed."""
    limit = DescriptorLimit()
    wanted = {
        f"{connections} at once": connections,
        f"{processes} processes": _DESCRIPTORS_PER_PROCESS * processes,
    }
    what = max(wanted, key=lambda name: wanted[name])
    needed = wanted[what] + _OTHER_DESCRIPTORS
    if needed <= limit.current:
        return
    limit.raise_to_maximum()
    if needed > limit.current:
        remedy = (
            "fewer --processes" if "processes" in what else "--processes or a lower --concurrency"
        )
        raise SipcError(
            f"{what} need {needed} descriptors, but the limit is {limit.current}",
            f"raise it with ulimit -n, or use {remedy}",
        )
