"""`sipc serve --stdio`: one connection, on standard input and output, and its exit status."""

from __future__ import annotations

import os

from simpleipc_cli.cli.exitcodes import ExitCode
from simpleipc_cli.cli.serve import ServeOptions, UsageError
from simpleipc_cli.cli.serve.run import run
from simpleipc_cli.server import systemd
from simpleipc_cli.server.context import Outcome
from simpleipc_cli.server.server import Server
from simpleipc_cli.system import UNSUPPORTED_OPTIONS
from simpleipc_cli.transport.unix.stdio_listener import StdioListener, stdin_socket

_OF_ENDPOINT = ("mode", "group", "backlog", "count", "background", "pid_file", "prestart")

_LISTENING = (
    "standard input is a listening socket: pass it as a service manager does (LISTEN_FDS), give "
    "a PATH to listen on, or use --stdio with a program that accepts the connections"
)

_STATUSES = {
    Outcome.ANSWERED: ExitCode.OK,
    **dict.fromkeys(
        (Outcome.HANDLER_TIMEOUT, Outcome.READ_TIMEOUT, Outcome.WRITE_TIMEOUT), ExitCode.TIMEOUT
    ),
    **dict.fromkeys((Outcome.TOO_LARGE, Outcome.ABORTED, Outcome.INTERNAL_ERROR), ExitCode.FAILURE),
}
"""The exit status for each outcome; PROTOCOL for the others: the request or response was cut."""


def serve_stdio(options: ServeOptions) -> int:
    """Answer the request on standard input and output; return the exit status.

    Raises UsageError for options that cannot be combined, or if they are no connection.
    """
    if options.path is not None:
        raise UsageError("PATH cannot be combined with --stdio")
    for name in _OF_ENDPOINT:
        if name in options.given:
            raise UsageError(f"--{name.replace('_', '-')} cannot be combined with --stdio")
    if systemd.passed_descriptor(os.environ) is not None:
        raise UsageError(
            "--stdio cannot be used with a socket passed by the service manager: set "
            "StandardInput=socket in the service unit, and Accept=yes in the socket unit"
        )
    match stdin_socket():
        case "listening":
            raise UsageError(_LISTENING)
        case "other":
            raise UsageError("standard input is a socket, but no stream, or not connected")
    listener = StdioListener(os.environ)

    def status(server: Server) -> int:
        return _status(server, listener, options.write_timeout)

    return run(listener.path, options, listener=listener, on_completed=status)


def _status(server: Server, listener: StdioListener, timeout: float | None) -> int:
    """Return the exit status after the request, if there was one, has ended. Raises SipcError."""
    if server.counters.refused:
        return ExitCode.PERMISSION
    ended = [outcome for outcome, number in server.counters.outcomes.items() if number]
    if Outcome.WRITE_TIMEOUT not in ended:
        listener.finish(timeout)
    listener.check()
    return _STATUSES.get(ended[0], ExitCode.PROTOCOL) if ended else ExitCode.OK


def check_stdin() -> None:
    """Raise UsageError if this process was started for a connection, or to accept connections."""
    kind = "" if "--stdio" in UNSUPPORTED_OPTIONS else stdin_socket()
    if kind == "listening":
        raise UsageError(_LISTENING)
    if kind == "accepted":
        raise UsageError(
            "standard input is a connection: use --stdio to answer the request on it, or give a "
            "PATH to listen on"
        )
