"""`sipc send`: options in, one exchange, the answer out."""

from __future__ import annotations

import os
import signal
from typing import Any

import click

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.extras import expectation_of, sight_of
from simpleipc_cli.cli.options import (
    DURATION,
    chosen_endpoint,
    expect_options,
    path_argument,
    trace_options,
    was_given,
)
from simpleipc_cli.cli.render import say
from simpleipc_cli.cli.streams import STDIN, Input, open_input, open_output
from simpleipc_cli.client import exchange, look, reach
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import NotListening, PathNotFound, TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.extras import NoSight
    from simpleipc_cli.cli.sight import Sight
    from simpleipc_cli.cli.streams import Output
    from simpleipc_cli.transport import Stream

EXAMPLES = """\b
Examples:
  echo hello | sipc send demo.sock
  sipc send demo.sock --wait 10s -d ping -o answer.bin"""


@click.command(epilog=EXAMPLES)
@path_argument
@click.option("-d", "--data", metavar="TEXT", help="Send TEXT, exactly as it is.")
@click.option("--data-file", metavar="FILE", help="Send what is in FILE; - is standard input.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write the answer to FILE, which appears only when the answer is complete, or all are.",
)
@click.option(
    "--connect-timeout",
    metavar="DURATION",
    type=DURATION,
    default="1s",
    show_default=True,
    help="Longest time to wait for room in the queue of a busy server.",
)
@click.option(
    "-m",
    "--max-time",
    metavar="DURATION",
    type=DURATION,
    default="0",
    show_default=True,
    help="Longest time for everything.",
)
@click.option(
    "--wait",
    metavar="DURATION",
    type=DURATION,
    help="Keep trying while the endpoint is missing, refuses or is busy.",
)
@click.option("--lines", is_flag=True, help="Send every line as a request of its own.")
@click.option("-0", "--null", is_flag=True, help="The same for what is separated by NULs.")
@click.option(
    "-j",
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Most requests at once, with --lines or --null.",
)
@click.option(
    "--spawn",
    metavar="CMD",
    help="When nobody listens, start CMD, a shell command line, wait until somebody does (10s, "
    "or as long as --wait says), and go on.",
)
@expect_options
@trace_options
@click.option(
    "--stats",
    is_flag=True,
    help="Show figures on stderr at the end, also of a failure: one line, a JSON object.",
)
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show how far it is. By itself, on a terminal, after a second.",
)
@click.pass_context
def send(
    ctx: click.Context,
    /,
    path: str | None,
    data: str | None,
    data_file: str | None,
    output: str | None,
    connect_timeout: float | None,
    max_time: float | None,
    wait: float | None,
    spawn: str | None,
    lines: bool,
    null: bool,
    jobs: int,
    expect: str | None,
    expect_regex: str | None,
    **shown: Any,
) -> int:
    """Send one request to PATH, from standard input, and print the answer.

    Both are passed on as they come, whatever their size. Without PATH: $SIPC_PATH, else
    sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    With --lines or --null every record of the input is a request of its own. Answers come in
    the order of the records. One that fails is told of with its number, the others go on, and
    the exit status is that of the first that failed.

    Durations: 500ms, 2s, 1m30s; 0 is no limit.
    """
    records = lines or null
    if spawn is not None and not spawn.strip():
        raise click.UsageError("the command after --spawn is empty")
    if data is not None and data_file is not None:
        raise click.UsageError("give --data or --data-file, not both")
    if lines and null:
        raise click.UsageError("give --lines or --null, not both")
    if records and data is not None:
        raise click.UsageError("records come from standard input or --data-file, not --data")
    if not records and was_given(ctx, "jobs"):
        raise click.UsageError("--jobs goes with --lines or --null")
    expected = expectation_of(expect, expect_regex)
    if records and expected is not None:
        raise click.UsageError("what is expected goes with one request, not with records")
    endpoint = chosen_endpoint(path)
    with sight_of(endpoint.path, **shown) as sight:
        deadline = Deadline(max_time)
        source = None if data is not None else _open_input(data_file or "-", deadline, records)
        sight.open(source, records=records)
        way = Way(
            endpoint,
            spawn,
            connect_timeout=connect_timeout,
            wait=wait,
            waits=was_given(ctx, "wait"),
            deadline=deadline,
            sight=sight,
        )
        if source is not None and records:
            from simpleipc_cli.cli.send_records import NEWLINE, NUL, send_records  # noqa: PLC0415

            target = sight.cover(open_output(output, deadline))
            return send_records(source, target, way, separator=NUL if null else NEWLINE, jobs=jobs)
        first = os.fsencode(data or "") if source is None else _first_of(source, endpoint)
        target = sight.cover(open_output(output, deadline))
        if expected is not None:
            target = expected.guard(target, deadline)
        _send_one(first, source if first else None, target, way)
    return ExitCode.OK


def _send_one(first: bytes, more: Input | None, target: Output, way: Way) -> None:
    """One request, one answer."""
    try:
        target.begin()
        stream = way.sight.watch(way.reach())
        exchange(stream, first, None if more is None else more.more, target.write, way.deadline)
        target.complete()
    finally:
        target.abandon()


class Way:
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
        sight: Sight | NoSight,
    ) -> None:
        """Times are seconds, None is no limit; `waits` is whether --wait was given."""
        self.endpoint = endpoint
        self.spawn = spawn
        self.connect_timeout = connect_timeout
        self.wait = wait
        self.waits = waits
        self.deadline = deadline
        self.sight = sight

    def reach(self) -> Stream:
        """Connect, if need be to a server that is started for it. Raises EndpointError."""
        wait = Deadline(self.wait) if self.waits else None
        try:
            return reach(
                self.endpoint.locate,
                connect_timeout=self.connect_timeout,
                wait=wait if self.spawn is None else None,
                deadline=self.deadline,
            )
        except (NotListening, PathNotFound):
            if self.spawn is None:
                raise
        from simpleipc_cli.ondemand import reach_or_start  # noqa: PLC0415 - most do without

        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take CMD's status
        return reach_or_start(
            self.endpoint,
            self.spawn,
            os.environ,
            connect_timeout=self.connect_timeout,
            wait=wait,
            deadline=self.deadline,
        )


def _first_of(source: Input, endpoint: Endpoint) -> bytes:
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
        say(f"sipc send: reading {what} from the terminal: end it with Ctrl-D")
    return open_input(name, deadline)
