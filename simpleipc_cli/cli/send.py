"""`sipc send`: options in, one exchange, the answer out."""

from __future__ import annotations

import os

import click

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.options import DURATION, chosen_endpoint, path_argument, was_given
from simpleipc_cli.cli.render import say
from simpleipc_cli.cli.streams import STDIN, Input, open_output
from simpleipc_cli.client import exchange, look, reach
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import SipcError, TimedOut


@click.command()
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
@click.pass_context
def send(
    ctx: click.Context,
    path: str | None,
    data: str | None,
    data_file: str | None,
    output: str | None,
    connect_timeout: float | None,
    max_time: float | None,
    wait: float | None,
    lines: bool,
    null: bool,
    jobs: int,
) -> int:
    """Send one request to PATH, from standard input, and print the answer.

    Both are passed on as they come, whatever their size. Without PATH: $SIPC_PATH, else
    sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    Durations: 500ms, 2s, 1m30s; 0 is no limit.

    With --lines or --null every record of the input is a request of its own, sent as soon as
    it is complete, and its answer is ended by a newline unless it ends with one (--null: by a
    NUL in any case). Answers come in the order of the records; those whose turn it is not wait
    on disk, in $TMPDIR or /var/tmp, and while 1000 or 1 GiB of them do, no record is begun.

    A record that fails is told of on standard error with its number. In its place in the output
    stands what had come of its answer, ended in the same way: often an empty line. The others
    go on, and the exit status is that of the first record, in their order, that failed.
    --connect-timeout and --wait are for each record, --max-time is for all.
    """
    if data is not None and data_file is not None:
        raise click.UsageError("give --data or --data-file, not both")
    if lines or null:
        if lines and null:
            raise click.UsageError("give --lines or --null, not both")
        if data is not None:
            raise click.UsageError("records come from standard input or --data-file, not --data")
    elif was_given(ctx, "jobs"):
        raise click.UsageError("--jobs goes with --lines or --null")
    deadline = Deadline(max_time)
    what = "records" if lines or null else "the request"
    source = None if data is not None else _open_input(data_file, deadline, what)
    endpoint = chosen_endpoint(path)
    if source is not None and (lines or null):
        from simpleipc_cli.cli.send_records import NEWLINE, NUL, send_records  # noqa: PLC0415

        return send_records(
            source,
            open_output(output, deadline),
            endpoint,
            separator=NUL if null else NEWLINE,
            jobs=jobs,
            connect_timeout=connect_timeout,
            wait=wait,
            waits=was_given(ctx, "wait"),
            deadline=deadline,
        )
    first = os.fsencode(data or "") if source is None else _first_of(source, endpoint)
    more = source.more if source is not None and first else None
    target = open_output(output, deadline)
    try:
        target.begin()
        stream = reach(
            endpoint.locate,
            connect_timeout=connect_timeout,
            wait=Deadline(wait) if was_given(ctx, "wait") else None,
            deadline=deadline,
        )
        exchange(stream, first, more, target.write, deadline)
        target.complete()
    finally:
        target.abandon()
    return ExitCode.OK


def _first_of(source: Input, endpoint: Endpoint) -> bytes:
    """The first bytes. If they do not come in time, where they were to go may be missing, too."""
    try:
        return source.first()
    except TimedOut:
        finding = look(endpoint.locate, timeout=None, deadline=Deadline(0.0))
        if finding.error is not None:
            raise finding.error from None
        raise


def _open_input(data_file: str | None, deadline: Deadline, what: str) -> Input:
    if data_file is None or data_file == "-":
        if os.isatty(STDIN):
            say(f"sipc send: reading {what} from the terminal: end it with Ctrl-D")
        return Input(STDIN, "standard input", deadline)
    try:
        return Input(os.open(data_file, os.O_RDONLY | os.O_CLOEXEC), data_file, deadline)
    except OSError as error:
        raise SipcError(
            f"cannot read {data_file}: {error.strerror}", "check its name and mode"
        ) from error
