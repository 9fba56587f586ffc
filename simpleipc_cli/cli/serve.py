"""`sipc serve`: options in, a server running, its end out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from simpleipc_cli.cli import serve_options
from simpleipc_cli.cli.options import chosen_endpoint, path_argument, trace_options
from simpleipc_cli.cli.serve_handler import chosen_command, new_handler
from simpleipc_cli.cli.serverlog import TextLog
from simpleipc_cli.cli.serving import run
from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.limits import Limits
from simpleipc_cli.spool import SPOOL_FOLDER
from simpleipc_cli.transport import Stream

EXAMPLES = """\b
Examples:
  sipc serve demo.sock --exec ./handler.sh
  sipc serve --exec 'tr a-z A-Z' --threads 4 --timeout 10s
  sipc serve demo.sock --worker ./worker.py"""


@click.command(epilog=EXAMPLES)
@path_argument
@serve_options.handlers
@serve_options.limits
@serve_options.access
@serve_options.stopping
@serve_options.logging
@trace_options
def serve(path: str | None, **given: Any) -> int:
    """Listen on PATH and answer each request with a command.

    --exec runs it anew for each request, --worker keeps it running.

    Ends on SIGTERM or SIGINT, when everything already connected has been answered; a
    second signal ends it at once. Without PATH: $SIPC_PATH, else sipc.sock in
    $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    Durations: 500ms, 2s, 1m30s; sizes: 4096, 64K, 10M; 0 is no limit.
    """
    command = chosen_command(given)
    log = TextLog(quiet=given["quiet"], verbose=given["verbose"])
    endpoint = chosen_endpoint(path)
    with _trace(endpoint.path, log, on_stderr=given["trace"], file=given["trace_file"]) as watch:
        place = endpoint.prepare()
        return run(
            place,
            command,
            _limits(given),
            new_handler=lambda limit: new_handler(command, given, place, limit, log),
            mode=given["mode"],
            backlog=given["backlog"],
            log=log,
            watch=watch,
        )


def _limits(given: dict[str, Any]) -> Limits:
    return Limits(
        threads=given["threads"],
        max_request=given["max_request"],
        read_timeout=given["read_timeout"],
        write_timeout=given["write_timeout"],
        timeout=given["timeout"],
        kill_after=given["kill_after"],
        drain_timeout=given["drain_timeout"],
        count=given["count"],
        whole_request=given["whole_request"],
        finish_on_hangup=given["on_hangup"] == "finish",
        spool_folder=os.environ.get("TMPDIR") or SPOOL_FOLDER,
    )


@contextmanager
def _trace(
    path: str, log: TextLog, *, on_stderr: bool, file: str | None
) -> Iterator[Callable[[Stream, str], Stream] | None]:
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
