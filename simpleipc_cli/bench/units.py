"""Lengths of time as people write them. Nothing but text and whole nanoseconds."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal

NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign
    "μs": 1_000,  # the Greek letter, which is what Unicode prefers
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""Nanoseconds in each unit that is understood."""

_SHOWN = ("us", "ms", "s")
_PART = rf"(\d+(?:\.\d+)?|\.\d+)({'|'.join(NANOSECONDS)})(?![a-zµμ])"


def format_ns(ns: float) -> str:
    """A time in nanoseconds, 0 or more, with three significant digits: "1.23 ms".

    The units are ns, us, ms and s. Below a microsecond whole nanoseconds, as there is
    nothing smaller; from 1000 s on whole seconds.
    """
    if round(ns) < 1000:
        return f"{round(ns)} ns"
    for unit in _SHOWN:
        number = ns / NANOSECONDS[unit]
        # Where the digits change is where rounding to them would make one more.
        if number < 9.995:
            return f"{number:.2f} {unit}"
        if number < 99.95:
            return f"{number:.1f} {unit}"
        if number < 999.5:
            return f"{number:.0f} {unit}"
    return f"{number:.0f} s"


def parse_ns(text: str) -> int:
    """Nanoseconds in "5ms", "200us", "1.5s", "1m30s" and the like.

    A unit is required. Fractions of a nanosecond are rounded. Raises ValueError if it is
    no length of time, with a message that says what would be one.
    """
    if not re.fullmatch(rf"(?:{_PART})+", text, re.ASCII):
        raise ValueError(f"{text!r} is no length of time: give one such as 5ms, 200us or 1.5s")
    parts = re.findall(_PART, text, re.ASCII)
    whole = sum(Decimal(number) * NANOSECONDS[unit] for number, unit in parts)
    return int(Decimal(whole).to_integral_value(ROUND_HALF_EVEN))
