"""`sipc probe`: options in, a look at the endpoint, a line out."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from simpleipc_cli.cli.exitcodes import ExitCode, exit_code
from simpleipc_cli.cli.extras import expectation_of
from simpleipc_cli.cli.options import (
    DURATION,
    chosen_endpoint,
    expect_options,
    path_argument,
    was_given,
)
from simpleipc_cli.cli.render import printable
from simpleipc_cli.cli.streams import print_line
from simpleipc_cli.client import Finding, look, look_until_gone
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import Busy, NotListening, PathNotFound, SipcError
from simpleipc_cli.transport import inspect

if TYPE_CHECKING:
    from simpleipc_cli.cli.question import Question

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
    default="3s",
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
    waits, waits_gone = was_given(ctx, "wait"), was_given(ctx, "wait_gone")
    if waits and waits_gone:
        raise click.UsageError("give --wait or --wait-gone, not both")
    question = _question(data, expect, expect_regex)
    if waits_gone and question is not None:
        raise click.UsageError("give --wait-gone or --data, not both")
    endpoint = chosen_endpoint(path)
    if waits_gone:
        finding = look_until_gone(endpoint.locate, timeout=timeout, wait=Deadline(wait_gone))
        status = _status_of_gone(finding)
    else:
        finding = look(
            endpoint.locate,
            timeout=timeout,
            wait=Deadline(wait) if waits else None,
            question=None if question is None else question.ask,
        )
        error = _error(finding, question)
        status = ExitCode.OK if error is None else exit_code(error)
    if finding.error is not None and status is ExitCode.FAILURE and not as_json:
        raise finding.error  # no state of the endpoint: something kept us from looking
    if as_json:
        print_line(json.dumps(_details(endpoint.path, finding, question)))
    elif not quiet:
        outcome = f", {question.outcome}" if question is not None and question.asked else ""
        print_line(printable(f"{endpoint.path}: {finding.state}{outcome}"))
        if question is not None and question.error is not None:
            raise question.error  # in what an answer differs takes more than a word
    return status


def _question(data: str | None, expect: str | None, expect_regex: str | None) -> Question | None:
    """Loaded only if there is one."""
    if data is None:
        if expect is not None or expect_regex is not None:
            raise click.UsageError("to expect an answer, ask: give --data, too (--data '' is fine)")
        return None
    from simpleipc_cli.cli.question import Question  # noqa: PLC0415

    return Question(os.fsencode(data), expectation_of(expect, expect_regex))


def _error(finding: Finding, question: Question | None) -> SipcError | None:
    """What is wrong: nobody there comes before no good answer."""
    return finding.error or (None if question is None else question.error)


def _status_of_gone(finding: Finding) -> ExitCode:
    """Nobody there is what was hoped for; somebody, or not knowing, is not."""
    if finding.error is None or isinstance(finding.error, Busy):
        return ExitCode.TIMEOUT
    if isinstance(finding.error, (NotListening, PathNotFound)):
        return ExitCode.OK
    return exit_code(finding.error)


def _details(path: str, finding: Finding, question: Question | None) -> dict[str, object]:
    """What --json tells; null is what could not be found out."""
    error = _error(finding, question)
    return {
        "path": path,
        "state": finding.state,
        "reason": None if error is None else str(error),
        **inspect(path),
        "pid": finding.peer.pid if finding.peer else None,
        "uid": finding.peer.uid if finding.peer else None,
        "connect_seconds": round(finding.seconds, 6),
        **({} if question is None else question.details()),
    }
