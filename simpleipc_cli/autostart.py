"""Start a server if none listens, wait for it, and connect (`send --spawn`, `ensure_running`).

If several clients find no server, the one that gets the lock starts one. It keeps the lock until a
server listens. The others wait for the server or the lock, and probe again before they start a
server. A client that receives a signal terminates the command that it started, unless a server
already listens. If a client is killed, its command keeps running and the next client starts another
one: only one of the two servers gets the path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from simpleipc_cli.client import probe
from simpleipc_cli.deadline import Backoff, Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import (
    EndpointError,
    NotASocket,
    NotListening,
    PathNotFound,
    PermissionDenied,
    ServerBusy,
    SpawnFailed,
)
from simpleipc_cli.process import Command, Detached, describe, start_detached
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.transport import StartLock, Stream, real_path

_RETRY_DELAYS = (0.001, 0.03)  # seconds: first and longest (tunable)


def connect_or_start(
    endpoint: Endpoint,
    line: str,
    environment: Mapping[str, str],
    *,
    connect_timeout: float | None,
    deadline: Deadline,
) -> Stream:
    """Connect; if no server listens, run the shell command `line` and wait until one does.

    The command gets `environment`, and in SIPC_PATH the endpoint's absolute path with links
    resolved. `deadline` limits the time until a server listens, `connect_timeout` (seconds) one
    try at a busy one. SIGCHLD must not be ignored.

    Raises SpawnFailed as soon as the command fails; else the EndpointError of the last try to
    connect. If the command still runs, it is terminated first: this may take two seconds.
    """
    path = _real_path(endpoint)
    command = Command(line, environment.get("PATH", os.defpath))
    environment = {**environment, "SIPC_PATH": path}
    lock = StartLock(path)
    with BlockedSignals() as signals:
        missing = PathNotFound(f"{endpoint.path} does not exist")
        attempts = ConnectAttempts(endpoint, signals, connect_timeout, deadline, missing)
        try:
            while not lock.take():
                if (stream := attempts.connect()) is not None:
                    return stream
                if deadline.expired():
                    raise attempts.extended_error(
                        f"and the client that starts a server (lock {lock.path}) has not finished",
                        "wait longer",
                    )
                attempts.delay()
            if (stream := attempts.connect()) is not None:
                return stream
            if deadline.expired():
                raise attempts.error
            return _start(attempts, command, environment)
        finally:
            lock.release()


def _real_path(endpoint: Endpoint) -> str:
    """Return the server's path. Servers refuse symbolic links, so they are resolved."""
    path = endpoint.ensure_parent()
    if not os.path.basename(path):
        raise NotASocket(f"{path!r} cannot be the name of a socket")
    try:
        return real_path(path)
    except OSError as error:
        raise PathNotFound(f"cannot resolve {path}: {error.strerror}") from error


@dataclass
class ConnectAttempts:
    """Connects with retries until one deadline."""

    endpoint: Endpoint
    signals: BlockedSignals
    busy_timeout: float | None
    """Maximum time, in seconds, of one try while the endpoint is busy."""
    limit: Deadline
    error: EndpointError
    """Why the last try failed."""
    backoff: Backoff = field(default_factory=lambda: Backoff(*_RETRY_DELAYS))

    def connect(self) -> Stream | None:
        """Try once; return None if no server listens. Raises EndpointError for other reasons."""
        try:
            with self.signals.unblocked():
                limit = self.limit.capped(self.busy_timeout)
                return self.endpoint.connect(limit)
        except (NotListening, PathNotFound) as error:
            self.error = error
            return None

    def delay(self, server: Detached | None = None) -> None:
        """Wait before the next try, at most until the server exits."""
        with self.signals.unblocked():
            if server is None:
                self.limit.sleep(self.backoff.next())
            else:
                server.wait(self.backoff.next())

    def is_listening(self) -> bool:
        """Probe without waiting."""
        result = probe(self.endpoint.connect, timeout=None, deadline=Deadline(0.0))
        return result.error is None or isinstance(result.error, ServerBusy)

    def extended_error(self, detail: str, hint: str) -> EndpointError:
        """Return the error of the last attempt, with the result of the command."""
        return type(self.error)(f"{self.error}, {detail}", hint)


def _start(attempts: ConnectAttempts, command: Command, environment: Mapping[str, str]) -> Stream:
    server = start_detached(command, environment)
    try:
        stream = _wait_for(server, attempts)
    except BaseException:
        if attempts.is_listening():
            server.detach()
        else:
            server.stop()
        raise
    if stream is None:
        status = server.status()  # before it is terminated
        raise _start_error(attempts, status, server.stop())
    server.detach()
    return stream


def _wait_for(server: Detached, attempts: ConnectAttempts) -> Stream | None:
    """Connect as soon as a server listens; return None if the command failed or the time is over.

    If the command exits with status 0, its server runs in the background. If it fails, another
    server may have taken the path: so the endpoint is probed after the exit.
    """
    while True:
        status = server.status()
        try:
            stream = attempts.connect()
        except PermissionDenied as error:  # the socket exists, its mode may be set later
            attempts.error, stream = error, None
        if stream is not None or status or attempts.limit.expired():
            return stream
        attempts.delay(server)


def _start_error(attempts: ConnectAttempts, status: int | None, output: str) -> EndpointError:
    output = f", and wrote: {output}" if output else ""
    if status:
        return SpawnFailed(f"the server's command failed, {describe(status)[1]}{output}")
    if status is None:
        outcome = "and the server's command did not start listening in time and was terminated"
    else:
        outcome = "although the server's command exited with status 0"
    return attempts.extended_error(
        outcome + output, "check that it listens on $SIPC_PATH, or allow more time"
    )
