"""What `sipc probe` does, once it is known what was asked for: a look, and a line.

Loads little: see cli/quick.py.
"""

from __future__ import annotations

from simpleipc_cli.cli.exitcodes import ExitCode, exit_code
from simpleipc_cli.cli.parse import resolve_endpoint
from simpleipc_cli.cli.stdio import print_line
from simpleipc_cli.client import ProbeResult, look, wait_until_gone
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import NotListening, PathNotFound, ServerBusy, SipcError
from simpleipc_cli.text import json_safe, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.probe.request import ProbeRequest

TIMEOUT = "3s"
"""What holds when nothing is said."""


def run(
    path: str | None,
    *,
    quiet: bool,
    as_json: bool,
    wait: float | None,
    waits: bool,
    timeout: float | None,
    wait_gone: float | None = None,
    waits_gone: bool = False,
    question: ProbeRequest | None = None,
) -> int:
    """Do it, and say with which status to end. For each see `sipc probe --help`.

    Times are seconds, None is no limit; `waits` is whether there was a --wait at all.
    Raises SipcError, CutShort.
    """
    endpoint = resolve_endpoint(path)
    if waits_gone:
        finding = wait_until_gone(endpoint.locate, timeout=timeout, wait=Deadline(wait_gone))
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
    if finding.error is not None and status == ExitCode.FAILURE and not as_json:
        raise finding.error  # no state of the endpoint: something kept us from looking
    if as_json:
        import json  # noqa: PLC0415 - most do without

        print_line(json.dumps(_details(endpoint.path, finding, question)))
    elif not quiet:
        outcome = f", {question.outcome}" if question is not None and question.asked else ""
        print_line(printable(f"{endpoint.path}: {finding.state}{outcome}"))
        if question is not None and question.error is not None:
            raise question.error  # in what an answer differs takes more than a word
    return status


def _error(finding: ProbeResult, question: ProbeRequest | None) -> SipcError | None:
    """What is wrong: nobody there comes before no good answer."""
    return finding.error or (None if question is None else question.error)


def _status_of_gone(finding: ProbeResult) -> int:
    """Nobody there is what was hoped for; somebody, or not knowing, is not."""
    if finding.error is None or isinstance(finding.error, ServerBusy):
        return ExitCode.TIMEOUT
    if isinstance(finding.error, (NotListening, PathNotFound)):
        return ExitCode.OK
    return exit_code(finding.error)


def _details(path: str, finding: ProbeResult, question: ProbeRequest | None) -> dict[str, object]:
    """What --json tells; null is what could not be found out."""
    from simpleipc_cli.transport import inspect  # noqa: PLC0415

    error = _error(finding, question)
    return {
        "path": json_safe(path),
        "state": finding.state,
        "reason": None if error is None else json_safe(str(error)),
        **inspect(path),
        "pid": finding.peer.pid if finding.peer else None,
        "uid": finding.peer.uid if finding.peer and finding.peer.uid >= 0 else None,
        "connect_seconds": round(finding.seconds, 6),
        **({} if question is None else question.details()),
    }
