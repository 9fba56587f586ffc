"""`sipc send`: options in, one exchange, the answer out."""

from __future__ import annotations

import os
import signal

import click

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.options import DURATION, chosen_endpoint, path_argument, was_given
from simpleipc_cli.cli.render import say
from simpleipc_cli.cli.streams import STDIN, Input, open_output
from simpleipc_cli.client import exchange, look, reach
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import NotListening, PathNotFound, SipcError, TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.transport import Stream


@click.command()
@path_argument
@click.option("-d", "--data", metavar="TEXT", help="Send TEXT, exactly as it is.")
@click.option("--data-file", metavar="FILE", help="Send what is in FILE; - is standard input.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write the answer to FILE, which appears only when the answer is complete.",
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
@click.option(
    "--spawn",
    metavar="CMD",
    help="When nobody listens, start CMD, a shell command line, wait until somebody does (10s, "
    "or as long as --wait says), and go on.",
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
    spawn: str | None,
) -> int:
    """Send one request to PATH, from standard input, and print the answer.

    Both are passed on as they come, whatever their size. Without PATH: $SIPC_PATH, else
    sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    What --spawn starts finds the endpoint's path in SIPC_PATH, and stays when this client and
    its terminal are gone. Many clients at once start one. What it writes to standard error is
    shown if it fails to start, else dropped; when it does not listen in time it is ended.

    Durations: 500ms, 2s, 1m30s; 0 is no limit.
    """
    if spawn is not None:
        if not spawn.strip():
            raise click.UsageError("the command after --spawn is empty")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take CMD's status
    if data is not None and data_file is not None:
        raise click.UsageError("give --data or --data-file, not both")
    deadline = Deadline(max_time)
    source = None if data is not None else _open_input(data_file, deadline)
    endpoint = chosen_endpoint(path)
    first = os.fsencode(data or "") if source is None else _first_of(source, endpoint)
    more = source.more if source is not None and first else None
    target = open_output(output, deadline)
    try:
        target.begin()
        stream = _reach(
            endpoint,
            spawn,
            connect_timeout=connect_timeout,
            wait=Deadline(wait) if was_given(ctx, "wait") else None,
            deadline=deadline,
        )
        exchange(stream, first, more, target.write, deadline)
        target.complete()
    finally:
        target.abandon()
    return ExitCode.OK


def _reach(
    endpoint: Endpoint,
    spawn: str | None,
    *,
    connect_timeout: float | None,
    wait: Deadline | None,
    deadline: Deadline,
) -> Stream:
    """Connect, if need be to a server that is started for it."""
    try:
        return reach(
            endpoint.locate,
            connect_timeout=connect_timeout,
            wait=wait if spawn is None else None,
            deadline=deadline,
        )
    except (NotListening, PathNotFound):
        if spawn is None:
            raise
    from simpleipc_cli.ondemand import reach_or_start  # noqa: PLC0415 - most sends do without

    return reach_or_start(
        endpoint,
        spawn,
        os.environ,
        connect_timeout=connect_timeout,
        wait=wait,
        deadline=deadline,
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


def _open_input(data_file: str | None, deadline: Deadline) -> Input:
    if data_file is None or data_file == "-":
        if os.isatty(STDIN):
            say("sipc send: reading the request from the terminal: end it with Ctrl-D")
        return Input(STDIN, "standard input", deadline)
    try:
        return Input(os.open(data_file, os.O_RDONLY | os.O_CLOEXEC), data_file, deadline)
    except OSError as error:
        raise SipcError(
            f"cannot read {data_file}: {error.strerror}", "check its name and mode"
        ) from error
