"""A short way for the plain forms of `send` and `probe`: without click, which takes long to load.

It does not do the same again: what a verb does is one function, which click's way calls, too.
Here is only a table of the options that are understood; everything else, mistakes included, is
left to click, before anything has been touched. A test holds the table against click's.
"""

from __future__ import annotations

import os

from simpleipc_cli.cli.parse import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

FLAG, TEXT, DURATION = "flag", "text", "duration"

OPTIONS: dict[str, dict[str, tuple[str, str]]] = {
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
"""For each verb, and each way to write an option: its name for click, and its kind."""

_COMPLETION = "_SIPC_COMPLETE"  # with it in the environment, click completes words


class NeedsClick(Exception):
    """More than is understood here: it is for click to say what it means."""


def fast_path(arguments: Sequence[str]) -> Callable[[], int] | None:
    """What to run for these arguments; None if click is to see to them."""
    if not arguments or arguments[0] not in OPTIONS or _COMPLETION in os.environ:
        return None
    try:
        given = parse_simple(arguments[0], arguments[1:])
    except NeedsClick:
        return None
    return lambda: _RUN[arguments[0]](given)


def parse_simple(verb: str, words: Sequence[str]) -> dict[str, Any]:
    """What was given, by click's names. Raises NotPlain."""
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
    options: dict[str, tuple[str, str]], word: str, rest: Iterator[str]
) -> tuple[str, object]:
    """An option's name and value, which may be the next word. Raises NotPlain."""
    flag, equals, value = word.partition("=")
    if flag not in options or (equals and not flag.startswith("--")):
        raise NeedsClick
    name, kind = options[flag]
    if kind == FLAG:
        if equals:
            raise NeedsClick
        return name, True
    if not equals:
        value = next(rest, "")
        if not value:  # none at all; an empty one is rare enough for click
            raise NeedsClick
    return name, value if kind == TEXT else _duration(value)


def _duration(text: str) -> float | None:
    found = seconds(text)
    if found is None:
        raise NeedsClick
    return found or None  # 0 is no limit


def _send(given: dict[str, Any]) -> int:
    from simpleipc_cli.cli.send.run import CONNECT_TIMEOUT, MAX_TIME, run  # noqa: PLC0415

    return run(
        given.get("path"),
        data=given.get("data"),
        data_file=given.get("data_file"),
        output=given.get("output"),
        connect_timeout=given.get("connect_timeout", _duration(CONNECT_TIMEOUT)),
        max_time=given.get("max_time", _duration(MAX_TIME)),
        wait=given.get("wait"),
        waits="wait" in given,
    )


def _probe(given: dict[str, Any]) -> int:
    from simpleipc_cli.cli.probe.run import TIMEOUT, run  # noqa: PLC0415

    return run(
        given.get("path"),
        quiet="quiet" in given,
        as_json="as_json" in given,
        wait=given.get("wait"),
        waits="wait" in given,
        timeout=given.get("timeout", _duration(TIMEOUT)),
    )


_RUN = {"send": _send, "probe": _probe}
