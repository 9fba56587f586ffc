"""Types of option values, and the options that verbs share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from simpleipc_cli.cli.parse import resolve_endpoint, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.expect import Expectation

__all__ = ["resolve_endpoint"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MAX_ID = 2**32 - 2  # of a user or group; one more means "unchanged" to chown(2)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A duration, converted to seconds; 0 becomes None, no limit."""

    name = "duration"

    def __init__(self, *, zero_is_none: bool = True) -> None:
        """`zero_is_none=False` is for durations that are not limits."""
        self._zero_is_none = zero_is_none

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        found = seconds(str(value))
        if found is None:
            self.fail(
                f"{value!r} is not a duration: give one such as 500ms, 2s or 1m30s", param, ctx
            )
        return None if found == 0 and self._zero_is_none else found


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A number of bytes; 0 becomes None, no limit."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        found = re.fullmatch(r"(\d{1,15})([KMGT]?)", str(value), re.ASCII)
        if not found:
            self.fail(f"{value!r} is not a size: give one such as 4096, 64K, 10M or 1G", param, ctx)
        return int(found[1]) * _UNITS[found[2]] or None


class Mode(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Permission bits, in octal."""

    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not re.fullmatch(r"0?[0-7]{3}", str(value), re.ASCII):
            self.fail(f"{value!r} is not a mode: give one such as 0600 or 0666", param, ctx)
        return int(str(value), 8)


class Account(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A user or a group, by name or number; converted to the number."""

    def __init__(self, name: str, find_id: Callable[[str], int]) -> None:
        """`find_id` returns the number for a name. Raises KeyError for an unknown name."""
        self.name = name
        self._find_id = find_id

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert a name, or else a number, as chown(1) does."""
        try:
            return self._find_id(value)
        except (KeyError, ValueError):
            pass
        if not re.fullmatch(r"\d{1,10}", str(value), re.ASCII) or int(value) > _MAX_ID:
            self.fail(f"there is no {self.name} {value!r}: give a name or a number", param, ctx)
        return int(value)


def _user_id(name: str) -> int:
    import pwd  # noqa: PLC0415 - not every platform has it

    return pwd.getpwnam(name).pw_uid


def _group_id(name: str) -> int:
    import grp  # noqa: PLC0415 - not every platform has it

    return grp.getgrnam(name).gr_gid


DURATION = Duration()
SIZE = Size()
MODE = Mode()
USER = Account("user", _user_id)
GROUP = Account("group", _group_id)


def path_argument(command: _Command) -> _Command:
    """Add PATH, the first argument of every verb; it is not checked here."""
    return click.argument("path", required=False, type=click.Path(readable=False))(command)


def wait_option(command: _Command) -> _Command:
    """Add `--wait`."""
    return click.option(
        "--wait",
        type=DURATION,
        help="Keep trying while the endpoint is missing, refuses or is busy.",
    )(command)


def trace_options(command: _Command) -> _Command:
    """Add `--trace` and `--trace-file`."""
    command = click.option(
        "--trace-file",
        metavar="FILE",
        help="Append the trace to FILE; a new file has mode 0600, as payload may be secret.",
    )(command)
    return click.option(
        "--trace",
        is_flag=True,
        help="Log every packet to stderr with a timestamp and the start of its payload.",
    )(command)


def expect_options(command: _Command) -> _Command:
    """Add `--expect` and `--expect-regex`; see expectation()."""
    command = click.option(
        "--expect-regex",
        metavar="RE",
        help="Exit with status 10 unless RE, in Python's syntax, matches within the response.",
    )(command)
    return click.option(
        "--expect",
        metavar="TEXT",
        help="Exit with status 10 unless the response is TEXT; a newline at the end of either is "
        "ignored.",
    )(command)


def expectation(text: str | None, pattern: str | None) -> Expectation | None:
    """Return what --expect or --expect-regex asks for. Raises UsageError."""
    if text is None and pattern is None:
        return None
    if text is not None and pattern is not None:
        raise click.UsageError("--expect cannot be combined with --expect-regex")
    from simpleipc_cli.cli import expect  # noqa: PLC0415 - only for these options

    if pattern is not None:
        return expect.regex_match(pattern)
    return expect.FixedText(os.fsencode(text or ""))


def option_given(ctx: click.Context, name: str) -> bool:
    """Return whether an option is on the command line: "no limit" and "not given" are both None."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
