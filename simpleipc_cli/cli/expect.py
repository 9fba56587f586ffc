"""Compare a response with --expect or --expect-regex, and describe the difference in one line."""

from __future__ import annotations

import mmap
import os
import re
import warnings
from typing import NoReturn

import click

from simpleipc_cli import system
from simpleipc_cli.cli.parse import spool_folders
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import ExpectationFailed, TimedOut
from simpleipc_cli.spool import Spool
from simpleipc_cli.text import printable, quoted

_CONTEXT = 16  # bytes shown before the first difference (tunable)
_MAX_SHOWN = 48  # maximum number of bytes to show (tunable)


class FixedText:
    """Expects the whole response to equal a text. Ignores one newline at the end of either."""

    def __init__(self, text: bytes) -> None:
        self._text = text.removesuffix(b"\n")
        self._start = b""  # start of the response: enough to find and show a difference
        self._size = 0  # size of the response

    def feed(self, payload: memoryview) -> None:
        """Add a part of the response."""
        self._size += len(payload)
        self._start += payload[: len(self._text) + _MAX_SHOWN - len(self._start)]

    def check(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Check the complete response. Raises ExpectationFailed."""
        longest = self._text + b"\n"
        if self._start in {self._text, longest}:
            return
        offset = _common_length(longest, self._start)
        start = max(0, offset - _CONTEXT)
        raise ExpectationFailed(
            f"the response is not as expected: at byte {offset} expected"
            f" {_excerpt(self._text, start, len(self._text))}"
            f" but got {_excerpt(self._start, start, self._size)}"
        )

    def close(self) -> None:
        """Do nothing: there are no resources to free."""


class RegexMatch:
    """Expects a regular expression to match within the response. Spools the response to disk."""

    def __init__(self, pattern: re.Pattern[bytes], *folders: str) -> None:
        self._pattern = pattern
        self._spool = Spool(*folders)

    def feed(self, payload: memoryview) -> None:
        """Add a part of the response, valid only during the call. Raises SipcError."""
        self._spool.append([payload])

    def check(self, deadline: Deadline) -> None:
        """Search the complete response. Call this in the main thread, which handles signals.

        Raises ExpectationFailed, TimedOut.
        """
        size = len(self._spool)
        if not size:
            self._search(b"", deadline)
            return
        with mmap.mmap(self._spool.descriptor(), size, access=mmap.ACCESS_READ) as response:
            self._search(response, deadline)

    def _search(self, response: bytes | mmap.mmap, deadline: Deadline) -> None:
        left = deadline.remaining()
        try:
            if left is not None:  # a search can take very long, but handles signals
                system.set_timer(max(left, 1e-6), _on_timeout)  # 0 would mean no timer
            found = self._pattern.search(response)
        finally:
            if left is not None:
                system.stop_timer()
        if found is None:
            pattern = self._pattern.pattern
            raise ExpectationFailed(
                "the response is not as expected: no match for"
                f" {_excerpt(pattern, 0, len(pattern))} in its {len(response)} bytes"
                f" {_excerpt(response[:_MAX_SHOWN], 0, len(response))}"
            )

    def close(self) -> None:
        self._spool.close()


Expectation = FixedText | RegexMatch
"""Gets a response in pieces, and checks it when it is complete."""


def _on_timeout(_number: int, _frame: object) -> NoReturn:
    raise TimedOut(
        "the search in the response was not finished in time", "use a simpler regular expression"
    )


def _common_length(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _excerpt(data: bytes, start: int, size: int) -> str:
    """Quote bytes from `start` on; dots mark the bytes, of `size` in total, that are left out."""
    shown = data[start : start + _MAX_SHOWN]
    return f"{'...' if start else ''}{quoted(shown)}{'...' if start + len(shown) < size else ''}"


def regex_match(text: str) -> RegexMatch:
    """Return the expectation for --expect-regex. Raises click's UsageError."""
    pattern = os.fsencode(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about syntax that will change in Python
            compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        shown, why = _excerpt(pattern, 0, len(pattern)), printable(str(error))
        raise click.BadParameter(
            f"{shown} is not a regular expression: {why}", param_hint="--expect-regex"
        ) from None
    return RegexMatch(compiled, *spool_folders())
