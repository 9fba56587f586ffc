"""The command `sipc serve`: its arguments, and whether they fit together."""

from __future__ import annotations

import os
from typing import Any

import click

from simpleipc_cli.cli.options import option_given, path_argument, resolve_endpoint, trace_options
from simpleipc_cli.cli.serve.options import ServeOptions, serve_options
from simpleipc_cli.cli.serve.run import run, run_in_background
from simpleipc_cli.server import systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.transport.unix.listener import UnixInheritedListener

EXAMPLES = """\b
Examples:
  sipc serve demo.sock --exec ./handler.sh
  sipc serve --exec 'tr a-z A-Z' --threads 4 --timeout 10s
  sipc serve demo.sock --worker ./worker.py"""


@click.command(epilog=EXAMPLES)
@path_argument
@serve_options
@trace_options
@click.pass_context
def serve(ctx: click.Context, /, path: str | None, **given: Any) -> int:
    """Listen on PATH and answer each request with a command.

    --exec starts it for each request, --worker keeps it running.

    SIGTERM or SIGINT stops the server after it has answered all connected clients; a second
    signal stops it at once. Without PATH: $SIPC_PATH, else sipc.sock in $XDG_RUNTIME_DIR, else
    in /tmp/sipc-UID.

    Durations: 500ms, 2s, 1m30s; sizes: 4096, 64K, 10M; 0 means no limit.
    """
    options = ServeOptions(**given)
    options.check(ctx)
    listener = _passed_listener(ctx, path)
    if listener is not None:
        return run(listener.path, options, listener=listener)
    endpoint = resolve_endpoint(path)
    if options.background:
        return run_in_background(endpoint, options)
    return run(endpoint.ensure_parent(), options)


def _passed_listener(ctx: click.Context, path: str | None) -> UnixInheritedListener | None:
    """Return the listening socket that the service manager has passed, if any.

    Raises UsageError for options that such a socket excludes, and for a `path` other than its own,
    SipcError for sockets that cannot be served.
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
