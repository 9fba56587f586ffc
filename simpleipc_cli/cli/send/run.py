"""What `sipc send` does, once it is known what was asked for: one exchange, or one a record.

Loads little: see cli/quick.py.
"""

from __future__ import annotations

import os

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.parse import resolve_endpoint
from simpleipc_cli.cli.send.lazy_diagnostics import make_diagnostics
from simpleipc_cli.cli.stderr import print_error
from simpleipc_cli.cli.stdio import STDIN, Input, open_input, open_output
from simpleipc_cli.client import connect_with_retry, exchange, look
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import NotListening, PathNotFound, TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simpleipc_cli.cli.expect import Expectation
    from simpleipc_cli.cli.send.diagnostics import Diagnostics
    from simpleipc_cli.cli.send.lazy_diagnostics import NullDiagnostics
    from simpleipc_cli.cli.stdio import Output
    from simpleipc_cli.endpoint import Endpoint
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Stream

CONNECT_TIMEOUT = "1s"
MAX_TIME = "0"
"""What holds when nothing is said."""


def run(
    path: str | None,
    *,
    data: str | None,
    data_file: str | None,
    output: str | None,
    connect_timeout: float | None,
    max_time: float | None,
    wait: float | None,
    waits: bool,
    spawn: str | None = None,
    separator: bytes | None = None,
    jobs: int = 1,
    expected: Expectation | None = None,
    progress: bool | None = None,
    **shown: Any,
) -> int:
    """Do it, and say with which status to end. For each see `sipc send --help`.

    Times are seconds, None is no limit; `waits` is whether there was a --wait at all. With a
    `separator` the input is cut into records. Raises SipcError, CutShort.
    """
    endpoint = resolve_endpoint(path)
    with make_diagnostics(endpoint.path, progress=progress, **shown) as sight:
        deadline = Deadline(max_time)
        records = separator is not None
        source = None if data is not None else _open_input(data_file or "-", deadline, records)
        sight.open(source, records=records)
        way = ConnectOptions(
            endpoint,
            spawn,
            connect_timeout=connect_timeout,
            wait=wait,
            waits=waits,
            deadline=deadline,
            sight=sight,
        )
        if source is not None and separator is not None:
            from simpleipc_cli.cli.send.records import send_records  # noqa: PLC0415

            target = sight.cover(open_output(output, deadline))
            return send_records(source, target, way, separator=separator, jobs=jobs)
        first: Buffer = os.fsencode(data or "")
        if source is not None:
            first = _first_of(source, endpoint)
        target = sight.cover(open_output(output, deadline))
        if expected is not None:
            target = expected.guard(target, deadline)
        _send_one(first, source if first and source and not source.ended else None, target, way)
    return ExitCode.OK


def _send_one(first: Buffer, more: Input | None, target: Output, way: ConnectOptions) -> None:
    """One request, one answer."""
    try:
        target.begin()
        stream = way.sight.watch(way.connect_with_retry())
        exchange(stream, first, None if more is None else more.more, target.write, way.deadline)
        target.complete()
    finally:
        target.abandon()


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
                self.endpoint.locate,
                connect_timeout=self.connect_timeout,
                wait=wait if self.spawn is None else None,
                deadline=self.deadline,
            )
        except (NotListening, PathNotFound):
            if self.spawn is None:
                raise
        from simpleipc_cli.autostart import reach_or_start  # noqa: PLC0415 - most do without

        return reach_or_start(
            self.endpoint,
            self.spawn,
            os.environ,
            connect_timeout=self.connect_timeout,
            wait=wait,
            deadline=self.deadline,
        )


def _first_of(source: Input, endpoint: Endpoint) -> memoryview:
    """The first bytes. If they do not come in time, where they were to go may be missing, too."""
    try:
        return source.first()
    except TimedOut:
        finding = look(endpoint.locate, timeout=None, deadline=Deadline(0.0))
        if finding.error is not None:
            raise finding.error from None
        raise


def _open_input(name: str, deadline: Deadline, records: bool) -> Input:
    if name == "-" and os.isatty(STDIN):
        what = "records" if records else "the request"
        print_error(f"sipc send: reading {what} from the terminal: end it with Ctrl-D")
    return open_input(name, deadline)
