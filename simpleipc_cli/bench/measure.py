"""One measurement from its plan to its report. Knows no screen and no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from simpleipc_cli.bench.generator import LoadPlan, Results
from simpleipc_cli.bench.processes import INITIAL_PROGRESS, Progress, divide, fleet
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.schedule import interval_of
from simpleipc_cli.errors import SipcError
from simpleipc_cli.system.fd_limit import DescriptorLimit

_TELL_EVERY = 0.1  # seconds, at will: how soon Ctrl-C is heard
_OTHER_DESCRIPTORS = 24  # what a process needs beside its connections, with some to spare
_FOR_PROCESS = 2  # descriptors that each process costs us: one to talk, one to see its end


class Interrupted(Exception):
    """Raised by whoever is told of the progress: no error, somebody has seen enough."""


def measure(
    plan: LoadPlan, processes: int, rate: float | None, tell: Callable[[Progress], None]
) -> Report:
    """Make the load, in at most `processes` processes, and report.

    With a `rate` (requests a second) the loop is an open one. `tell` is called some ten times
    a second. When it raises BrokenOff, the load ends and the
    report is of what there was until then. Raises SipcError if the load cannot be made.
    """
    if rate is not None:
        plan = replace(plan, interval=interval_of(rate))
    plans = divide(plan, processes)
    _allow_descriptors(max(share.concurrency for share in plans), len(plans))
    started_at = datetime.now().astimezone().isoformat(timespec="seconds")
    tally, busiest, partial = Results(), 0.0, False
    try:
        with fleet(plans, heed=lambda: tell(INITIAL_PROGRESS)) as running:
            try:
                running.run(tell, _TELL_EVERY)
            except Interrupted:
                partial = True
                running.break_off()
            tally, busiest = running.tally(), running.busiest()
    except Interrupted:  # before all had started
        partial = True
    return Report(
        path=plan.path,
        started_at=started_at,
        settings=_settings(plan, len(plans), rate),
        tally=tally,
        cpu_share=busiest,
        partial=partial,
    )


def _settings(plan: LoadPlan, processes: int, rate: float | None) -> dict[str, object]:
    """What was asked for, as the report keeps it."""
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


def _allow_descriptors(connections: int, processes: int) -> None:
    """Raise our own limit on open files, which the processes inherit, if that is needed."""
    limit = DescriptorLimit()
    wanted = {
        f"{connections} at once": connections,
        f"{processes} processes": _FOR_PROCESS * processes,
    }
    what = max(wanted, key=lambda name: wanted[name])
    needed = wanted[what] + _OTHER_DESCRIPTORS
    if needed <= limit.current:
        return
    limit.raise_to_most()
    if needed > limit.current:
        fewer = (
            "fewer --processes" if "processes" in what else "--processes or a lower --concurrency"
        )
        raise SipcError(
            f"{what} need {needed} descriptors, and {limit.current} are allowed",
            f"allow more with ulimit -n, or give {fewer}",
        )
