"""What all verbs parse, without click: that takes longer to load than an exchange."""

from __future__ import annotations

import os

from simpleipc_cli import system
from simpleipc_cli.endpoint import Endpoint, default_endpoint

VERBS = {
    "serve": "Answer requests with a command.",
    "send": "Send one request and print the response.",
    "probe": "Check whether a server is listening.",
    "bench": "Measure the rate and the latency of an endpoint.",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}  # in seconds
_MAX_SECONDS = 10 * 365 * 24 * 3600.0  # the kernel's timers hold this (tunable)
_DIGITS = "0123456789"


class Options:
    """The options of a verb: annotated attributes with defaults, set by keyword arguments.

    Not a dataclass: loading that module takes longer than an exchange.
    """

    def __init__(self, **given: Any) -> None:
        for name, value in given.items():
            assert hasattr(self, name), name  # noqa: S101
            setattr(self, name, value)


def resolve_endpoint(path: str | None) -> Endpoint:
    """Return the endpoint at `path`, or the default one."""
    return default_endpoint(os.environ, system.user_id()) if path is None else Endpoint(path)


def seconds(text: str) -> float | None:
    """Return the seconds of a duration such as 500ms, 2s, 1m30s or 1.5; None if invalid."""
    parts = _numbers_and_units(text)
    if len(parts) == 1 and not parts[0][1]:
        number = parts[0][0]
        found = float(number) if number.strip(".") else None  # .5 and 5. are numbers, too
    elif parts and all(unit in _UNITS and all(number.split(".")) for number, unit in parts):
        found = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        found = None
    return None if found is None or found > _MAX_SECONDS else found


def _numbers_and_units(text: str) -> list[tuple[str, str]]:
    """Split `1m30s` into 1, m and 30, s; return nothing if that is impossible.

    Without `re`, which takes longer to load than all the rest.
    """
    parts = []
    while text:
        unit = text.lstrip(_DIGITS + ".")
        number = text[: len(text) - len(unit)]
        text = unit.lstrip("hms")
        parts.append((number, unit[: len(unit) - len(text)]))
        if not number or number.count(".") > 1 or text[:1] not in _DIGITS:
            return []
    return parts
