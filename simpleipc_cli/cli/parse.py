"""What is on the command line, understood without click: it takes longer than an exchange."""

from __future__ import annotations

import os

from simpleipc_cli import system
from simpleipc_cli.endpoint import Endpoint, default_endpoint

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 10 * 365 * 24 * 3600.0  # seconds; what the kernel's timers surely hold, at will
_DIGITS = "0123456789"


def resolve_endpoint(path: str | None) -> Endpoint:
    """The endpoint that was named, or the one to use when none was."""
    return default_endpoint(os.environ, system.user_id()) if path is None else Endpoint(path)


def seconds(text: str) -> float | None:
    """A length of time such as 500ms, 2s, 1m30s or 1.5; None if it is none."""
    parts = _numbers_and_units(text)
    if len(parts) == 1 and not parts[0][1]:
        number = parts[0][0]
        found = float(number) if number.strip(".") else None  # .5 and 5. are numbers, too
    elif parts and all(unit in _SECONDS and _is_plain(number) for number, unit in parts):
        found = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        found = None
    return None if found is None or found > _LONGEST else found


def _numbers_and_units(text: str) -> list[tuple[str, str]]:
    """Cut where a number begins: `1m30s` into 1, m and 30, s. Numbers have a dot at most."""
    parts = []
    while text:
        unit = text.lstrip(_DIGITS + ".")
        number = text[: len(text) - len(unit)]
        text = unit.lstrip("hms")
        parts.append((number, unit[: len(unit) - len(text)]))
        if not number or number.count(".") > 1 or text[:1] not in _DIGITS:
            return []
    return parts


def _is_plain(number: str) -> bool:
    """Whether there are digits on both sides of the dot, if there is one."""
    return all(number.split("."))
