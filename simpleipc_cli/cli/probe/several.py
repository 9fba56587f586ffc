"""Run `sipc probe` for several endpoints, or with a command to execute afterwards.

The endpoints are waited for side by side: each pass tries to connect to all of them, without
waiting for a single one.
"""

from __future__ import annotations

import json
import os
from shutil import which

from simpleipc_cli import system
from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.parse import resolve_endpoint
from simpleipc_cli.cli.probe.run import ProbeOptions, Reply, status_of, to_json, to_text
from simpleipc_cli.cli.stdio import format_error, print_error, print_line
from simpleipc_cli.client import ProbeOutcome, probe
from simpleipc_cli.deadline import Backoff, Deadline
from simpleipc_cli.errors import NotListening, PathNotFound, ServerBusy, SipcError, errno_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_RETRY_DELAYS = (0.001, 0.05)  # seconds: first and longest (tunable)
_TRANSIENT = (NotListening, PathNotFound, ServerBusy)


class _Target:
    """One of the endpoints, and the last result for it."""

    result: ProbeOutcome

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options
        self.endpoint = resolve_endpoint(options.path)
        self.reply = Reply(options)

    def connect(self) -> None:
        """Probe without waiting and without a request."""
        self.result = probe(self.endpoint.connect, timeout=0.0)

    def ask(self) -> None:
        """Probe with the request of --data."""
        self.result = probe(
            self.endpoint.connect,
            timeout=self.options.timeout,
            on_connected=self.reply.receive,
        )

    def status(self) -> int:
        """Return the exit status for this endpoint. Raises SipcError if the probe itself failed."""
        return status_of(self.options, self.result, self.reply)

    def may_change(self) -> bool:
        """Return whether to wait for another result."""
        error = self.result.error
        if self.options.has_wait_gone:
            return error is None or isinstance(error, ServerBusy)
        return isinstance(error, _TRANSIENT if self.options.has_wait else ServerBusy)


def run_several(
    probes: Sequence[ProbeOptions], *, is_any: bool, command: Sequence[str] | None
) -> int:
    """Probe all endpoints, print the results, and return the worst exit status.

    `probes` differ only in path and expectation. With `is_any`, the first endpoint that is as
    wanted is enough, and only its result counts; without such an endpoint, return the best exit
    status. If the exit status is 0, execute `command`. Raises SipcError, Terminated.
    """
    targets = [_Target(options) for options in probes]
    options = probes[0]
    _wait(targets, is_any=is_any, deadline=_deadline(options))
    found = _ask(targets, is_any=is_any) if options.data is not None else _first_good(targets)
    chosen = [found] if is_any and found is not None else targets
    statuses = [target.status() for target in chosen]
    _print(chosen, is_list=len(targets) > 1)
    # FAILURE means that the probe itself failed.
    order = sorted(statuses, key=lambda status: (status == ExitCode.FAILURE, status))
    status = order[0 if is_any else -1]
    if command is None or status != ExitCode.OK:
        return status
    environment = dict(os.environ)
    if is_any:
        environment["SIPC_PATH"] = system.absolute_path(chosen[0].endpoint.path)
    return _execute(command, environment)


def _deadline(options: ProbeOptions) -> Deadline:
    if options.has_wait_gone:
        return Deadline(options.wait_gone)
    return Deadline(options.wait if options.has_wait else options.timeout)


def _wait(targets: Sequence[_Target], *, is_any: bool, deadline: Deadline) -> None:
    """Connect to the endpoints until all, or with `is_any` one, are as wanted at the same time.

    Return early at the deadline, or when waiting cannot help.
    """
    backoff = Backoff(*_RETRY_DELAYS)
    pending = targets
    recent: list[_Target] = []  # the results since the last sleep
    while True:
        for target in pending:
            target.connect()
        recent += pending
        pending = [target for target in targets if target.may_change()]
        if is_any:
            if not pending or _first_good(targets) is not None:
                return
        elif any(target.status() for target in targets if not target.may_change()):
            return
        elif not pending:
            pending = [target for target in targets if target not in recent]
            if not pending:
                return
            continue  # check the others once more: one may have ended while another started
        if deadline.expired():
            return
        deadline.sleep(backoff.next())
        recent = []


def _first_good(targets: Sequence[_Target]) -> _Target | None:
    return next((target for target in targets if target.status() == ExitCode.OK), None)


def _ask(targets: Sequence[_Target], *, is_any: bool) -> _Target | None:
    """Send the request to each server that listens, with `is_any` until a response is good.

    Return the first endpoint with a good response.
    """
    for target in targets:
        if target.result.error is None:
            target.ask()
            if is_any and target.status() == ExitCode.OK:
                return target
    return None


def _print(targets: Sequence[_Target], *, is_list: bool) -> None:
    """Print one line for each endpoint, or JSON. Raises SipcError."""
    options = targets[0].options
    if options.as_json:
        objects = [
            to_json(target.options, target.endpoint.path, target.result, target.reply)
            for target in targets
        ]
        print_line(json.dumps(objects if is_list else objects[0]))
    elif not options.quiet:
        lines = [to_text(one.endpoint.path, one.result, one.reply) for one in targets]
        print_line("\n".join(lines))
        for target in targets:
            if target.reply.error is not None:
                print_error(format_error(f"probe: {target.endpoint.path}", target.reply.error))


def _execute(command: Sequence[str], environment: dict[str, str]) -> int:
    """Execute a command in place of this process; return the exit status if that fails."""
    try:
        return system.execute(command, environment)
    except OSError as error:
        is_missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        if not is_missing:
            hint = "check its mode and its format"
        elif which(command[0]) is None:
            hint = "check its name and PATH"
        else:
            hint = "check the interpreter in its first line"
        text = f"cannot execute {command[0]!r}: {error.strerror}"
        print_error(format_error("probe", SipcError(text, errno_hint(error, hint))))
        return ExitCode.COMMAND_NOT_FOUND if is_missing else ExitCode.CANNOT_EXECUTE
