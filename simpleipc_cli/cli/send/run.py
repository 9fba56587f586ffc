"""Run `sipc send` for one request. Imports few modules: see cli/parse.py."""

from __future__ import annotations

import os
from time import monotonic

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.parse import Options, resolve_endpoint
from simpleipc_cli.cli.stdio import (
    STDERR,
    STDIN,
    format_error,
    named_descriptor,
    open_input,
    print_error,
    standard_output,
)
from simpleipc_cli.client import connect_with_retry, exchange, probe
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import NotListening, PathNotFound, ServerBusy, TimedOut
from simpleipc_cli.text import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from simpleipc_cli.cli.expect import Expectation
    from simpleipc_cli.cli.send.diagnostics import Progress
    from simpleipc_cli.cli.stdio import Input, Output
    from simpleipc_cli.endpoint import Endpoint
    from simpleipc_cli.errors import SipcError
    from simpleipc_cli.observe import Tracer, TransferStats
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Stream

    _Found = TypeVar("_Found")

START_TIMEOUT = 10.0
"""Seconds in which the server of --spawn must listen, unless --wait is given (tunable)."""

_MAX_REQUEST_ID = 64  # bytes to show of SIPC_REQUEST_ID
_WITHOUT_CURSOR = {"", "dumb", "unknown"}  # values of TERM


class SendOptions(Options):
    """The options of `sipc send`; times in seconds, None for no limit."""

    path: str | None = None
    data: str | None = None
    data_file: str | None = None
    output: str | None = None
    connect_timeout: float | None = 1.0
    max_time: float | None = None
    wait: float | None = None
    has_wait: bool = False
    """Whether --wait is given."""
    spawn: str | None = None
    expected: Expectation | None = None
    trace: bool = False
    trace_file: str | None = None
    stats: bool = False
    progress: bool | None = None
    """Whether to show progress; None: only on a suitable terminal."""


def run(options: SendOptions) -> int:
    """Send one request and write the response; return the exit status.

    Raises SipcError, Terminated.
    """
    endpoint = resolve_endpoint(options.path)
    with Diagnostics(options, endpoint) as diagnostics:
        deadline = Deadline(options.max_time)
        expected = options.expected
        source = None
        read_more: Callable[[], Buffer] | None = None
        first_chunk: Buffer = os.fsencode(options.data or "")
        if options.data is None:
            source = open_source(options, endpoint, deadline, "the request")
        diagnostics.open(source)
        if source is not None:
            first_chunk = _wait_for_input(source.read_first, endpoint)
            if first_chunk and not source.at_eof:
                read_more = source.read_more
        target = _open_target(options.output, deadline)
        diagnostics.hide_progress_before(target)
        try:
            target.open()
            stream = diagnostics.observe(connect(options, endpoint, deadline))
            write = target.write

            def on_data(payload: memoryview) -> None:
                if expected is not None:
                    expected.feed(payload)
                write(payload)

            exchange(stream, first_chunk, read_more, on_data, deadline)
            if expected is not None:
                expected.check(deadline)
            target.commit()
        finally:
            target.close()
            if expected is not None:
                expected.close()
    return ExitCode.OK


def _open_target(path: str | None, deadline: Deadline) -> Output:
    """Open the output of the response. Raises SipcError."""
    if path is None:
        return standard_output(deadline)
    from simpleipc_cli.cli.output import open_output  # noqa: PLC0415 - only for files

    return open_output(path, deadline)


def open_source(
    options: SendOptions, endpoint: Endpoint, deadline: Deadline, content: str
) -> Input:
    """Open the input; print a note if it is a terminal. Raises SipcError."""
    name = options.data_file or "-"
    if named_descriptor(name, STDIN) == STDIN and os.isatty(STDIN):
        print_error(f"sipc send: reading {content} from the terminal: end it with Ctrl-D")
    return _wait_for_input(lambda: open_input(name, deadline), endpoint)


def _wait_for_input(wait: Callable[[], _Found], endpoint: Endpoint) -> _Found:
    """Call `wait`. If it raises TimedOut and no server listens, raise that error instead."""
    try:
        return wait()
    except TimedOut:
        result = probe(endpoint.connect, timeout=None, deadline=Deadline(0.0))
        if result.error is not None:
            raise result.error from None
        raise


def connect(options: SendOptions, endpoint: Endpoint, deadline: Deadline) -> Stream:
    """Connect; with --spawn, start a server if none listens. Raises EndpointError."""
    wait = Deadline(options.wait) if options.has_wait else None
    try:
        return connect_with_retry(
            endpoint.connect,
            connect_timeout=options.connect_timeout,
            wait=wait if options.spawn is None else None,
            deadline=deadline,
        )
    except (NotListening, PathNotFound, ServerBusy):
        if options.spawn is None:
            raise
    from simpleipc_cli.autostart import connect_or_start  # noqa: PLC0415 - only for --spawn

    return connect_or_start(
        endpoint,
        options.spawn,
        os.environ,
        connect_timeout=options.connect_timeout if wait is None else None,
        deadline=deadline.capped(START_TIMEOUT if wait is None else wait.remaining()),
    )


class Diagnostics:
    """The trace, statistics and progress display, in a `with` around all exchanges.

    It imports only the modules that the options need.
    """

    def __init__(self, options: SendOptions, endpoint: Endpoint) -> None:
        """Open no files yet: the statistics include errors of open()."""
        self._options = options
        self._endpoint = endpoint
        self._stats: TransferStats | None = None
        self._tracer: Tracer | None = None
        self._progress: Progress | None = None
        self.failure: SipcError | None = None
        """An error that the caller does not raise, for the statistics."""
        if options.stats:
            started_at = monotonic()  # includes the time to load the module
            # Import it now: later there may be no free descriptor.
            import json  # noqa: F401, PLC0415 - for format_stats()

            from simpleipc_cli.cli.send.diagnostics import format_stats  # noqa: PLC0415
            from simpleipc_cli.observe import TransferStats  # noqa: PLC0415

            self._format_stats = format_stats
            self._stats = TransferStats(started_at)

    def __enter__(self) -> Diagnostics:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Remove the bar, close the trace, and print the statistics."""
        if self._progress is not None:
            self._progress.stop()
        if self._tracer is not None:
            self._tracer.close()
        if self._options.stats and self._stats is not None:
            print_error(self._format_stats(self._stats, self._endpoint.path, error or self.failure))

    def open(self, source: Input | None, *, has_records: bool = False) -> None:
        """Open the trace and prepare the progress display, before any byte is read or sent.

        `source` is None if the request is on the command line. With `has_records` the total is
        unknown, as separators are not sent. Raises SipcError if the trace cannot be opened.
        """
        options = self._options
        if options.trace or options.trace_file is not None:
            from simpleipc_cli.cli.line_writer import open_trace  # noqa: PLC0415 - only for these

            self._tracer = open_trace(self._warn, on_stderr=options.trace, path=options.trace_file)
        has_cursor = os.isatty(STDERR) and os.environ.get("TERM", "") not in _WITHOUT_CURSOR
        is_live = not options.trace and has_cursor
        is_typed = source is not None and source.is_terminal
        is_shown = options.progress
        if is_shown is None:
            is_shown = is_live and not is_typed and not os.environ.get("NO_COLOR")
        if is_shown:
            from simpleipc_cli.cli.send.diagnostics import PROGRESS_AFTER, Progress  # noqa: PLC0415
            from simpleipc_cli.observe import TransferStats  # noqa: PLC0415

            self._stats = self._stats or TransferStats()
            self._progress = Progress(
                self._stats,
                None if source is None or has_records else source.size,
                is_live=is_live,
                delay=0.0 if options.progress else PROGRESS_AFTER,
            )

    def observe(self, stream: Stream, number: int = 1) -> Stream:
        """Return the stream to use in place of `stream`; `number` identifies it in this process."""
        if self._progress is not None:
            self._progress.start()
        if self._stats is not None:
            stream = self._stats.observe(stream)
        if self._tracer is not None:
            stream = self._tracer.observe(
                stream, f"{os.getpid()}-{number}", _connect_event(), self._endpoint.path
            )
        return stream

    def hide_progress_before(self, output: Output) -> None:
        """Remove the display when the first part of the response is written to the terminal."""
        if self._progress is not None and output.is_terminal:
            output.before_first_write = self._progress.stop

    def hide_bar(self) -> None:
        """Remove a bar before a message is written to standard error. Lines continue."""
        if self._progress is not None and self._progress.is_live:
            self._progress.stop()

    def _warn(self, error: SipcError) -> None:
        if self._progress is not None:
            self._progress.stop()
        print_error(format_error("send", error))


def _connect_event() -> str:
    """Describe the connection. In a handler of `sipc serve`, name the request that it answers."""
    request = os.environ.get("SIPC_REQUEST_ID")
    if not request:
        return "connected to"
    return f"connected for request {quoted(os.fsencode(request)[:_MAX_REQUEST_ID])} to"
