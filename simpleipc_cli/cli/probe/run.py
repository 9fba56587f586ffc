"""Run `sipc probe`. Imports few modules: see cli/parse.py."""

from __future__ import annotations

from time import monotonic

from simpleipc_cli.cli.exitcodes import ExitCode, exit_code
from simpleipc_cli.cli.parse import Options, resolve_endpoint
from simpleipc_cli.cli.stdio import print_line
from simpleipc_cli.client import ProbeOutcome, exchange, probe, wait_until_gone
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import (
    ExpectationFailed,
    IncompleteMessage,
    NotListening,
    PathNotFound,
    ProtocolError,
    ServerBusy,
    SipcError,
    TimedOut,
)
from simpleipc_cli.text import json_safe, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.expect import Expectation
    from simpleipc_cli.transport import Stream

_OUTCOMES = (
    (ExpectationFailed, "response not as expected"),
    (TimedOut, "no response in time"),
    (IncompleteMessage, "response truncated"),
    (ProtocolError, "response malformed"),
    (SipcError, "no response"),
)


class ProbeOptions(Options):
    """The options of `sipc probe`; times in seconds, None for no limit."""

    path: str | None = None
    quiet: bool = False
    as_json: bool = False
    wait: float | None = None
    has_wait: bool = False
    """Whether --wait is given."""
    wait_gone: float | None = None
    has_wait_gone: bool = False
    """Whether --wait-gone is given."""
    timeout: float | None = 3.0
    data: bytes | None = None
    expected: Expectation | None = None
    """The expected response to `data`; None accepts every complete response."""


class Reply:
    """The response to `--data`, or the reason why there is none."""

    def __init__(self, options: ProbeOptions) -> None:
        self._request = options.data or b""
        self._expected = options.expected
        self.outcome: str | None = None
        """The result in words; None if nothing was sent."""
        self.error: SipcError | None = None
        """The error; None if the response is as expected, or if nothing was sent."""
        self.bytes = 0
        """Bytes of the response's payload."""
        self.seconds = 0.0
        """Time from the connection to the end of the response, or to the error."""

    def receive(self, stream: Stream, deadline: Deadline) -> None:
        """Send the request, receive the response, and close the stream; record errors."""
        started_at = monotonic()
        try:
            exchange(stream, self._request, None, self._on_data, deadline)
            if self._expected is not None:
                self._expected.check(deadline)
            self.outcome = "answered" if self._expected is None else "answered as expected"
        except SipcError as error:
            self.error = error
            self.outcome = next(text for kind, text in _OUTCOMES if isinstance(error, kind))
        finally:
            self.seconds = monotonic() - started_at
            if self._expected is not None:
                self._expected.close()

    def _on_data(self, payload: memoryview) -> None:
        self.bytes += len(payload)
        if self._expected is not None:
            self._expected.feed(payload)


def run(options: ProbeOptions) -> int:
    """Probe, print the result, and return the exit status. Raises SipcError, Terminated."""
    endpoint = resolve_endpoint(options.path)
    reply = Reply(options)
    if options.has_wait_gone:
        result = wait_until_gone(
            endpoint.connect, timeout=options.timeout, wait=Deadline(options.wait_gone)
        )
    else:
        result = probe(
            endpoint.connect,
            timeout=options.timeout,
            wait=Deadline(options.wait) if options.has_wait else None,
            on_connected=None if options.data is None else reply.receive,
        )
    status = status_of(options, result, reply)
    if options.as_json:
        import json  # noqa: PLC0415 - only for --json

        print_line(json.dumps(to_json(options, endpoint.path, result, reply)))
    elif not options.quiet:
        print_line(to_text(endpoint.path, result, reply))
        if reply.error is not None:
            raise reply.error  # its message has details
    return status


def status_of(options: ProbeOptions, result: ProbeOutcome, reply: Reply) -> int:
    """Return the exit status. Raises SipcError if the probe itself failed."""
    if options.has_wait_gone:
        status = _wait_gone_status(result)
    else:
        status = exit_code(result.error or reply.error)
    if result.error is not None and status == ExitCode.FAILURE and not options.as_json:
        raise result.error  # not about the endpoint
    return status


def _wait_gone_status(result: ProbeOutcome) -> int:
    if result.error is None or isinstance(result.error, ServerBusy):
        return ExitCode.TIMEOUT
    if isinstance(result.error, (NotListening, PathNotFound)):
        return ExitCode.OK
    return exit_code(result.error)


def to_text(path: str, result: ProbeOutcome, reply: Reply) -> str:
    """Return the line for one endpoint."""
    shown = path or "''"
    outcome = f", {reply.outcome}" if reply.outcome else ""
    return printable(f"{shown}: {result.state}{outcome}")


def to_json(
    options: ProbeOptions, path: str, result: ProbeOutcome, reply: Reply
) -> dict[str, object]:
    """Return the object for --json; unknown values are None."""
    from simpleipc_cli.transport import endpoint_info  # noqa: PLC0415 - only for --json

    error = result.error or reply.error
    found: dict[str, object] = {
        "path": json_safe(path),
        "state": result.state,
        "reason": None if error is None else json_safe(str(error)),
        **endpoint_info(path),
        "pid": result.peer.pid if result.peer else None,
        "uid": result.peer.uid if result.peer and result.peer.uid >= 0 else None,
        "connect_seconds": round(result.seconds, 6),
    }
    if options.data is not None:
        found |= {
            "response": reply.outcome,
            "response_bytes": reply.bytes if reply.outcome else None,
            "response_seconds": round(reply.seconds, 6) if reply.outcome else None,
        }
    return found
