"""`sipc send --lines` and `--null`: many requests in one process."""

from __future__ import annotations

import os
from itertools import count

from simpleipc_cli.batch.batch import Batch
from simpleipc_cli.batch.connector import Connector
from simpleipc_cli.cli.exitcodes import ExitCode, exit_code
from simpleipc_cli.cli.stdio import Input, MessageOutput, Output
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import NotListening, PathNotFound, ServerBusy, SipcError
from simpleipc_cli.system import SPOOL_FOLDER, UNLIMITED, get_fd_limits, set_fd_limit
from simpleipc_cli.text import printable
from simpleipc_cli.transport import Stream, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.send.run import ConnectOptions

_SPARE = 16  # descriptors for what is opened for a moment, at will
_FOR_WAITING = 64  # descriptors for answers out of turn that are worth raising the limit, at will


def send_records(
    source: Input, target: Output, way: ConnectOptions, *, separator: bytes, jobs: int
) -> int:
    """Send every record as a request of its own; the exit status of the first that failed."""
    number = count(1)
    may_start = way.spawn is not None

    def connect_nowait() -> Stream:
        nonlocal may_start
        try:
            stream: Stream = connect(way.endpoint.locate(), Deadline(0.0))
        except (NotListening, PathNotFound) as error:
            if isinstance(error, ServerBusy) or not may_start:
                raise
            may_start = False  # a command that fails is not tried for every record
            stream = way.connect_with_retry()
            may_start = True
        return way.sight.watch(stream, next(number))

    def describe(number: int, error: SipcError) -> bytes:
        way.sight.give_way()
        return _message(number, error)

    entrance = Connector(
        connect_nowait, connect_timeout=way.connect_timeout, wait=way.wait, waits=way.waits
    )
    try:
        target.begin()
        batch = Batch(
            source,
            target,
            MessageOutput(way.deadline),
            entrance,
            separator=separator,
            jobs=jobs,
            descriptors=_descriptors_for(jobs),
            spool_folder=os.environ.get("TMPDIR") or SPOOL_FOLDER,
            deadline=way.deadline,
            describe=describe,
        )
        failure = batch.run()
        if failure is not None:
            way.sight.failed(failure)
            return exit_code(failure)
        target.complete()
    finally:
        target.abandon()
    return ExitCode.OK


def _message(number: int, error: SipcError) -> bytes:
    line = printable(f"sipc send: record {number}: {error.text}")
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _descriptors_for(jobs: int) -> int:
    """How many more may be opened. The soft limit is raised only if `jobs` need it."""
    soft, hard = get_fd_limits()
    taken = _open_now() + _SPARE
    wanted = taken + 2 * jobs + _FOR_WAITING
    if soft == UNLIMITED:
        return wanted
    if soft < wanted:
        most = wanted if hard == UNLIMITED else min(wanted, hard)
        if set_fd_limit(most, hard):  # else fewer at once
            soft = most
    return soft - taken


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # no /proc here
        return 3
