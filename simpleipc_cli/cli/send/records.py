"""Run `sipc send --lines` and `--null`: many requests in one process."""

from __future__ import annotations

from itertools import count

from simpleipc_cli.batch.batch import Batch
from simpleipc_cli.batch.connector import Connector
from simpleipc_cli.cli.exitcodes import exit_code
from simpleipc_cli.cli.output import MessageOutput, open_output
from simpleipc_cli.cli.parse import resolve_endpoint, spool_folders
from simpleipc_cli.cli.send.run import Diagnostics, SendOptions, connect, open_source
from simpleipc_cli.cli.stdio import format_error
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import NotListening, PathNotFound, SipcError
from simpleipc_cli.system import count_open_fds, get_fd_limits, set_fd_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.transport import Stream

_RESERVED_FDS = 16  # for files that are open for a short time (tunable)
_SPOOL_FDS = 64  # for spools of waiting responses (tunable)


def run_records(options: SendOptions, *, separator: bytes, jobs: int) -> int:
    """Send each record as one request; return the exit status of the first failed record.

    Raises SipcError, Terminated.
    """
    endpoint = resolve_endpoint(options.path)
    with Diagnostics(options, endpoint) as diagnostics:

        def describe(number: int, error: SipcError) -> bytes:
            diagnostics.hide_bar()
            line = format_error(f"send: record {number}", error)
            return line.encode("utf-8", "backslashreplace") + b"\n"

        deadline = Deadline(options.max_time)
        source = open_source(options, endpoint, deadline, "records")
        diagnostics.open(source, has_records=True)
        target = open_output(options.output, deadline)
        diagnostics.hide_progress_before(target)
        connector = Connector(
            _connect_nowait(options, endpoint, deadline, diagnostics),
            timeout=options.wait if options.has_wait else options.connect_timeout,
            waits=options.has_wait,
        )
        try:
            target.open()
            batch = Batch(
                source,
                target,
                MessageOutput(deadline),
                connector,
                separator=separator,
                jobs=jobs,
                descriptors=_max_fds(jobs),
                spool_folders=spool_folders(),
                deadline=deadline,
                describe=describe,
            )
            error = batch.run()
            if error is None:
                target.commit()
            else:
                diagnostics.failure = error
        finally:
            target.close()
    return exit_code(error)


def _connect_nowait(
    options: SendOptions,
    endpoint: Endpoint,
    deadline: Deadline,
    diagnostics: Diagnostics,
) -> Callable[[], Stream]:
    """Return a function that connects without waiting, except when it starts a server."""
    number = count(1)
    may_start = options.spawn is not None

    def connect_nowait() -> Stream:
        nonlocal may_start
        try:
            stream = endpoint.connect(Deadline(0.0))
        except (NotListening, PathNotFound):
            if not may_start:
                raise
            may_start = False  # if the start fails, do not try again for every record
            stream = connect(options, endpoint, deadline)
            may_start = True
        return diagnostics.observe(stream, next(number))

    return connect_nowait


def _max_fds(jobs: int) -> int:
    """Return the number of descriptors that can be opened; raise the soft limit if necessary."""
    soft, hard = get_fd_limits()
    used = count_open_fds() + _RESERVED_FDS
    wanted = used + 2 * jobs + _SPOOL_FDS
    new = min(wanted, hard)
    if soft < new and set_fd_limit(new):  # if it fails, fewer requests are in flight
        soft = new
    return soft - used
