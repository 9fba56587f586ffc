"""The options of `sipc serve`, and what they mean together."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from simpleipc_cli.cli.options import DURATION, GROUP, MODE, SIZE, USER, Duration, option_given

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Every option by its parameter's name; see _OPTIONS. None means no limit, or not given."""

    command: str | None
    worker: str | None
    max_requests_per_worker: int | None
    prestart: int | None
    whole_request: bool
    on_hangup: str
    timeout: float | None
    kill_after: float
    threads: int
    backlog: int
    max_request: int | None
    read_timeout: float | None
    write_timeout: float | None
    mode: int | None
    group: int | None
    allowed_users: tuple[int, ...]
    count: int | None
    idle_timeout: float | None
    quit_on: str | None
    drain_timeout: float | None
    background: bool
    max_wait: float | None
    pid_file: str | None
    log_file: str | None
    log_format: str
    quiet: bool
    verbose: bool
    trace: bool
    trace_file: str | None

    @property
    def socket_mode(self) -> int:
        """The mode that was given, else one that lets in the given group or users."""
        if self.mode is not None:
            return self.mode
        if self.allowed_users:
            return 0o666
        return 0o600 if self.group is None else 0o660

    @property
    def sighup_reloads(self) -> bool:
        """Whether SIGHUP reloads; otherwise SIGHUP stops the server: the terminal is gone."""
        return self.background or any(
            value is not None for value in (self.log_file, self.worker, self.prestart)
        )

    def check(self, ctx: click.Context) -> None:
        """Raise UsageError for options that cannot be combined."""
        command, worker = self.command, self.worker
        if command is not None and worker is not None:
            raise click.UsageError("--exec and --worker cannot be combined")
        for name, line in (("--exec", command), ("--worker", worker)):
            if line is not None and not line.strip():
                raise click.UsageError(f"{name}: the command is empty")
        if command is None and worker is None:
            raise click.UsageError("one of --exec CMD or --worker CMD is required")
        if worker is None and self.max_requests_per_worker is not None:
            raise click.UsageError("--max-requests-per-worker requires --worker")
        if self.prestart is not None and worker is not None:
            raise click.UsageError("--prestart cannot be combined with --worker")
        if self.prestart is not None and self.whole_request:
            raise click.UsageError(
                "--prestart cannot be combined with --whole-request: the first starts handlers "
                "before their requests, the second after them"
            )
        if option_given(ctx, "max_wait") and not self.background:
            raise click.UsageError("--max-wait requires --background")
        files = [os.path.realpath(path) for path in (self.pid_file, self.log_file) if path]
        if len(files) == 2 and files[0] == files[1]:
            raise click.UsageError("--pid-file and --log-file are the same file")


def _number(
    name: str, text: str, *, default: int | None = None, maximum: int | None = None
) -> Callable[[_Command], _Command]:
    """Return an option that takes a number of 1 or more."""
    return click.option(
        name,
        metavar="N",
        type=click.IntRange(1, maximum),
        default=default,
        show_default=default is not None,
        help=text,
    )


def _duration(
    name: str, default: str, text: str, kind: Duration = DURATION
) -> Callable[[_Command], _Command]:
    """Return an option that takes a duration."""
    return click.option(
        name, metavar="DURATION", type=kind, default=default, show_default=True, help=text
    )


_OPTIONS = (
    # The handler.
    click.option(
        "--exec",
        "command",
        metavar="CMD",
        help="Run CMD, a shell command line, for every request: the request is its standard "
        "input, its standard output is the response.",
    ),
    click.option(
        "--worker",
        metavar="CMD",
        help="In place of --exec: start CMD when needed, at most one per thread, and keep it "
        "running. Requests are written to its standard input, responses read from its standard "
        "output, as packets, each message ended by a flush.",
    ),
    _number("--max-requests-per-worker", "Replace a worker after N requests."),
    _number(
        "--prestart",
        "Keep N processes of --exec started, waiting for their standard input; they do not get "
        "the variables that describe the client.",
    ),
    click.option(
        "--whole-request", is_flag=True, help="Start the handler only when the request is complete."
    ),
    click.option(
        "--on-hangup",
        type=click.Choice(["kill", "finish"]),
        default="kill",
        show_default=True,
        help="What happens to a handler whose client closes the connection; finish applies to "
        "complete requests.",
    ),
    _duration(
        "--timeout",
        "0",
        "Maximum time from a handler's start to its end; for a prestarted handler or a worker, "
        "from the request to the end of the response.",
    ),
    _duration(
        "--kill-after",
        "2s",
        "Time between SIGTERM and SIGKILL for a handler that must end; 0 sends SIGKILL at once.",
        Duration(zero_is_none=False),
    ),
    # Limits.
    _number("--threads", "Handle N requests at once; the others wait.", default=8),
    _number(
        "--backlog",
        "Let N connections wait in the kernel before they are accepted.",
        default=1024,
        maximum=2**31 - 1,
    ),
    click.option(
        "--max-request",
        metavar="SIZE",
        type=SIZE,
        default="0",
        show_default=True,
        help="Refuse requests with more payload.",
    ),
    _duration(
        "--read-timeout",
        "30s",
        "Maximum time without data within a request, and maximum time for one packet of it.",
    ),
    _duration(
        "--write-timeout",
        "60s",
        "Maximum time in which no data moves while the client should read.",
    ),
    # Access.
    click.option(
        "--mode",
        metavar="OCTAL",
        type=MODE,
        help="Permissions of the socket, independent of the umask; to connect, a client needs "
        "write permission.  [default: 0600; 0660 with --group, 0666 with --allow-user]",
    ),
    click.option(
        "--group",
        metavar="GROUP",
        type=GROUP,
        help="Give the socket to this group, a name or a number.",
    ),
    click.option(
        "--allow-user",
        "allowed_users",
        metavar="USER",
        type=USER,
        multiple=True,
        help="Answer only this user's requests, a name or a number; repeatable. Neither root nor "
        "the server's own user is allowed unless named.",
    ),
    # The end.
    _number("--count", "Stop after N requests."),
    _duration("--idle-timeout", "0", "Stop after this long without a request."),
    click.option(
        "--quit-on",
        metavar="TEXT",
        help="Answer a request of exactly these bytes with an empty response, and stop.",
    ),
    _duration("--drain-timeout", "10s", "Maximum time to answer connected clients when stopping."),
    # The process.
    click.option(
        "--background", is_flag=True, help="Daemonize; return once the server is listening."
    ),
    _duration("--max-wait", "60s", "With --background, maximum time until it is listening."),
    click.option(
        "--pid-file",
        metavar="FILE",
        help="Write the server's process id to FILE, and remove FILE at the end. A FILE in use by "
        "another server is an error.",
    ),
    # The log.
    click.option(
        "--log-file",
        metavar="FILE",
        help="Append the log to FILE instead of stderr; SIGHUP reopens it.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Format of the log; json writes one object per line.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only."),
    click.option("-v", "--verbose", is_flag=True, help="Log debug details."),
)


def serve_options(command: _Command) -> _Command:
    """Add all options but those of the trace; --help lists them in the same order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
