"""`sipc serve`: options in, a server running, its end out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode
from simpleipc_cli.cli.options import (
    DURATION,
    MODE,
    SIZE,
    Duration,
    chosen_endpoint,
    path_argument,
    trace_options,
)
from simpleipc_cli.cli.serverlog import TextLog
from simpleipc_cli.errors import GivenUp, SipcError
from simpleipc_cli.handlers.command import Command
from simpleipc_cli.handlers.process import ProcessHandler
from simpleipc_cli.server.descriptors import DescriptorLimit
from simpleipc_cli.server.limits import Limits
from simpleipc_cli.server.pool import LEAST_DESCRIPTORS, Ending, Server
from simpleipc_cli.spool import SPOOL_FOLDER
from simpleipc_cli.transport import Listener, Stream, listen

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

EXAMPLES = """\b
Examples:
  sipc serve demo.sock --exec ./handler.sh
  sipc serve --exec 'tr a-z A-Z' --threads 4 --timeout 10s"""


@click.command(epilog=EXAMPLES)
@path_argument
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    required=True,
    help="Run CMD, a shell command line, for every request: the request is its standard "
    "input, its standard output is the response.",
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Handle N requests at once; the others wait.",
)
@click.option(
    "--backlog",
    metavar="N",
    type=click.IntRange(1, 2**31 - 1),
    default=1024,
    show_default=True,
    help="Let N connections wait in the kernel before they are accepted.",
)
@click.option(
    "--mode",
    metavar="OCTAL",
    type=MODE,
    default="0600",
    show_default=True,
    help="Permissions of the socket, whatever the umask; who may write to it may connect.",
)
@click.option(
    "--whole-request",
    is_flag=True,
    help="Start the handler only when its request is complete.",
)
@click.option(
    "--on-hangup",
    type=click.Choice(["kill", "finish"]),
    default="kill",
    show_default=True,
    help="What becomes of a handler whose client has gone; finish applies to complete requests.",
)
@click.option(
    "--timeout",
    metavar="DURATION",
    type=DURATION,
    default="0",
    show_default=True,
    help="Longest time from a handler's start to its end.",
)
@click.option(
    "--kill-after",
    metavar="DURATION",
    type=Duration(zero_is_none=False),
    default="2s",
    show_default=True,
    help="Time between SIGTERM and SIGKILL for a handler that has to end; 0 is no time at all.",
)
@click.option(
    "--read-timeout",
    metavar="DURATION",
    type=DURATION,
    default="30s",
    show_default=True,
    help="Longest silence within a request, and longest time for one packet of it.",
)
@click.option(
    "--write-timeout",
    metavar="DURATION",
    type=DURATION,
    default="60s",
    show_default=True,
    help="Longest time in which no byte moves while the client should read.",
)
@click.option(
    "--max-request",
    metavar="SIZE",
    type=SIZE,
    default="0",
    show_default=True,
    help="Refuse requests with more bytes of payload.",
)
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(1),
    help="Stop when the N-th request has come.",
)
@click.option(
    "--drain-timeout",
    metavar="DURATION",
    type=DURATION,
    default="10s",
    show_default=True,
    help="When stopping, longest time to answer what is connected.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show problems only.")
@click.option("-v", "--verbose", is_flag=True, help="Show more.")
@trace_options
def serve(
    path: str | None,
    command: str,
    threads: int,
    backlog: int,
    mode: int,
    whole_request: bool,
    on_hangup: str,
    timeout: float | None,
    kill_after: float,
    read_timeout: float | None,
    write_timeout: float | None,
    max_request: int | None,
    count: int | None,
    drain_timeout: float | None,
    quiet: bool,
    verbose: bool,
    trace: bool,
    trace_file: str | None,
) -> int:
    """Listen on PATH and answer each request with a command.

    Ends on SIGTERM or SIGINT, when everything already connected has been answered; a
    second signal ends it at once. Without PATH: $SIPC_PATH, else sipc.sock in
    $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    Durations: 500ms, 2s, 1m30s; sizes: 4096, 64K, 10M; 0 is no limit.
    """
    if not command.strip():
        raise click.UsageError("the command after --exec is empty")
    limits = Limits(
        threads=threads,
        max_request=max_request,
        read_timeout=read_timeout,
        write_timeout=write_timeout,
        timeout=timeout,
        kill_after=kill_after,
        drain_timeout=drain_timeout,
        count=count,
        whole_request=whole_request,
        finish_on_hangup=on_hangup == "finish",
        spool_folder=os.environ.get("TMPDIR") or SPOOL_FOLDER,
    )
    log = TextLog(quiet=quiet, verbose=verbose)
    endpoint = chosen_endpoint(path)
    with _trace(endpoint.path, log, on_stderr=trace, file=trace_file) as watch:
        return _run(
            endpoint.prepare(),
            command,
            limits,
            mode=mode,
            backlog=backlog,
            log=log,
            watch=watch,
        )


_Watch = Callable[[Stream, str], Stream]


@contextmanager
def _trace(
    path: str, log: TextLog, *, on_stderr: bool, file: str | None
) -> Iterator[_Watch | None]:
    """What traces each request by its id, if that was asked for; loaded only then."""
    if file is None and not on_stderr:
        yield None
        return
    from simpleipc_cli.cli.tracing import open_trace  # noqa: PLC0415

    def warn(error: SipcError) -> None:
        log.problem(f"sipc serve: {error.text}")

    tracer = open_trace(warn, on_stderr=on_stderr, path=file)
    try:
        yield lambda stream, request_id: tracer.watch(stream, request_id, "accepted on", path)
    finally:
        tracer.close()


def _run(
    path: str,
    line: str,
    limits: Limits,
    *,
    mode: int,
    backlog: int,
    log: TextLog,
    watch: _Watch | None,
) -> int:
    """Listen, serve, and say with which status to end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take handlers' statuses
    command = Command(line, os.environ.get("PATH", os.defpath))
    if command.is_missing():
        log.problem(f"sipc serve: there is no command {line}: requests fail until there is one")
    descriptors = DescriptorLimit()
    if descriptors.most < LEAST_DESCRIPTORS:
        raise SipcError(
            f"only {descriptors.most} descriptors are allowed",
            f"allow {LEAST_DESCRIPTORS} at least, with ulimit -n",
        )
    signals = _Signals()
    try:
        listener = listen(path, mode=mode, backlog=backlog, give_up=signals.any)
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


class _Signals:
    """Signals that ask for the end; those that were ignored when we started stay so."""

    def __init__(self) -> None:
        """Take note from now on; a server comes later, and hears what came before it."""
        self.first = 0
        self._count = 0
        self._server: Server | None = None
        self._numbers = [
            number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
        ]
        for number in self._numbers:
            signal.signal(number, self._on_signal)

    def any(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    def pass_to(self, server: Server) -> None:
        """From now on a signal stops this server."""
        self._server = server
        for _ in range(self._count - server.signals):
            server.stop()

    def ignore(self) -> None:
        """The server has ended, and so will we."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, _frame: object) -> None:
        self.first = self.first or number
        self._count += 1
        if self._server is not None:
            self._server.stop()
