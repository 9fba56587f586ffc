"""`sipc serve`: its options."""

from __future__ import annotations

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
from simpleipc_cli.cli.serve import ServeOptions, UsageError
from simpleipc_cli.cli.serve.start import start

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
    default=ServeOptions.on_hangup,
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
    default=f"{ServeOptions.kill_after:g}s",
    help="Time between SIGTERM and SIGKILL for a handler that must end; 0 sends SIGKILL at once.",
)
# Limits.
@count_option(
    "--threads",
    default=ServeOptions.threads,
    help="Handle at most N requests at once; queue the others.",
)
@click.option(
    "--backlog",
    metavar="N",
    type=click.IntRange(1, 2**31 - 1),
    default=ServeOptions.backlog,
    help="Let N connections wait in the kernel before they are accepted.",
)
@click.option("--max-request", type=SIZE, default="0", help="Maximum payload of a request.")
@duration_option(
    "--read-timeout",
    default=f"{ServeOptions.read_timeout:g}s",
    help="Maximum time to wait for more bytes of a request, and for the end of a packet.",
)
@duration_option(
    "--write-timeout",
    default=f"{ServeOptions.write_timeout:g}s",
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
    default=f"{ServeOptions.drain_timeout:g}s",
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
    "--max-wait",
    default=f"{ServeOptions.max_wait:g}s",
    help="Maximum time until a --background server listens.",
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
    default=ServeOptions.log_format,
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
def serve(ctx: click.Context, /, **params: Any) -> int:
    """Run `sipc serve`."""
    try:
        return start({name: value for name, value in params.items() if option_given(ctx, name)})
    except UsageError as error:
        raise click.UsageError(str(error)) from error
