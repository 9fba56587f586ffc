"""A server on demand: nobody listens, so start one, wait for it, and connect.

Many clients at once start one server: the one that gets the lock. It keeps the lock until
somebody listens; the others wait for that, or for the lock, and then look again before
they start anything. A client that is told to end takes along what it started, unless that
listens by now. One that is killed cannot: what it started goes on, and the next client
starts another, of which, as with all servers, one gets the path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import sleep

from simpleipc_cli.client import connect_with_retry, look
from simpleipc_cli.deadline import Deadline
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
from simpleipc_cli.handlers import Command, Detached, describe, start_detached
from simpleipc_cli.system import BlockedSignals
from simpleipc_cli.transport import StartLock, Stream, real_path

START_TIMEOUT = 10.0
"""Seconds in which somebody should listen, if nothing else is said. At will."""

_FIRST_DELAY, _MAX_DELAY = 0.001, 0.03  # seconds between tries, at will


def reach_or_start(
    endpoint: Endpoint,
    line: str,
    environment: Mapping[str, str],
    *,
    connect_timeout: float | None,
    wait: Deadline | None,
    deadline: Deadline,
) -> Stream:
    """Connect; if nobody listens, start the shell command `line` and wait for it to listen.

    It gets `environment`, and in SIPC_PATH the endpoint's absolute path, links resolved.
    `wait` is how long somebody may take to listen, instead of START_PATIENCE, and how long
    a busy server is waited for; `connect_timeout` and `deadline` are as in reach().

    Raises SpawnFailed if the command failed, at once; else EndpointError: what kept us from
    connecting at the last try. A command that is still at it has then been ended, which may
    take two seconds more. SIGCHLD must not be ignored.
    """
    limit = deadline.sooner(START_TIMEOUT if wait is None else wait.remaining())
    path = _real_path(endpoint)
    command = Command(line, environment.get("PATH", os.defpath))
    environment = {**environment, "SIPC_PATH": path}
    lock = StartLock(path)
    with BlockedSignals() as signals:
        tries = ConnectAttempts(endpoint, signals, connect_timeout, limit, patient=wait is not None)
        try:
            while not lock.take():
                if (stream := tries.connect()) is not None:
                    return stream
                if limit.passed():
                    raise tries.failed(
                        f"and whoever starts a server there (lock {lock.path}) takes too long",
                        "wait longer with --wait",
                    )
                tries.pause()
            if (stream := tries.connect()) is not None:
                return stream
            if limit.passed():
                raise tries.failure
            return _start(tries, command, environment)
        finally:
            lock.release()


def _real_path(endpoint: Endpoint) -> str:
    """The path for whoever starts there. Servers refuse links, so it is what they lead to."""
    path = endpoint.prepare()
    if not os.path.basename(path):
        raise NotASocket(f"{path!r} is not a name that a socket can have")
    try:
        return real_path(path)
    except OSError as error:
        raise PathNotFound(f"where {path} is cannot be told: {error.strerror}") from error


class ConnectAttempts:
    """Tries to connect, with all that they have in common."""

    def __init__(
        self,
        endpoint: Endpoint,
        signals: BlockedSignals,
        connect_timeout: float | None,
        limit: Deadline,
        *,
        patient: bool,
    ) -> None:
        """`patient` waits for room at a busy server until the limit."""
        self.limit = limit
        self.failure: EndpointError = PathNotFound(f"{endpoint.path} does not exist")
        """Why the last one failed."""
        self._endpoint = endpoint
        self._signals = signals
        self._connect_timeout = connect_timeout
        self._patient = patient
        self._pause = _FIRST_DELAY

    def connect(self) -> Stream | None:
        """Try once; None if nobody listens. Raises EndpointError for all other reasons."""
        while True:
            try:
                with self._signals.unblocked():
                    return connect_with_retry(
                        self._endpoint.locate,
                        connect_timeout=self._connect_timeout,
                        deadline=self.limit,
                    )
            except ServerBusy:
                if not self._patient or self.limit.passed():
                    raise
            except (NotListening, PathNotFound) as error:
                self.failure = error
                return None
            self.pause()

    def pause(self, server: Detached | None = None) -> None:
        """Wait a little, longer each time, and no longer than until the server ends."""
        left = self.limit.remaining()
        pause = self._pause if left is None else min(self._pause, left)
        self._pause = min(self._pause * 2, _MAX_DELAY)
        with self._signals.unblocked():
            if server is None:
                sleep(pause)
            else:
                server.wait(pause)

    def is_listening(self) -> bool:
        """Look, without waiting."""
        finding = look(self._endpoint.locate, timeout=None, deadline=Deadline(0.0))
        return finding.error is None or isinstance(finding.error, ServerBusy)

    def failed(self, more: str, hint: str) -> EndpointError:
        """The last try's error, told with what we did about it."""
        return type(self.failure)(f"{self.failure}, {more}", hint)


def _start(tries: ConnectAttempts, command: Command, environment: Mapping[str, str]) -> Stream:
    """Start the server and connect to it."""
    server = start_detached(command, environment)
    try:
        stream = _wait_for(server, tries)
    except BaseException:
        if tries.is_listening():
            server.let_go()
        else:
            server.stop()
        raise
    if stream is None:
        status = server.status()  # before we see to its end
        raise _explained(tries, status, server.stop())
    server.let_go()
    return stream


def _wait_for(server: Detached, tries: ConnectAttempts) -> Stream | None:
    """Connect as soon as somebody listens; None if the command failed or time is over.

    A command that succeeds has left its server in the background. One that fails may have
    found that somebody else was faster: so the look at the endpoint comes after its end.
    """
    while True:
        status = server.status()
        try:
            stream = tries.connect()
        except PermissionDenied as error:  # the socket is there, its mode may come later
            tries.failure, stream = error, None
        if stream is not None or status or tries.limit.passed():
            return stream
        tries.pause(server)


def _explained(tries: ConnectAttempts, status: int | None, words: str) -> EndpointError:
    """Why the start failed; the server has been ended."""
    said = f", and said: {words}" if words else ""
    if status:
        return SpawnFailed(f"the command to start a server failed, {describe(status)[1]}{said}")
    if status is None:
        did = "and the command to start a server did not listen there in time, so it was ended"
    else:
        did = "although the command to start a server ended with exit status 0"
    return tries.failed(
        did + said, "see that it listens on $SIPC_PATH, or allow more time with --wait"
    )
