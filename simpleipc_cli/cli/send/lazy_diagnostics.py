"""What most calls do without: loaded only when it is asked for."""

from __future__ import annotations

import os
from time import monotonic

from simpleipc_cli.cli.stdio import STDERR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simpleipc_cli.cli.expect import Expectation
    from simpleipc_cli.cli.send.diagnostics import Diagnostics
    from simpleipc_cli.cli.stdio import Input, Output
    from simpleipc_cli.errors import SipcError
    from simpleipc_cli.transport import Stream


def expectation_of(text: str | None, pattern: str | None) -> Expectation | None:
    """What --expect or --expect-regex ask for. Raises click's UsageError."""
    if text is not None and pattern is not None:
        from click import UsageError  # noqa: PLC0415

        raise UsageError("give --expect or --expect-regex, not both")
    if text is None and pattern is None:
        return None
    from simpleipc_cli.cli import expect  # noqa: PLC0415

    if pattern is not None:
        return expect.matching(pattern)
    return expect.FixedText(os.fsencode(text or ""))


def make_diagnostics(
    path: str, *, progress: bool | None, **shown: Any
) -> Diagnostics | NullDiagnostics:
    """What --trace and the like ask for; progress may be shown unasked, on a terminal."""
    asked_for = any(value not in {None, False} for value in shown.values()) or progress
    if not asked_for and (progress is False or not os.isatty(STDERR)):
        return NullDiagnostics()
    began = monotonic()  # what is loaded now is a part of what is waited for
    from simpleipc_cli.cli.send.diagnostics import Diagnostics  # noqa: PLC0415

    return Diagnostics(path, began, progress=progress, **shown)


class NullDiagnostics:
    """Nothing is shown but the answer. For each of these see Sight."""

    def __enter__(self) -> NullDiagnostics:
        """See Sight."""
        return self

    def __exit__(self, *_: object) -> None:
        """See Sight."""

    def open(self, source: Input | None, *, records: bool = False) -> None:
        """See Sight."""

    def watch(self, stream: Stream, number: int = 1) -> Stream:  # noqa: ARG002
        """See Sight."""
        return stream

    def cover(self, output: Output) -> Output:
        """See Sight."""
        return output

    def give_way(self) -> None:
        """See Sight."""

    def failed(self, error: SipcError) -> None:
        """See Sight."""
