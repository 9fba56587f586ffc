"""Run `sipc send` for one request. Loads little: see cli/parse.py."""

from __future__ import annotations

import os
from time import monotonic

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.output import open_output
from simpleipc_cli.cli.parse import resolve_endpoint
from simpleipc_cli.cli.stdio import STDERR, STDIN, open_input, print_error
from simpleipc_cli.client import connect_with_retry, exchange, probe
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import NotListening, PathNotFound, TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.cli.output import Output
    from simpleipc_cli.cli.send import SendOptions
    from simpleipc_cli.cli.send.diagnostics import Diagnostics
    from simpleipc_cli.cli.stdio import Input
    from simpleipc_cli.endpoint import Endpoint
    from simpleipc_cli.errors import SipcError
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Stream


def run(options: SendOptions) -> int:
    """Send one request and write the response; return the exit status.

    Raises SipcError, Terminated.
    """
    endpoint = resolve_endpoint(options.path)
    with make_diagnostics(options, endpoint.path) as diagnostics:
        deadline = Deadline(options.max_time)
        source = target = None
        read_more: Callable[[], Buffer] | None = None
        first_chunk: Buffer = os.fsencode(options.data or "")
        try:
            if options.data is None:
                source = open_source(options, deadline, "the request")
            diagnostics.open(source)
            if source is not None:
                first_chunk = _read_first(source, endpoint)
                if first_chunk and not source.at_eof:
                    read_more = source.read_more
            target = open_output(options.output, deadline)
            diagnostics.hide_progress_before(target)
            target.open()
            stream = diagnostics.observe(connect(options, endpoint, deadline))
            exchange(stream, first_chunk, read_more, _on_data(options, target), deadline)
            if options.expected is not None:
                options.expected.check(deadline)
            target.commit()
        finally:
            for resource in (source, target, options.expected):
                if resource is not None:
                    resource.close()
    return ExitCode.OK


def _on_data(options: SendOptions, target: Output) -> Callable[[memoryview], None]:
    """Return the function that gets the response."""
    expected = options.expected
    if expected is None:
        return target.write

    def check_and_write(payload: memoryview) -> None:
        expected.feed(payload)
        target.write(payload)

    return check_and_write


def open_source(options: SendOptions, deadline: Deadline, content: str) -> Input:
    """Open the input, and say so if it is a terminal. Raises SipcError."""
    name = options.data_file or "-"
    if name == "-" and os.isatty(STDIN):
        print_error(f"sipc send: reading {content} from the terminal: end it with Ctrl-D")
    return open_input(name, deadline)


def _read_first(source: Input, endpoint: Endpoint) -> memoryview:
    """Read the first data. If none arrives in time, report a missing server instead."""
    try:
        return source.read_first()
    except TimedOut:
        result = probe(endpoint.path_checked, timeout=None, deadline=Deadline(0.0))
        if result.error is not None:
            raise result.error from None
        raise


def connect(options: SendOptions, endpoint: Endpoint, deadline: Deadline) -> Stream:
    """Connect; with --spawn, start a server if none listens. Raises EndpointError."""
    wait = Deadline(options.wait) if options.has_wait else None
    try:
        return connect_with_retry(
            endpoint.path_checked,
            connect_timeout=options.connect_timeout,
            wait=wait if options.spawn is None else None,
            deadline=deadline,
        )
    except (NotListening, PathNotFound):
        if options.spawn is None:
            raise
    from simpleipc_cli.autostart import connect_or_start  # noqa: PLC0415 - only for --spawn

    return connect_or_start(
        endpoint,
        options.spawn,
        os.environ,
        connect_timeout=options.connect_timeout,
        wait=wait,
        deadline=deadline,
    )


def make_diagnostics(options: SendOptions, path: str) -> Diagnostics | NullDiagnostics:
    """Return what the options ask for; it is loaded only if something may be shown."""
    progress = os.isatty(STDERR) if options.progress is None else options.progress
    if not (progress or options.trace or options.trace_file is not None or options.stats):
        return NullDiagnostics()
    started_at = monotonic()  # includes the time to load the module
    from simpleipc_cli.cli.send.diagnostics import Diagnostics  # noqa: PLC0415

    return Diagnostics(options, path, started_at)


class NullDiagnostics:
    """Shows nothing. Has the methods of Diagnostics."""

    def __enter__(self) -> NullDiagnostics:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self, source: Input | None, *, has_records: bool = False) -> None:
        pass

    def observe(self, stream: Stream, number: int = 1) -> Stream:  # noqa: ARG002
        return stream

    def hide_progress_before(self, output: Output) -> None:
        pass

    def hide_progress(self) -> None:
        pass

    def record_failure(self, error: SipcError) -> None:
        pass
