"""`sipc send`: its options, and which can be combined."""

from __future__ import annotations

from typing import Any

import click

from simpleipc_cli.cli.options import (
    Verb,
    count_option,
    duration_option,
    expect_option,
    expect_regex_option,
    expectation,
    file_option,
    option_given,
    path_argument,
    text_option,
    trace_file_option,
    trace_option,
    wait_option,
)
from simpleipc_cli.cli.send.run import SendOptions, run

HELP = """Send one request to PATH, from standard input, and print the response.

Both are streamed, at any size. Without PATH: $SIPC_PATH, else sipc.sock in $XDG_RUNTIME_DIR, else
in /tmp/sipc-UID.

With --lines or --null each record of the input is a separate request. Responses are printed in the
order of the records. If a record fails, its number is reported, the other records continue, and the
exit status is that of the first failed record.

Durations: 500ms, 2s, 1m30s; 0 means no limit.
"""

EXAMPLES = """\b
Examples:
  echo hello | sipc send demo.sock
  sipc send demo.sock --wait 10s -d ping -o response.bin"""


@click.command(cls=Verb, help=HELP, epilog=EXAMPLES)
@path_argument
@text_option("-d", "--data", help="Send TEXT without changes.")
@file_option("--data-file", help="Send the content of FILE; - is standard input.")
@file_option(
    "-o",
    "--output",
    help="Write the response to FILE, which appears only when it is complete, or all "
    "responses are.",
)
@duration_option(
    "--connect-timeout",
    default=f"{SendOptions.connect_timeout:g}s",
    help="Maximum time to wait while the server's queue is full.",
)
@duration_option(
    "-m",
    "--max-time",
    default="0",
    help="Maximum time of the whole command.",
)
@wait_option
@click.option("--lines", is_flag=True, help="Send each line as a separate request.")
@click.option("-0", "--null", is_flag=True, help="Like --lines, with NUL as separator.")
@count_option(
    "-j",
    "--jobs",
    default=1,
    help="Have at most N requests in flight, with --lines or --null.",
)
@click.option(
    "--spawn",
    metavar="CMD",
    help="If no server listens, start CMD, a shell command line, and wait until it listens: at "
    "most 10s, or the time of --wait.",
)
@expect_option
@expect_regex_option
@trace_option
@trace_file_option
@click.option(
    "--stats",
    is_flag=True,
    help="Print statistics to stderr at the end, also after a failure: one JSON object.",
)
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show progress.  [default: on a terminal, after one second]",
)
@click.pass_context
def send(
    ctx: click.Context,
    /,
    lines: bool,
    null: bool,
    jobs: int,
    expect: str | None,
    expect_regex: str | None,
    **given: Any,
) -> int:
    """Run `sipc send`."""
    expected = expectation(expect, expect_regex)
    options = SendOptions(**given, has_wait=option_given(ctx, "wait"), expected=expected)
    if options.spawn is not None and not options.spawn.strip():
        raise click.UsageError("the command after --spawn is empty")
    if options.data is not None and options.data_file is not None:
        raise click.UsageError("--data cannot be combined with --data-file")
    if not (lines or null):
        if option_given(ctx, "jobs"):
            raise click.UsageError("--jobs requires --lines or --null")
        return run(options)
    if lines and null:
        raise click.UsageError("--lines cannot be combined with --null")
    if options.data is not None:
        raise click.UsageError("--data cannot be combined with --lines or --null")
    if expected is not None:
        raise click.UsageError("--expect cannot be combined with --lines or --null")
    from simpleipc_cli.cli.send.records import run_records  # noqa: PLC0415 - only for records

    return run_records(options, separator=b"\0" if null else b"\n", jobs=jobs)
