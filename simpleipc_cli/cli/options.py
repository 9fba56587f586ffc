"""Types of option values, and options that several verbs have.

A type is a function. click shows its name as the value's name, and its ValueError as a usage error.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import Any

import click
from click.types import FuncParamType

from simpleipc_cli import system
from simpleipc_cli.cli.parse import seconds
from simpleipc_cli.cli.stdio import unexpected_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.expect import Expectation

_MAX_ID = 2**32 - 2  # of a user or group; for chown(2), 2**32 - 1 means "unchanged"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def duration(text: str) -> float | None:
    """Convert a duration to seconds; 0 becomes None (no limit)."""
    return duration_or_zero(text) or None


def duration_or_zero(text: str) -> float:
    """Convert a duration to seconds; 0 stays 0."""
    found = seconds(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration: give one such as 500ms, 2s or 1m30s")
    return found


def size(text: str) -> int | None:
    """Convert a number of bytes; 0 becomes None (no limit)."""
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)", text.upper(), re.ASCII)
    if not found:
        raise ValueError(f"{text!r} is not a size: give one such as 4096, 64K, 10M or 1G")
    return int(found[1]) * _UNITS[found[2]] or None


def octal(text: str) -> int:
    """Convert permission bits."""
    if not re.fullmatch(r"0?[0-7]{3}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a mode: give one such as 0600 or 0666")
    return int(text, 8)


def user(name: str) -> int:
    """Convert a user's name or number to the number."""
    import pwd  # noqa: PLC0415 - not every platform has it

    try:
        number = pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        number = _id("user", name)
    if system.is_ambiguous_user(number):
        raise ValueError(f"uid {number} stands for every user that is unknown in this namespace")
    return number


def group(name: str) -> int:
    """Convert a group's name or number to the number."""
    import grp  # noqa: PLC0415 - not every platform has it

    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return _id("group", name)


def _id(kind: str, text: str) -> int:
    """Convert a number. Callers try the text as a name first, as chown(1) does."""
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > _MAX_ID:
        raise ValueError(f"there is no {kind} {text!r}: give a name or a number")
    return int(text)


class Verb(click.Command):
    """A verb. Hides OSError from click, which would treat EPIPE as an error of its own output."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            raise unexpected_error(error) from error


DURATION = FuncParamType(duration)
SIZE = FuncParamType(size)

count_option = partial(click.option, metavar="N", type=click.IntRange(1))
duration_option = partial(click.option, type=DURATION)
file_option = partial(click.option, metavar="FILE")
text_option = partial(click.option, metavar="TEXT")

path_argument = click.argument("path", required=False, type=click.Path(readable=False))
"""The argument PATH of every verb; click does not check it."""

wait_option = duration_option(
    "--wait", help="Retry for at most DURATION while the endpoint is missing, refuses or is busy."
)

trace_option = click.option(
    "--trace",
    is_flag=True,
    help="Log every packet to stderr with a timestamp and the start of its payload.",
)
trace_file_option = file_option(
    "--trace-file",
    help="Append the trace to FILE; a new file has mode 0600, as payload may be secret.",
)

# The verb passes both to expectation().
expect_option = text_option(
    "--expect",
    help="Exit with status 10 unless the response is TEXT; a newline at the end of either is "
    "ignored.",
)
expect_regex_option = click.option(
    "--expect-regex",
    metavar="RE",
    help="Exit with status 10 unless RE, in Python's syntax, matches within the response.",
)


def expectation(text: str | None, pattern: str | None) -> Expectation | None:
    """Return the expectation of --expect or --expect-regex. Raises UsageError."""
    if text is None and pattern is None:
        return None
    if text is not None and pattern is not None:
        raise click.UsageError("--expect cannot be combined with --expect-regex")
    from simpleipc_cli.cli import expect  # noqa: PLC0415 - only for these options

    if pattern is not None:
        return expect.regex_match(pattern)
    return expect.FixedText(os.fsencode(text or ""))


def option_given(ctx: click.Context, name: str) -> bool:
    """Return whether an option is on the command line: None can also mean "no limit"."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
