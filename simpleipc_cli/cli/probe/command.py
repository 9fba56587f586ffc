"""`sipc probe`: its options, and which can be combined."""

from __future__ import annotations

import os
from typing import Any

import click

from simpleipc_cli.cli.options import (
    Verb,
    duration_option,
    expect_option,
    expect_regex_option,
    expectation,
    option_given,
    path_argument,
    text_option,
    wait_option,
)
from simpleipc_cli.cli.probe.run import ProbeOptions, run

HELP = """Check whether a server is listening on PATH.

Connects and closes without sending a byte. Exit status: 0 listening, 3 not listening,
4 no such path, 5 not a socket, 8 permission denied. Without PATH: $SIPC_PATH, else
sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

With --data it sends a request, too. The exit status is also 6 if there is no response in
time, 7 if it is truncated or malformed, and 10 if it is not as expected.

Durations: 500ms, 2s, 1m30s; 0 means no limit.
"""

EXAMPLES = """\b
Examples:
  sipc probe -q demo.sock && echo 'the server is listening'
  sipc probe --wait 10s demo.sock"""


@click.command(cls=Verb, help=HELP, epilog=EXAMPLES)
@path_argument
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; see the exit status.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all details.")
@wait_option
@duration_option(
    "--wait-gone",
    help="Keep probing until no server listens; then exit with status 0.",
)
@duration_option(
    "-t",
    "--timeout",
    default=f"{ProbeOptions.timeout:g}s",
    help="Maximum time to wait while the server's queue is full, and, with --data, for the "
    "response.",
)
@text_option("-d", "--data", help="Send TEXT, and check the response.")
@expect_option
@expect_regex_option
@click.pass_context
def probe(
    ctx: click.Context,
    /,
    data: str | None,
    expect: str | None,
    expect_regex: str | None,
    **given: Any,
) -> int:
    """Run `sipc probe`."""
    has_wait, has_wait_gone = option_given(ctx, "wait"), option_given(ctx, "wait_gone")
    if has_wait and has_wait_gone:
        raise click.UsageError("--wait cannot be combined with --wait-gone")
    expected = expectation(expect, expect_regex)
    if data is None and expected is not None:
        raise click.UsageError("--expect and --expect-regex require --data (it may be empty)")
    if has_wait_gone and data is not None:
        raise click.UsageError("--data cannot be combined with --wait-gone")
    return run(
        ProbeOptions(
            **given,
            has_wait=has_wait,
            has_wait_gone=has_wait_gone,
            data=None if data is None else os.fsencode(data),
            expected=expected,
        )
    )
