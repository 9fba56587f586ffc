"""Format figures and describe a report in words, the same for every form of a report.

Plain text only: knows no terminal, no table and no page.
"""

from __future__ import annotations

from simpleipc_cli.bench.conditions import (
    KINDS,
    NANOSECONDS,
    RATE,
    SHARE,
    SIZE,
    TIME,
    ConditionResult,
)
from simpleipc_cli.bench.report import Report

NOT_AVAILABLE = "-"
"""Stands for a figure that is not available: too few samples, or none."""

TOO_FEW_SAMPLES = f"{NOT_AVAILABLE} too few samples"

TIME_DESCRIPTIONS = {
    "response": "response time: from when a request was due to its complete answer",
    "service": "service time: from the actual start of a request to its complete answer",
    "connect": "connect: from the start of a request until it was connected",
    "first_byte": "first byte: from the start of a request to the first byte of its answer",
}
"""Each kind of time in one line, in the order of reports; the first two are easily confused."""

SATURATED = "the load generator may have been the limit: use more --processes or a lower rate"
"""Describes a report whose `generator_saturated` is true."""

_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def format_ns(ns: float) -> str:
    """Format nanoseconds, 0 or more, with three significant digits: "1.23 ms".

    Whole nanoseconds below 1 us, whole seconds from 1000 s on.
    """
    if round(ns) < 1000:
        return f"{round(ns)} ns"
    for unit in ("us", "ms", "s"):
        number = ns / NANOSECONDS[unit]
        # The digits change where rounding would add one.
        if number < 9.995:
            return f"{number:.2f} {unit}"
        if number < 99.95:
            return f"{number:.1f} {unit}"
        if number < 999.5:
            return f"{number:.0f} {unit}"
    return f"{number:.0f} s"


def format_figure(name: str, value: float | int | None) -> str:
    """Format a figure of KINDS with its unit: "1.23 ms", "950/s", "0.5 %"."""
    if value is None:
        return NOT_AVAILABLE
    kind = KINDS[name]
    if kind == TIME:
        return format_ns(value)
    if kind == RATE:
        return format_rate(value)
    if kind == SHARE:
        return f"{value * 100:.3g} %"
    return format_size(int(value)) if kind == SIZE else f"{value:,}"


def format_rate(per_second: float) -> str:
    """Format answers per second: "12,345/s", "12.3/s"."""
    return f"{per_second:,.0f}/s" if per_second >= 1000 else f"{per_second:.3g}/s"


def format_size(count: int) -> str:
    """Format a number of bytes: "512 B", "4.0 KiB"."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def format_change(relative: float | None) -> str:
    """Format a relative change: "+3.1 %"."""
    return NOT_AVAILABLE if relative is None else f"{relative * 100:+.1f} %"


def describe_load(report: Report) -> str:
    """Describe the requested load: "closed loop, at most 8 at once, for 10.0 s"."""
    settings = report.settings
    parts = ["closed loop"]
    if (offered := report.offered_rate) is not None:
        parts = ["open loop", f"{format_rate(offered)} offered"]
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


def describe_condition(result: ConditionResult) -> str:
    """Describe a condition and its result: "fail if p99>5ms: p99 is 3.20 ms"."""
    name = result.condition.figure
    found = f"{name} is {format_figure(name, result.value)}"
    if result.value is None:
        found = f"too few samples for {name}, which counts as failed"
    return f"fail if {result.condition.text}: {found}"
