"""Parse the plain forms of `send` and `probe` without click, which takes long to load.

Only the parsing is separate: both ways call the same function of the verb. Whatever is not in
the table of options, usage errors included, is left to click, before any side effect. A test
compares the table with click's options.
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
"""For each verb, each spelling of an option: the parameter's name and its kind."""

_COMPLETION = "_SIPC_COMPLETE"  # with this variable set, click completes words


class NeedsClick(Exception):
    """The command line is more than this module parses."""


def fast_path(arguments: Sequence[str]) -> Callable[[], int] | None:
    """Return the function to run for these arguments; None if click must parse them."""
    if not arguments or arguments[0] not in OPTIONS or _COMPLETION in os.environ:
        return None
    try:
        given = parse_simple(arguments[0], arguments[1:])
    except NeedsClick:
        return None
    given["has_wait"] = "wait" in given
    return lambda: _run(arguments[0], given)


def _run(verb: str, given: dict[str, Any]) -> int:
    if verb == "send":
        from simpleipc_cli.cli.send import SendOptions  # noqa: PLC0415 - only one verb is loaded
        from simpleipc_cli.cli.send.run import run as send  # noqa: PLC0415

        return send(SendOptions(**given))
    from simpleipc_cli.cli.probe.run import ProbeOptions, run  # noqa: PLC0415

    return run(ProbeOptions(**given))


def parse_simple(verb: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the parameters given, by click's names. Raises NeedsClick."""
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
    """Return an option's name and value, which may be the next word. Raises NeedsClick."""
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
        if not value:  # missing, or empty, which is rare
            raise NeedsClick
    if kind == TEXT:
        return name, value
    found = seconds(value)
    if found is None:
        raise NeedsClick
    return name, found or None  # 0 means no limit
