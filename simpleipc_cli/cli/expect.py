"""What an answer should be, and telling in a line in what it differs."""

from __future__ import annotations

import mmap
import os
import re
import warnings
from abc import ABC, abstractmethod
from typing import NoReturn

import click

from simpleipc_cli import system
from simpleipc_cli.cli.stdio import Output
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import ExpectationFailed, TimedOut
from simpleipc_cli.spool import Spool
from simpleipc_cli.text import printable, quoted

_BEFORE = 16  # bytes shown before the first that differs, at will
_SHOWN = 48  # bytes shown in all, at will


class Expectation(ABC):
    """Looks at an answer piece by piece, and judges it at its end."""

    @abstractmethod
    def feed(self, payload: memoryview) -> None:
        """The next piece, only good until this returns. Raises SipcError."""

    @abstractmethod
    def check(self, deadline: Deadline) -> None:
        """The answer is complete. Raises NotAsExpected, TimedOut."""

    def close(self) -> None:  # noqa: B027 - only one holds anything
        """Free what it holds."""

    def guard(self, output: Output, deadline: Deadline) -> Output:
        """An output that passes an answer on as it comes, and completes it if it is as expected."""
        return _GuardedOutput(output, self, deadline)


class FixedText(Expectation):
    """The whole answer is a text; at the end of both one newline is ignored.

    Holds the text, and a few bytes of the answer from the first that differs.
    """

    def __init__(self, text: bytes) -> None:
        """Nothing has come yet."""
        self._text = text.removesuffix(b"\n")
        self._allowed = self._text + b"\n"
        self._came = 0  # bytes of the answer
        self._differs_at: int | None = None
        self._got = b""  # the answer from there on, as much of it as is shown

    def feed(self, payload: memoryview) -> None:
        """See Expectation."""
        at = self._came
        self._came += len(payload)
        if self._differs_at is None:
            expected = self._allowed[at : at + len(payload)]
            if payload == expected:
                return
            same = _common(expected, payload[: len(expected)].tobytes())
            self._differs_at = at + same
            payload = payload[same:]
        self._got += payload[: _SHOWN - len(self._got)]

    def check(self, deadline: Deadline) -> None:  # noqa: ARG002
        """See Expectation."""
        at = self._differs_at
        if at is None:
            if self._came >= len(self._text):
                return
            at = self._came
        start = max(0, at - _BEFORE)
        got = self._allowed[start:at] + self._got
        expected = _excerpt(self._text, start, len(self._text))
        raise ExpectationFailed(
            f"the answer is not as expected: at byte {at} expected {expected}"
            f" but got {_excerpt(got, 0, self._came - start, cut_before=start > 0)}"
        )


class Matching(Expectation):
    """A regular expression is found somewhere in the answer's bytes.

    The answer waits on disk, in a file without a name.
    """

    def __init__(self, pattern: re.Pattern[bytes], folder: str) -> None:
        """`folder` is for the file."""
        self._pattern = pattern
        self._spool = Spool(folder)

    def feed(self, payload: memoryview) -> None:
        """See Expectation."""
        self._spool.append([payload])

    def check(self, deadline: Deadline) -> None:
        """See Expectation. Some expressions take very long: the deadline is for these, too."""
        size = len(self._spool)
        if not size:
            self._search(b"", deadline)
            return
        with mmap.mmap(self._spool.descriptor(), size, access=mmap.ACCESS_READ) as answer:
            self._search(answer, deadline)

    def _search(self, answer: bytes | mmap.mmap, deadline: Deadline) -> None:
        with _Alarm(deadline):
            found = self._pattern.search(answer)
        if found is None:
            pattern = _excerpt(self._pattern.pattern, 0, len(self._pattern.pattern))
            begin = _excerpt(answer[:_SHOWN], 0, len(answer))
            raise ExpectationFailed(
                f"the answer is not as expected: nothing matches {pattern}"
                f" in its {len(answer)} bytes {begin}"
            )

    def close(self) -> None:
        """See Expectation."""
        self._spool.close()


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _excerpt(data: bytes, start: int, size: int, *, cut_before: bool = False) -> str:
    """Some of the bytes from `start` on, in quotes; dots stand for what is left out of `size`."""
    shown = data[start : start + _SHOWN]
    before = "..." if start or cut_before else ""
    return f"{before}{quoted(shown)}{'...' if start + len(shown) < size else ''}"


class _Alarm:
    """Ends what runs in its `with` when a deadline comes. For the main thread, and once.

    Regular expressions look for signals while they search.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._left = deadline.remaining()

    def __enter__(self) -> None:
        if self._left is not None:
            system.set_timer(max(self._left, 1e-6), self._ring)  # 0 would be never

    def __exit__(self, *_: object) -> None:
        if self._left is not None:
            system.stop_alarm()

    @staticmethod
    def _ring(_number: int, _frame: object) -> NoReturn:
        raise TimedOut("the answer was not searched in time", "take a simpler regular expression")


def matching(pattern: str) -> Matching:
    """What --expect-regex asks for. Raises click's UsageError."""
    return Matching(
        _compiled(os.fsencode(pattern)), os.environ.get("TMPDIR") or system.SPOOL_FOLDER
    )


def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what later versions of Python will understand
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        shown, why = _excerpt(pattern, 0, len(pattern)), printable(str(error))
        raise click.BadParameter(
            f"{shown} is no regular expression: {why}", param_hint="--expect-regex"
        ) from None


class _GuardedOutput(Output):
    def __init__(self, output: Output, expected: Expectation, deadline: Deadline) -> None:
        self._output = output
        self._expected = expected
        self._deadline = deadline

    @property
    def on_terminal(self) -> bool:
        return self._output.on_terminal

    def begin(self) -> None:
        self._output.begin()

    def write(self, payload: memoryview) -> None:
        self._expected.feed(payload)
        self._output.write(payload)

    def complete(self) -> None:
        self._expected.check(self._deadline)
        self._output.complete()

    def abandon(self) -> None:
        self._expected.close()
        self._output.abandon()
