"""A server from its start to its end: what it needs, its signals, and how it ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode
from simpleipc_cli.cli.serversignals import Signals
from simpleipc_cli.errors import GivenUp, SipcError
from simpleipc_cli.handlers.command import Command
from simpleipc_cli.handlers.process import ProcessHandler
from simpleipc_cli.server.descriptors import DescriptorLimit
from simpleipc_cli.server.entrance import LEAST_DESCRIPTORS
from simpleipc_cli.server.limits import Limits
from simpleipc_cli.server.log import Log
from simpleipc_cli.server.pool import Ending, Server
from simpleipc_cli.transport import Listener, Stream, listen, start_holder


def run(
    path: str,
    command: Command,
    limits: Limits,
    *,
    mode: int,
    group: int | None,
    backlog: int,
    reload_on_hangup: bool,
    log: Log,
    watch: Callable[[Stream, str], Stream] | None,
) -> int:
    """Listen, serve, and say with which status to end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take handlers' statuses
    if command.is_missing():
        log.problem(
            f"sipc serve: there is no command {command.line}: requests fail until there is one"
        )
    descriptors = DescriptorLimit()
    if descriptors.most < LEAST_DESCRIPTORS:
        raise SipcError(
            f"only {descriptors.most} descriptors are allowed",
            f"allow {LEAST_DESCRIPTORS} at least, with ulimit -n",
        )
    signals = Signals(reload_on_hangup=reload_on_hangup)
    try:
        listener = listen(path, mode=mode, group=group, backlog=backlog, give_up=signals.any)
    except GivenUp:
        return SIGNALLED + signals.first
    handler = ProcessHandler(command, os.environ, descriptors)
    server = _server(
        listener,
        path,
        handler=handler,
        limits=limits,
        log=log,
        descriptors=descriptors,
        watch=watch,
        start_holder=lambda: start_holder(os.environ),
    )
    signals.pass_to(server)
    log.news(f"listening on {path}")
    ending = server.run()
    signals.ignore()
    server.close()
    if ending is Ending.LOST:
        raise SipcError(
            f"{path} was taken away or replaced", "see who did it, and start the server again"
        )
    if ending is Ending.DRAINED:
        return ExitCode.OK
    log.problem("sipc serve: not all was answered: allow more time with --drain-timeout")
    return SIGNALLED + signals.first if signals.first else ExitCode.FAILURE


def _server(listener: Listener, path: str, **parts: Any) -> Server:
    """The server; if it cannot be made, the path is given back."""
    try:
        return Server(listener, os.path.abspath(path), **parts)
    except OSError as error:
        listener.withdraw()
        listener.close()
        raise SipcError(
            f"cannot start: {error.strerror}", "allow more descriptors with ulimit -n"
        ) from error
