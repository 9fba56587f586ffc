"""`sipc probe`: what its options are, and which go together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from simpleipc_cli.cli.options import DURATION, expect_options, option_given, path_argument
from simpleipc_cli.cli.probe.run import TIMEOUT, run
from simpleipc_cli.cli.send.lazy_diagnostics import expectation_of

if TYPE_CHECKING:
    from simpleipc_cli.cli.probe.request import ProbeRequest

EXAMPLES = """\b
Examples:
  sipc probe -q demo.sock && echo 'somebody is there'
  sipc probe --wait 10s demo.sock"""


@click.command(epilog=EXAMPLES)
@path_argument
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit status says it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all details.")
@click.option(
    "--wait",
    metavar="DURATION",
    type=DURATION,
    help="Keep trying while the endpoint is missing, refuses or is busy.",
)
@click.option(
    "--wait-gone",
    metavar="DURATION",
    type=DURATION,
    help="Keep looking until nobody is listening any more; then the status is 0.",
)
@click.option(
    "-t",
    "--timeout",
    metavar="DURATION",
    type=DURATION,
    default=TIMEOUT,
    show_default=True,
    help="Longest time to wait for room in the queue of a busy server; with --data, for the "
    "answer, too.",
)
@click.option("-d", "--data", metavar="TEXT", help="Not only connect: send TEXT, see the answer.")
@expect_options
@click.pass_context
def probe(
    ctx: click.Context,
    path: str | None,
    quiet: bool,
    as_json: bool,
    wait: float | None,
    wait_gone: float | None,
    timeout: float | None,
    data: str | None,
    expect: str | None,
    expect_regex: str | None,
) -> int:
    """See whether anybody is listening on PATH.

    Connects and hangs up, without a byte. The exit status: 0 listening, 3 nobody is,
    4 no such path, 5 no socket, 8 not permitted. Without PATH: $SIPC_PATH, else sipc.sock
    in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    With --data it asks, too, and the status is 6 for no answer in time, 7 for half of one
    or nonsense, and 10 for one that is not as expected.

    Durations: 500ms, 2s, 1m30s; 0 is no limit.
    """
    waits, waits_gone = option_given(ctx, "wait"), option_given(ctx, "wait_gone")
    if waits and waits_gone:
        raise click.UsageError("give --wait or --wait-gone, not both")
    question = _question(data, expect, expect_regex)
    if waits_gone and question is not None:
        raise click.UsageError("give --wait-gone or --data, not both")
    return run(
        path,
        quiet=quiet,
        as_json=as_json,
        wait=wait,
        waits=waits,
        wait_gone=wait_gone,
        waits_gone=waits_gone,
        timeout=timeout,
        question=question,
    )


def _question(
    data: str | None, expect: str | None, expect_regex: str | None
) -> ProbeRequest | None:
    """Loaded only if there is one."""
    if data is None:
        if expect is not None or expect_regex is not None:
            raise click.UsageError("to expect an answer, ask: give --data, too (--data '' is fine)")
        return None
    from simpleipc_cli.cli.probe.request import ProbeRequest  # noqa: PLC0415

    return ProbeRequest(os.fsencode(data), expectation_of(expect, expect_regex))
