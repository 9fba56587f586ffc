"""`sipc serve`: its options, and which can be combined."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import click

from simpleipc_cli.cli.options import (
    SIZE,
    Verb,
    count_option,
    duration_option,
    duration_or_zero,
    file_option,
    group,
    octal,
    option_given,
    path_argument,
    text_option,
    trace_file_option,
    trace_option,
    user,
)
from simpleipc_cli.cli.parse import resolve_endpoint, spool_folders
from simpleipc_cli.cli.serve import ServeOptions
from simpleipc_cli.cli.serve.run import run, run_in_background
from simpleipc_cli.cli.stdio import STDERR, STDIN, STDOUT, is_socket, named_descriptor
from simpleipc_cli.server import systemd
from simpleipc_cli.server.context import ServerConfig
from simpleipc_cli.system import absolute_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.transport.unix.listener import UnixInheritedListener

HELP = """Listen on PATH and answer each request with a command.

--exec starts the command for each request, --worker keeps it running; --call calls a Python
function instead.

SIGTERM or SIGINT stops the server after it has answered all connected clients; a second
signal stops it at once. Without PATH: $SIPC_PATH, else sipc.sock in $XDG_RUNTIME_DIR, else
in /tmp/sipc-UID.

Durations: 500ms, 2s, 1m30s; sizes: 4096, 64K, 10M; 0 means no limit.
"""

EXAMPLES = """\b
Examples:
  sipc serve demo.sock --exec ./handler.sh
  sipc serve --exec 'tr a-z A-Z' --threads 4 --timeout 10s
  sipc serve demo.sock --worker ./worker.py"""

_MAX_KILL = 5.0  # seconds to wait for handlers after SIGKILL (tunable)


@click.command(cls=Verb, help=HELP, epilog=EXAMPLES)
@path_argument
# The handler.
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run CMD, a shell command line, for every request: the request is its standard input, "
    "its standard output is the response.",
)
@click.option(
    "--worker",
    metavar="CMD",
    help="In place of --exec: start CMD when needed, at most one per thread, and keep it "
    "running. Requests are written to its standard input, responses read from its standard "
    "output, as packets, each message ended by a flush.",
)
@click.option(
    "--call",
    metavar="MODULE:FUNCTION",
    help="In place of --exec: call a Python function in the server's process. It gets the request "
    "and returns the response, both bytes; or it gets two objects to read from and to write to. "
    "SIGHUP imports the module again.",
)
@count_option("--max-requests-per-worker", help="Replace a worker after N requests.")
@count_option(
    "--prestart",
    help="Keep N idle processes of --exec started before their requests; they do not get the "
    "variables that describe the client.",
)
@click.option(
    "--whole-request", is_flag=True, help="Start the handler only when the request is complete."
)
@click.option(
    "--on-hangup",
    type=click.Choice(["kill", "finish"]),
    default="kill",
    help="What to do with a handler whose client closes the connection; finish applies only to "
    "complete requests.",
)
@duration_option(
    "--timeout",
    default="0",
    help="Maximum time from a handler's start to its end; for a prestarted handler or a worker, "
    "from the request to the end of the response.",
)
@click.option(
    "--kill-after",
    metavar="DURATION",
    type=duration_or_zero,
    default="2s",
    help="Time between SIGTERM and SIGKILL for a handler that must end; 0 sends SIGKILL at once.",
)
# Limits.
@count_option("--threads", default=8, help="Handle at most N requests at once; queue the others.")
@click.option(
    "--backlog",
    metavar="N",
    type=click.IntRange(1, 2**31 - 1),
    default=1024,
    help="Let N connections wait in the kernel before they are accepted.",
)
@click.option("--max-request", type=SIZE, default="0", help="Maximum payload of a request.")
@duration_option(
    "--read-timeout",
    default="30s",
    help="Maximum time to wait for more bytes of a request, and for the end of a packet.",
)
@duration_option(
    "--write-timeout",
    default="60s",
    help="Maximum time without any progress while the client should read the response.",
)
# Access.
@click.option(
    "--mode",
    type=octal,
    help="Permissions of the socket, independent of the umask; to connect, a client needs "
    "write permission.  [default: 0600; 0660 with --group, 0666 with --allow-user]",
)
@click.option("--group", type=group, help="Give the socket to this group, a name or a number.")
@click.option(
    "--allow-user",
    "allowed_users",
    type=user,
    multiple=True,
    help="Answer only this user's requests, a name or a number; repeatable. Neither root nor "
    "the server's own user is allowed unless named.",
)
# The end.
@count_option("--count", help="Stop after N requests.")
@duration_option("--idle-timeout", default="0", help="Stop after DURATION without a request.")
@text_option(
    "--quit-on",
    help="When a request is exactly TEXT, send an empty response and stop.",
)
@duration_option(
    "--drain-timeout",
    default="10s",
    help="Maximum time to answer connected clients when stopping.",
)
# The process.
@click.option(
    "--stdio",
    is_flag=True,
    help="In place of PATH: answer one request, on the connection that is standard input and "
    "output, and exit. For programs that accept connections, such as s6-ipcserver.",
)
@click.option("--background", is_flag=True, help="Daemonize; return once the server is listening.")
@duration_option(
    "--max-wait", default="60s", help="Maximum time until a --background server listens."
)
@file_option(
    "--pid-file",
    help="Write the server's process id to FILE, and remove FILE at the end. A FILE in use by "
    "another server is an error.",
)
# The log.
@file_option(
    "--log-file",
    help="Append the log to FILE instead of stderr; SIGHUP reopens it.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Format of the log; json writes one object per line.",
)
@click.option(
    "--handler-stderr",
    type=click.Choice(["inherit", "log", "discard"]),
    help="Where handlers' standard error goes: to the server's own; to the log, line by line, with "
    "the request's id; or nowhere.  [default: log with --log-file, --background or --log-format "
    "json, else inherit]",
)
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Log debug details.")
@trace_option
@trace_file_option
@click.pass_context
def serve(ctx: click.Context, /, path: str | None, **given: Any) -> int:
    """Run `sipc serve`."""
    options = ServeOptions(config=_take_config(given), **given)
    _check(options)
    if option_given(ctx, "max_wait") and not options.background:
        raise click.UsageError("--max-wait requires --background")
    if options.stdio:
        from simpleipc_cli.cli.serve.stdio import serve_stdio  # noqa: PLC0415 - seldom needed

        return serve_stdio(ctx, path, options)
    listener = _passed_listener(ctx, path)
    if listener is not None:
        return run(listener.path, options, listener=listener)
    if path is None and is_socket(STDIN) and not options.background:
        from simpleipc_cli.cli.serve.stdio import check_stdin  # noqa: PLC0415

        check_stdin()
    endpoint = resolve_endpoint(path)
    options = replace(options, warning=endpoint.warning)
    if options.background:
        return run_in_background(endpoint, options)
    return run(endpoint.ensure_parent(), options)


def _take_config(given: dict[str, Any]) -> ServerConfig:
    """Remove the options that are fields of ServerConfig; return them as a ServerConfig."""
    quit_on = given.pop("quit_on")
    return ServerConfig(
        max_concurrency=given.pop("threads"),
        max_request=given.pop("max_request"),
        read_timeout=given.pop("read_timeout"),
        write_timeout=given.pop("write_timeout"),
        handler_timeout=given.pop("timeout"),
        drain_timeout=given.pop("drain_timeout"),
        abort_timeout=given["kill_after"] + _MAX_KILL,
        max_requests=given.pop("count"),
        idle_timeout=given.pop("idle_timeout"),
        quit_on=None if quit_on is None else os.fsencode(quit_on),
        allowed_users=frozenset(given.pop("allowed_users")) or None,
        whole_request=given.pop("whole_request"),
        finish_on_hangup=given.pop("on_hangup") == "finish",
        spool_folders=spool_folders(),
    )


def _check(options: ServeOptions) -> None:
    """Raise UsageError for options that cannot be combined."""
    command, worker = options.command, options.worker
    handlers = {"--exec": command, "--worker": worker, "--call": options.call}
    given = [name for name, value in handlers.items() if value is not None]
    if not given:
        raise click.UsageError("one of --exec CMD, --worker CMD, --call FUNCTION is required")
    if len(given) > 1:
        raise click.UsageError(f"{given[0]} and {given[1]} cannot be combined")
    if not str(handlers[given[0]]).strip():
        raise click.UsageError(f"{given[0]}: the command is empty")
    if worker is None and options.max_requests_per_worker is not None:
        raise click.UsageError("--max-requests-per-worker requires --worker")
    if options.handler_stderr is not None and options.call is not None:
        raise click.UsageError("--handler-stderr cannot be combined with --call")
    if options.prestart is not None and command is None:
        raise click.UsageError(f"--prestart cannot be combined with {given[0]}")
    if options.prestart is not None and options.config.whole_request:
        raise click.UsageError(
            "--prestart cannot be combined with --whole-request: the first starts handlers "
            "before their requests, the second after them"
        )
    if options.pid_file is not None and named_descriptor(options.pid_file, STDOUT) is not None:
        raise click.UsageError("--pid-file must name a file: it is also a lock")
    for name, path in (("--log-file", options.log_file), ("--trace-file", options.trace_file)):
        number = named_descriptor(path, STDOUT) if path else None
        if options.background and number not in {None, STDERR}:
            raise click.UsageError(f"{name}: only stderr is kept open with --background")
        if options.stdio and number in {STDIN, STDOUT}:
            raise click.UsageError(f"{name}: with --stdio, this is the connection")
    names = [path for path in (options.pid_file, options.log_file) if path]
    files = [absolute_path(path, os.path.realpath) for path in names]
    if len(files) == 2 and files[0] == files[1]:
        raise click.UsageError("--pid-file and --log-file are the same file")


def _passed_listener(ctx: click.Context, path: str | None) -> UnixInheritedListener | None:
    """Return the listening socket that the service manager has passed, if any.

    Raises UsageError for options that cannot be combined with it, and for a `path` that is not its
    own; SipcError for unsuitable sockets.
    """
    descriptor = systemd.passed_descriptor(os.environ)
    if descriptor is None:
        return None
    if ctx.params["background"]:
        raise click.UsageError(
            "--background cannot be used with a socket passed by the service manager"
        )
    for name in ("mode", "group", "backlog"):
        if option_given(ctx, name):
            raise click.UsageError(
                f"--{name} cannot be used with a socket passed by the service manager: "
                "set it in the socket unit"
            )
    from simpleipc_cli.transport import listener_from_fd  # noqa: PLC0415 - seldom needed

    listener = listener_from_fd(descriptor)
    if path is not None and not listener.is_at(path):
        listener.close()
        raise click.UsageError(f"PATH is {path}, but the passed socket is at {listener.path}")
    return listener
