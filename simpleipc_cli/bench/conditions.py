"""The conditions of `--fail-if`: what one may say, and whether it holds.

Knows the names of figures, not where they come from. In short:

    condition = figure operator value           p99 > 5ms
    figure    = [part "."] time-figure          connect.p99, first_byte.mean
              | "rate" | "errors" | ...         see KINDS
    operator  = "<" | "<=" | ">" | ">=" | "==" | "!="

A condition that holds means failure: it says when to fail.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from simpleipc_cli.bench.histogram import PERCENTILES, percentile_name
from simpleipc_cli.bench.units import parse_ns

TIME_FIGURES = ("min", "mean", "max", "stddev", *map(percentile_name, PERCENTILES))
"""What can be said of the times of each part."""

PARTS = ("connect", "first_byte", "total", "service", "response")
"""What of a request is timed. A figure of no part is one of the total."""

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
"""Every figure, and what kind of value it is compared with."""

_WHAT_IS_WANTED = {
    TIME: "a time, with its unit: give one such as 5ms, 200us or 1.5s",
    RATE: "a number of answers per second: give one such as 1000",
    SHARE: "a share of the requests: give one such as 1% or 0.01",
    COUNT: "a count: give a whole number such as 10",
    SIZE: "a number of bytes: give one such as 4096, 64K or 1M",
}

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_MEANT = {"=": "==", "=<": "<=", "=>": ">=", "<>": "!=", "===": "==", "!": "!=", "!==": "!="}

_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"


class Condition:
    """One parsed condition, such as `p99 > 5ms`."""

    __slots__ = ("figure", "operator", "text", "value")

    def __init__(self, text: str, figure: str, sign: str, value: float | int) -> None:
        """Made by parse()."""
        self.text = text
        """As it was written, without the space around it."""
        self.figure = figure
        """The figure's name in KINDS; that of a total without "total."."""
        self.operator = sign
        self.value = value
        """In nanoseconds, answers per second, a share from 0 to 1, a count, or bytes."""

    def holds(self, values: Mapping[str, float | int | None]) -> bool | None:
        """Whether it is true of these figures, by their names, in the units of `value`.

        None where the figure cannot be given (it is None or missing), as with too few
        samples: take that for failed too. A limit that was never checked must not pass
        for one that was kept.
        """
        figure = values.get(self.figure)
        return None if figure is None else _OPERATORS[self.operator](figure, self.value)


class ConditionResult(NamedTuple):
    """What became of a condition."""

    condition: Condition
    value: float | int | None
    """The figure; None if it could not be given."""
    fails: bool
    """Whether it is a reason to fail: the condition holds, or nobody can tell."""


def judge(
    conditions: Iterable[Condition], values: Mapping[str, float | int | None]
) -> list[ConditionResult]:
    """All conditions judged by the same figures; see Condition.holds()."""
    return [
        ConditionResult(
            condition, values.get(condition.figure), condition.holds(values) is not False
        )
        for condition in conditions
    ]


def parse(text: str) -> Condition:
    """The condition that `text` writes down.

    Raises ValueError for what is none, with a message that names the mistake and what was
    probably meant.
    """
    text = text.strip()
    # An operator is whatever stands where one belongs, so that a wrong one can be named.
    found = re.fullmatch(r"([^<>=!\s]*)\s*([<>=!]+)\s*(.*)", text, re.DOTALL)
    if not found:
        raise ValueError(_without_operator(text))
    name, sign, value = found.groups()
    if not name:
        raise ValueError(f"{text!r} names no figure: write one such as p99 before {sign!r}")
    if name not in KINDS:
        raise ValueError(f"there is no figure {name!r}: {_nearest(name)}")
    if sign not in _OPERATORS:
        meant = f"did you mean {_MEANT[sign]!r}" if sign in _MEANT else "use one of"
        offered = "?" if sign in _MEANT else f" {' '.join(_OPERATORS)}"
        raise ValueError(f"{sign!r} compares nothing: {meant}{offered}")
    return Condition(text, name.removeprefix("total."), sign, _value(name, value))


def _without_operator(text: str) -> str:
    """What is wrong with a condition that has no operator in the right place."""
    if not text:
        return "the condition is empty: write one such as p99>5ms"
    name = re.split(r"[\s<>=!]", text, maxsplit=1)[0]
    if name not in KINDS:
        return f"there is no figure {name!r}: {_nearest(name)}"
    return f"{text!r} compares nothing: write {name}, one of {' '.join(_OPERATORS)} and a value"


def _nearest(name: str) -> str:
    """What was probably meant by a name that is none."""
    # Only imported where there is a mistake to explain.
    from difflib import get_close_matches  # noqa: PLC0415

    close = get_close_matches(name.lower(), KINDS, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    parts = " ".join(f"{part}." for part in PARTS)
    others = " ".join(other for other, kind in KINDS.items() if kind != TIME)
    return f"there are {' '.join(TIME_FIGURES)}, also behind {parts}, and {others}"


def _value(name: str, text: str) -> float | int:
    """What a figure is compared with. Raises ValueError if it is of another kind."""
    kind = KINDS[name]
    if not text:
        raise ValueError(f"nothing to compare {name} with: it is {_WHAT_IS_WANTED[kind]}")
    value = _READERS[kind](text)
    if value is None:
        raise ValueError(f"{name} cannot be {text!r}: it is {_WHAT_IS_WANTED[kind]}")
    return value


def _time(text: str) -> int | None:
    try:
        return parse_ns(text)
    except ValueError:
        return None


def _rate(text: str) -> float | None:
    return float(text) if re.fullmatch(_NUMBER, text, re.ASCII) else None


def _share(text: str) -> float | None:
    found = re.fullmatch(rf"({_NUMBER})(%?)", text, re.ASCII)
    # By way of Decimal: 1% is to be the float nearest to 0.01, which 1 request in 100 gives.
    share = Decimal(found[1]) / (100 if found[2] else 1) if found else None
    return None if share is None or share > 1 else float(share)


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d+", text, re.ASCII) else None


def _size(text: str) -> int | None:
    found = re.fullmatch(r"(\d+)([KMGT]?)", text, re.ASCII)
    return int(found[1]) * _BYTES[found[2]] if found else None


_READERS: dict[str, Callable[[str], float | int | None]] = {
    TIME: _time,
    RATE: _rate,
    SHARE: _share,
    COUNT: _count,
    SIZE: _size,
}
