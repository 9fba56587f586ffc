"""How figures are called and written, the same in every form of a report.

Text only: nothing here knows what a terminal, a table or a page looks like.
"""

from __future__ import annotations

from simpleipc_cli.bench.conditions import KINDS, RATE, SHARE, SIZE, TIME, ConditionResult
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.units import format_ns

NOT_GIVEN = "-"
"""In place of a figure that cannot be given: too few samples, or none."""

TOO_FEW = f"{NOT_GIVEN} too few samples to tell"
"""What explains it."""

TIMES = {
    "response": "response time: from when a request was due to its complete answer",
    "service": "service time: from the actual start of a request to its complete answer",
    "connect": "connect: from the start until the connection stood",
    "first_byte": "first byte: from the start until the first byte of the answer came",
}
"""What each kind of time is, in one line; users confuse the first two."""

LIMITED = "the load generator itself was the limit: give it more --processes, or a lower rate"
"""What to say of a report whose `is_limit` is true."""

_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def figure(name: str, value: float | int | None) -> str:
    """A figure by its name in verdict.KINDS, with its unit: "1.23 ms", "950/s", "0.5 %"."""
    if value is None:
        return NOT_GIVEN
    kind = KINDS[name]
    if kind == TIME:
        return format_ns(value)
    if kind == RATE:
        return rate(value)
    if kind == SHARE:
        return f"{value * 100:.3g} %"
    return size(int(value)) if kind == SIZE else f"{value:,}"


def rate(per_second: float) -> str:
    """Answers per second: "12,345/s", "12.3/s"."""
    return f"{per_second:,.0f}/s" if per_second >= 1000 else f"{per_second:.3g}/s"


def size(count: int) -> str:
    """Bytes: "512 B", "4.0 KiB"."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def change(relative: float | None) -> str:
    """A relative change: "+3.1 %"; NOT_GIVEN where there is none."""
    return NOT_GIVEN if relative is None else f"{relative * 100:+.1f} %"


def load(report: Report) -> str:
    """What load was asked for, in one line: "closed loop, at most 8 at once, for 10.0 s"."""
    settings = report.settings
    parts = ["closed loop"]
    if (offered := report.offered_rate) is not None:
        parts = ["open loop", f"{rate(offered)} offered"]
    parts.append(f"at most {settings.get('concurrency')} at once")
    if (processes := settings.get("processes")) not in {None, 1}:
        parts.append(f"{processes} processes")
    if isinstance(requests := settings.get("requests"), int):
        parts.append(f"{requests:,} requests")
    if isinstance(duration := settings.get("duration"), int):
        parts.append(f"for {format_ns(duration)}")
    if isinstance(warmup := settings.get("warmup"), int) and warmup:
        parts.append(f"after {format_ns(warmup)} of warm-up")
    return ", ".join(parts)


def judgement(judged: ConditionResult) -> str:
    """A condition and what became of it: "fail if p99>5ms: p99 is 3.20 ms"."""
    name = judged.condition.figure
    found = f"{name} is {figure(name, judged.value)}"
    if judged.value is None:
        found = f"{name} cannot be given from so few samples, which counts as failed"
    return f"fail if {judged.condition.text}: {found}"
