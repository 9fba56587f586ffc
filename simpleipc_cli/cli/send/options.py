"""How `send` connects, and its diagnostics, which are loaded only when an option asks for them."""

from __future__ import annotations

import os
from time import monotonic

from simpleipc_cli.cli.stdio import STDERR
from simpleipc_cli.client import connect_with_retry
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import NotListening, PathNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simpleipc_cli.cli.expect import Expectation
    from simpleipc_cli.cli.send.diagnostics import Diagnostics
    from simpleipc_cli.cli.stdio import Input, Output
    from simpleipc_cli.endpoint import Endpoint
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


class ConnectOptions:
    """How the endpoint is reached, as the options have it."""

    def __init__(
        self,
        endpoint: Endpoint,
        spawn: str | None,
        *,
        connect_timeout: float | None,
        wait: float | None,
        waits: bool,
        deadline: Deadline,
        sight: Diagnostics | NullDiagnostics,
    ) -> None:
        """Times are seconds, None is no limit; `waits` is whether --wait was given."""
        self.endpoint = endpoint
        self.spawn = spawn
        self.connect_timeout = connect_timeout
        self.wait = wait
        self.waits = waits
        self.deadline = deadline
        self.sight = sight

    def connect_with_retry(self) -> Stream:
        """Connect, if need be to a server that is started for it. Raises EndpointError."""
        wait = Deadline(self.wait) if self.waits else None
        try:
            return connect_with_retry(
                self.endpoint.path_checked,
                connect_timeout=self.connect_timeout,
                wait=wait if self.spawn is None else None,
                deadline=self.deadline,
            )
        except (NotListening, PathNotFound):
            if self.spawn is None:
                raise
        from simpleipc_cli.autostart import connect_or_start  # noqa: PLC0415 - most do without

        return connect_or_start(
            self.endpoint,
            self.spawn,
            os.environ,
            connect_timeout=self.connect_timeout,
            wait=wait,
            deadline=self.deadline,
        )
