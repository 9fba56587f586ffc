"""A server from its start to its end: what it needs, its signals, and how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode
from simpleipc_cli.cli.serve.activation import notifier
from simpleipc_cli.cli.serve.signals import SignalRouter
from simpleipc_cli.errors import Cancelled, SipcError
from simpleipc_cli.process import Command, PidFile
from simpleipc_cli.server.acceptor import MIN_FDS
from simpleipc_cli.server.config import ServerConfig
from simpleipc_cli.server.handler import Handler
from simpleipc_cli.server.log import Log
from simpleipc_cli.server.server import ExitReason, Server
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.text import printable
from simpleipc_cli.transport import Listener, Stream, listen


@dataclass(frozen=True, slots=True)
class ServeRuntime:
    """What ties a server to whoever runs it."""

    listener: Listener | None = None
    """Passed to us, listening already; else the path is ours to take."""
    pid_file: str | None = None
    listening: Callable[[], None] = lambda: None
    """Told once the server listens."""
    reload_on_hangup: bool = False
    """Whether SIGHUP is a wish to open the log anew, and not that of a terminal that has gone."""


def run(
    path: str,
    command: Command,
    config: ServerConfig,
    *,
    new_handler: Callable[[DescriptorLimit], Handler],
    mode: int,
    group: int | None,
    backlog: int,
    log: Log,
    observe: Callable[[Stream, str], Stream] | None,
    service: ServeRuntime,
) -> int:
    """Listen, serve, and say with which status to end."""
    if command.is_missing():
        log.warning(f"sipc serve: command not found: {command.line}: requests fail until it exists")
    descriptors = DescriptorLimit()
    handler = new_handler(descriptors)
    least = MIN_FDS + handler.min_fds()
    if descriptors.maximum < least:
        raise SipcError(
            f"the limit of {descriptors.maximum} file descriptors is too low",
            f"raise it to at least {least} (ulimit -n)",
        )
    signals = SignalRouter(reload_on_hangup=service.reload_on_hangup)
    with nullcontext() if service.pid_file is None else PidFile(service.pid_file):
        try:
            listener = service.listener or listen(
                path, mode=mode, group=group, backlog=backlog, cancelled=signals.any
            )
        except Cancelled:
            return SIGNALLED + signals.first
        return _serve(
            listener,
            path,
            signals,
            service,
            handler=handler,
            config=config,
            log=log,
            descriptors=descriptors,
            observe=observe,
        )


def _serve(
    listener: Listener,
    path: str,
    signals: SignalRouter,
    service: ServeRuntime,
    *,
    log: Log,
    **parts: Any,
) -> int:
    """Serve until the end; the status to end with."""
    manager = notifier(os.environ, log.warning)
    # The path of a socket that was passed to us is absolute already, or no path at all.
    absolute = path if listener is service.listener else os.path.abspath(path)
    server = _server(listener, absolute, log=log, notifier=manager, **parts)
    signals.pass_to(server)
    log.info(f"listening on {path}")
    service.listening()
    manager.ready(f"listening on {printable(path)}")
    ending = server.run()
    signals.ignore()
    server.close()
    manager.close()
    if ending is ExitReason.PATH_LOST:
        raise SipcError(f"{path} was removed or replaced", "find out why, and restart the server")
    if ending is ExitReason.COMPLETED:
        return ExitCode.OK
    hint = "allow more time with --drain-timeout"
    if server.stop_calls > 1:
        hint = "a second signal aborts, a single one lets requests finish"
    log.error(f"sipc serve: not all requests were answered: {hint}")
    return SIGNALLED + signals.first if signals.first else ExitCode.FAILURE


def _server(listener: Listener, path: str, **parts: Any) -> Server:
    """The server; if it cannot be made, the path is given back."""
    try:
        return Server(listener, path, **parts)
    except OSError as error:
        listener.stop_listening()
        listener.close()
        raise SipcError(
            f"cannot start: {error.strerror}", "raise the limit of file descriptors (ulimit -n)"
        ) from error
