"""Kinds of values that options take, and options that verbs share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from simpleipc_cli.cli.parse import resolve_endpoint, seconds

__all__ = ["resolve_endpoint"]  # from here, too: it belongs to the argument

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MAX_ACCOUNTS = 2**32 - 2  # the number behind it means "unchanged" to chown(2)
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A length of time, converted to seconds; None, which is no limit, for 0."""

    name = "duration"

    def __init__(self, *, zero_is_none: bool = True) -> None:
        """`zero_is_none=False` for what is no limit: there 0 is no time at all."""
        self._zero_is_none = zero_is_none

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Take 500ms, 2s, 1m30s, 1.5 and the like."""
        found = seconds(str(value))
        if found is None:
            self.fail(f"{value!r} is no duration: give one such as 500ms, 2s or 1m30s", param, ctx)
        return None if found == 0 and self._zero_is_none else found


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A number of bytes; None, which is no limit, for 0."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Take 4096, 64K, 10M, 1G."""
        found = re.fullmatch(r"(\d{1,15})([KMGT]?)", str(value), re.ASCII)
        if not found:
            self.fail(f"{value!r} is no size: give one such as 4096, 64K, 10M or 1G", param, ctx)
        return int(found[1]) * _BYTES[found[2]] or None


class Mode(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Permission bits."""

    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Take 600, 0660 and the like."""
        if not re.fullmatch(r"0?[0-7]{3}", str(value), re.ASCII):
            self.fail(f"{value!r} is no mode: give one such as 0600 or 0666", param, ctx)
        return int(str(value), 8)


class Account(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A user or a group, by name or number; converted to the number."""

    def __init__(self, name: str, number_of: Callable[[str], int]) -> None:
        """`number_of` finds a name's number. Raises KeyError for one that there is not."""
        self.name = name
        self._number_of = number_of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Names come first, as with chown(1)."""
        try:
            return self._number_of(value)
        except (KeyError, ValueError):
            pass
        if not re.fullmatch(r"\d{1,10}", str(value), re.ASCII) or int(value) > _MAX_ACCOUNTS:
            self.fail(f"there is no {self.name} {value!r}: give a name or a number", param, ctx)
        return int(value)


def _number_of_user(name: str) -> int:
    import pwd  # noqa: PLC0415 - not every platform has it

    return pwd.getpwnam(name).pw_uid


def _number_of_group(name: str) -> int:
    import grp  # noqa: PLC0415 - not every platform has it

    return grp.getgrnam(name).gr_gid


DURATION = Duration()
SIZE = Size()
MODE = Mode()
USER = Account("user", _number_of_user)
GROUP = Account("group", _number_of_group)


def path_argument(command: _Command) -> _Command:
    """PATH, the first argument of every verb. Whether it can be used shows when it is."""
    return click.argument("path", required=False, type=click.Path(readable=False))(command)


def trace_options(command: _Command) -> _Command:
    """To see the wire: `trace` and `trace_file`."""
    for option in (
        click.option(
            "--trace-file",
            metavar="FILE",
            help="The same, added to FILE; a new one has mode 0600, as payload may be secret.",
        ),
        click.option(
            "--trace",
            is_flag=True,
            help="Show every packet on stderr, both ways, with its time and how it begins.",
        ),
    ):
        command = option(command)
    return command


def expect_options(command: _Command) -> _Command:
    """What the answer has to be: `expect` and `expect_regex`."""
    for option in (
        click.option(
            "--expect-regex",
            metavar="RE",
            help="End with status 10 unless RE, in Python's syntax, is found in the answer's "
            "bytes.",
        ),
        click.option(
            "--expect",
            metavar="TEXT",
            help="End with status 10 unless the answer is TEXT; a newline at the end of either "
            "makes no difference.",
        ),
    ):
        command = option(command)
    return command


def option_given(ctx: click.Context, name: str) -> bool:
    """Whether an option was on the command line: "no limit" and "not given" look alike."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
