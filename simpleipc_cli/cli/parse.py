"""Parsing without click, which takes longer to load than an exchange takes.

All verbs parse durations here. The common options of `serve`, `send` and `probe` are parsed here,
too; then the same function of the verb runs as after click's parsing. For any other option, and for
usage errors, click parses the command line again. A test compares the table of options with
click's.
"""

from __future__ import annotations

import os

from simpleipc_cli import system
from simpleipc_cli.endpoint import Endpoint, default_endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

VERBS = {
    "serve": "Answer requests with a command.",
    "send": "Send one request and print the response.",
    "probe": "Check whether a server is listening.",
    "bench": "Measure the rate and the latency of an endpoint.",
}

FLAG, TEXT, COUNT, DURATION, DURATION_OR_ZERO = "flag", "text", "count", "duration", "or zero"

OPTIONS: dict[str, dict[str, tuple[str, str | tuple[str, ...]]]] = {
    "serve": {
        "--exec": ("command", TEXT),
        "--worker": ("worker", TEXT),
        "--call": ("call", TEXT),
        "--max-requests-per-worker": ("max_requests_per_worker", COUNT),
        "--prestart": ("prestart", COUNT),
        "--whole-request": ("whole_request", FLAG),
        "--on-hangup": ("on_hangup", ("kill", "finish")),
        "--timeout": ("timeout", DURATION),
        "--kill-after": ("kill_after", DURATION_OR_ZERO),
        "--threads": ("threads", COUNT),
        "--backlog": ("backlog", COUNT),
        "--read-timeout": ("read_timeout", DURATION),
        "--write-timeout": ("write_timeout", DURATION),
        "--count": ("count", COUNT),
        "--idle-timeout": ("idle_timeout", DURATION),
        "--quit-on": ("quit_on", TEXT),
        "--drain-timeout": ("drain_timeout", DURATION),
        "--stdio": ("stdio", FLAG),
        "--background": ("background", FLAG),
        "--max-wait": ("max_wait", DURATION),
        "--pid-file": ("pid_file", TEXT),
        "--log-file": ("log_file", TEXT),
        "--log-format": ("log_format", ("text", "json")),
        "--handler-stderr": ("handler_stderr", ("inherit", "log", "discard")),
        **dict.fromkeys(("-q", "--quiet"), ("quiet", FLAG)),
        **dict.fromkeys(("-v", "--verbose"), ("verbose", FLAG)),
        "--trace": ("trace", FLAG),
        "--trace-file": ("trace_file", TEXT),
    },
    "send": {
        **dict.fromkeys(("-d", "--data"), ("data", TEXT)),
        "--data-file": ("data_file", TEXT),
        **dict.fromkeys(("-o", "--output"), ("output", TEXT)),
        "--connect-timeout": ("connect_timeout", DURATION),
        **dict.fromkeys(("-m", "--max-time"), ("max_time", DURATION)),
        "--wait": ("wait", DURATION),
    },
    "probe": {
        **dict.fromkeys(("-q", "--quiet"), ("quiet", FLAG)),
        "--json": ("as_json", FLAG),
        "--wait": ("wait", DURATION),
        **dict.fromkeys(("-t", "--timeout"), ("timeout", DURATION)),
    },
}
"""For each verb, each spelling of an option: the parameter's name, and its kind or its choices."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}  # in seconds
_MAX_SECONDS = 10 * 365 * 24 * 3600.0  # ten years; does not overflow the kernel's timers
_DIGITS = "0123456789"


class Options:
    """The options of a verb: annotated attributes with defaults, set by keyword arguments.

    This is no dataclass, as that module takes longer to load than an exchange takes.
    """

    def __init__(self, **given: Any) -> None:
        for name, value in given.items():
            assert hasattr(self, name), name  # noqa: S101
            setattr(self, name, value)


def resolve_endpoint(path: str | None) -> Endpoint:
    """Return the endpoint at `path`, or the default one."""
    return default_endpoint(os.environ, system.user_id()) if path is None else Endpoint(path)


class NeedsClick(Exception):
    """The command line has options that this module does not parse."""


def spool_folders() -> list[str]:
    """Return the directories for spool files, in the order to try; some may be unusable."""
    return system.spool_folders(os.environ)


def parse_simple(verb: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the given parameters by click's names. Raises NeedsClick."""
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        is_path = word == "-" or not word.startswith("-")
        name, value = ("path", word) if is_path else _option(OPTIONS[verb], word, rest)
        if name in given:
            raise NeedsClick
        given[name] = value
    if "data" in given and "data_file" in given:
        raise NeedsClick
    return given


def _option(
    options: dict[str, tuple[str, str | tuple[str, ...]]], word: str, rest: Iterator[str]
) -> tuple[str, object]:
    """Return an option's name and value, which may be the next word. Raises NeedsClick."""
    flag, equals, value = word.partition("=")
    if flag not in options or flag in system.UNSUPPORTED_OPTIONS:
        raise NeedsClick
    if equals and not flag.startswith("--"):
        raise NeedsClick
    name, kind = options[flag]
    if kind == FLAG:
        if equals:
            raise NeedsClick
        return name, True
    if not equals:
        value = next(rest, "")
        if not value:  # missing or empty: let click decide
            raise NeedsClick
    return name, _convert(value, kind)


def _convert(text: str, kind: str | tuple[str, ...]) -> object:
    """Convert an option's value. Raises NeedsClick."""
    if kind == TEXT or (isinstance(kind, tuple) and text in kind):
        return text
    # The largest numbers are left to click, which knows the limits.
    if kind == COUNT and text.isascii() and text.isdecimal() and len(text) < 10 and int(text):
        return int(text)
    found = seconds(text) if kind in {DURATION, DURATION_OR_ZERO} else None
    if found is None:
        raise NeedsClick
    return found if kind == DURATION_OR_ZERO else found or None  # 0: no limit


def seconds(text: str) -> float | None:
    """Return the seconds of a duration such as 500ms, 2s, 1m30s or 1.5; None if invalid."""
    parts = _numbers_and_units(text)
    if len(parts) == 1 and not parts[0][1]:
        number = parts[0][0]
        found = float(number) if number.strip(".") else None  # .5 and 5. are numbers, too
    elif parts and all(unit in _UNITS and all(number.split(".")) for number, unit in parts):
        units = [_UNITS[unit] for _, unit in parts]
        found = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if units != sorted(set(units), reverse=True):  # each unit only once, the largest first
            found = None
    else:
        found = None
    return None if found is None or found > _MAX_SECONDS else found


def _numbers_and_units(text: str) -> list[tuple[str, str]]:
    """Split "1m30s" into 1, m and 30, s; return an empty list if that is impossible.

    Does not use `re`, which takes longer to load than an exchange takes.
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
