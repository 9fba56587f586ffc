"""The conditions of `--fail-if`: their grammar, and whether they hold.

The grammar:

    condition = figure operator value           p99 > 5ms
    figure    = [part "."] time-figure          connect.p99, first_byte.mean
              | "rate" | "errors" | ...         see KINDS
    operator  = "<" | "<=" | ">" | ">=" | "==" | "!="

If a condition holds, the run has failed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from simpleipc_cli.bench.histogram import PERCENTILES, percentile_name, samples_needed

TIME_FIGURES = ("min", "mean", "max", "stddev", *map(percentile_name, PERCENTILES))
"""The figures of each part's times."""

PARTS = ("connect", "first_byte", "total", "service", "response")
"""The timed parts of a request."""

TIME, RATE, SHARE, COUNT, SIZE = "time", "rate", "share", "count", "size"

KINDS: dict[str, str] = {
    **dict.fromkeys(TIME_FIGURES, TIME),
    **{f"{part}.{figure}": TIME for part in PARTS for figure in TIME_FIGURES},
    "rate": RATE,
    "errors": COUNT,
    "error_rate": SHARE,
    "requests": COUNT,
    "late": COUNT,
    "skipped": COUNT,
    "bytes_in": SIZE,
    "bytes_out": SIZE,
}
"""All figures, and the kind of value to compare each with."""

NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign
    "μs": 1_000,  # the Greek letter, which Unicode prefers
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""The accepted units of time, in nanoseconds."""

_EXPECTED = {
    TIME: "a time with its unit, such as 5ms, 200us or 1.5s",
    RATE: "a number of responses per second, such as 1000",
    SHARE: "a share of the requests, such as 1% or 0.01",
    COUNT: "a whole number, such as 10",
    SIZE: "a number of bytes, such as 4096, 64K or 1M",
}

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

_FIGURES = (
    f"{' '.join(TIME_FIGURES)}, alone or after one of {' '.join(f'{part}.' for part in PARTS)}, or"
    f" {' '.join(name for name, kind in KINDS.items() if kind != TIME)}"
)
_SYNTAX = re.compile(r"([^<>=!\s]*)\s*([<>=!]*)\s*(.*)", re.DOTALL)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_NUMBER_WITH_UNIT = rf"({_NUMBER})({'|'.join(NANOSECONDS)})(?![a-zµμ])"


class Condition(NamedTuple):
    """One parsed condition, such as `p99 > 5ms`."""

    text: str
    """As given, without surrounding white space."""
    figure: str
    """The figure's name in KINDS, without "total."."""
    operator: str
    value: float | int
    """In nanoseconds, responses per second, a share from 0 to 1, a count, or bytes."""


class ConditionResult(NamedTuple):
    """A condition and the possible values of its figure."""

    condition: Condition
    bounds: tuple[float, float] | None
    """The lowest and the highest possible value of the figure; None: unknown."""

    @property
    def holds(self) -> bool | None:
        """Whether the condition is true; None if the bounds do not decide it."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        value = self.condition.value
        possible = (low, min(max(value, low), high), high)
        results = {_OPERATORS[self.condition.operator](figure, value) for figure in possible}
        return results.pop() if len(results) == 1 else None

    @property
    def fails(self) -> bool:
        """Whether it is true or undecided: a limit that was not checked must not count as met."""
        return self.holds is not False

    @property
    def samples_needed(self) -> int:
        """The number of samples that would decide a condition on a percentile."""
        name = f".{self.condition.figure}"
        (q,) = (q for q in PERCENTILES if name.endswith(f".{percentile_name(q)}"))
        return samples_needed(q)


def evaluate(
    conditions: Iterable[Condition], bounds: Mapping[str, tuple[float, float] | None]
) -> list[ConditionResult]:
    """Evaluate all conditions on the same figures, given as bounds."""
    return [ConditionResult(one, bounds[one.figure]) for one in conditions]


def parse(text: str) -> Condition:
    """Parse one condition. Raises ValueError with the error and advice."""
    text = text.strip()
    # Accept any sequence of operator characters here, so that the error can quote it.
    name, sign, value = _SYNTAX.fullmatch(text).groups()  # type: ignore[union-attr]
    if name not in KINDS:
        raise ValueError(f"unknown figure {name!r}: use one of {_FIGURES}")
    if sign not in _OPERATORS:
        error = f"unknown operator {sign!r}" if sign else f"no operator after {name}"
        raise ValueError(f"{error}: use one of {' '.join(_OPERATORS)}")
    kind = KINDS[name]
    try:
        return Condition(text, name.removeprefix("total."), sign, _PARSERS[kind](value))
    except ValueError:
        raise ValueError(f"{name} cannot be {value!r}: give {_EXPECTED[kind]}") from None


def parse_ns(text: str) -> int:
    """Return the nanoseconds in a duration such as "5ms", "1.5s" or "1m30s", rounded.

    Raises ValueError for any other text, also for a number without a unit.
    """
    if not re.fullmatch(rf"(?:{_NUMBER_WITH_UNIT})+", text, re.ASCII):
        raise ValueError(f"{text!r} is not a duration: give one such as 5ms, 200us or 1.5s")
    parts = re.findall(_NUMBER_WITH_UNIT, text, re.ASCII)
    units = [NANOSECONDS[unit] for _, unit in parts]
    if units != sorted(set(units), reverse=True):
        raise ValueError(f"{text!r} is not a duration: each unit once, the largest first")
    total = sum(Decimal(number) * NANOSECONDS[unit] for number, unit in parts)
    return int(Decimal(total).to_integral_value(ROUND_HALF_EVEN))


def _match(pattern: str, text: str) -> re.Match[str]:
    if found := re.fullmatch(pattern, text, re.ASCII):
        return found
    raise ValueError


def _share(text: str) -> float:
    found = _match(rf"({_NUMBER})(%?)", text)
    # With Decimal, 1% becomes the same float as 1 failure / 100 requests.
    share = Decimal(found[1]) / (100 if found[2] else 1)
    if share > 1:
        raise ValueError
    return float(share)


def _size(text: str) -> int:
    found = _match(r"(\d+)([KMGT]?)", text.upper())
    return int(found[1]) * _SIZE_UNITS[found[2]]


_PARSERS: dict[str, Callable[[str], float | int]] = {
    TIME: parse_ns,
    RATE: lambda text: float(_match(_NUMBER, text)[0]),
    SHARE: _share,
    COUNT: lambda text: int(_match(r"\d+", text)[0]),
    SIZE: _size,
}
