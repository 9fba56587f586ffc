"""`sipc send`: what its options are, and which go together."""

from __future__ import annotations

from typing import Any

import click

from simpleipc_cli.cli.options import (
    DURATION,
    expect_options,
    option_given,
    path_argument,
    trace_options,
)
from simpleipc_cli.cli.send.lazy_diagnostics import expectation_of
from simpleipc_cli.cli.send.run import CONNECT_TIMEOUT, MAX_TIME, run

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
    default=CONNECT_TIMEOUT,
    show_default=True,
    help="Longest time to wait for room in the queue of a busy server.",
)
@click.option(
    "-m",
    "--max-time",
    metavar="DURATION",
    type=DURATION,
    default=MAX_TIME,
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
    if not records and option_given(ctx, "jobs"):
        raise click.UsageError("--jobs goes with --lines or --null")
    expected = expectation_of(expect, expect_regex)
    if records and expected is not None:
        raise click.UsageError("what is expected goes with one request, not with records")
    return run(
        path,
        data=data,
        data_file=data_file,
        output=output,
        connect_timeout=connect_timeout,
        max_time=max_time,
        wait=wait,
        waits=option_given(ctx, "wait"),
        spawn=spawn,
        separator=(b"\0" if null else b"\n") if records else None,
        jobs=jobs,
        expected=expected,
        **shown,
    )
