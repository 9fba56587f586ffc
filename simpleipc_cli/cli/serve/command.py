"""`sipc serve`: options in, a server running, its end out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click

from simpleipc_cli.cli.line_writer import LineWriter
from simpleipc_cli.cli.options import option_given, path_argument, resolve_endpoint, trace_options
from simpleipc_cli.cli.serve import options as serve_options
from simpleipc_cli.cli.serve.activation import passed_listener
from simpleipc_cli.cli.serve.handler import chosen_command, new_handler
from simpleipc_cli.cli.serve.log import JsonLog, TextLog
from simpleipc_cli.cli.serve.run import ServeRuntime, run
from simpleipc_cli.errors import SipcError
from simpleipc_cli.process import Command
from simpleipc_cli.server.config import ServerConfig
from simpleipc_cli.server.log import Log
from simpleipc_cli.system import SPOOL_FOLDER
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
@serve_options.service
@serve_options.logging
@trace_options
@click.pass_context
def serve(ctx: click.Context, /, path: str | None, **given: Any) -> int:
    """Listen on PATH and answer each request with a command.

    --exec runs it anew for each request, --worker keeps it running.

    Ends on SIGTERM or SIGINT, when everything already connected has been answered; a
    second signal ends it at once. Without PATH: $SIPC_PATH, else sipc.sock in
    $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    Durations: 500ms, 2s, 1m30s; sizes: 4096, 64K, 10M; 0 is no limit.
    """
    command = chosen_command(given)
    if option_given(ctx, "max_wait") and not given["background"]:
        raise click.UsageError("--max-wait requires --background")
    if given["pid_file"] and given["log_file"] and _same(given["pid_file"], given["log_file"]):
        raise click.UsageError("--pid-file and --log-file are the same file")
    listener = passed_listener(ctx, path, os.environ)
    service = ServeRuntime(pid_file=given["pid_file"], reload_on_hangup=_sighup_means_reload(given))
    if listener is not None:
        return _serve(listener.path, command, given, replace(service, listener=listener))
    endpoint = resolve_endpoint(path)
    if not given["background"]:
        return _serve(endpoint.ensure_parent(), command, given, service)
    from simpleipc_cli.cli.serve.background import in_background  # noqa: PLC0415 - forks, if asked to

    def in_child(listening: Callable[[], None]) -> int:
        return _serve(
            endpoint.ensure_parent(), command, given, replace(service, listening=listening)
        )

    return in_background(in_child, given["max_wait"])


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _sighup_means_reload(given: dict[str, Any]) -> bool:
    """Whether SIGHUP is a wish for that, or, as there is no terminal, at least for nothing else."""
    names = ("background", "log_file", "worker", "prestart")
    return any(given[name] not in {None, False} for name in names)


def _serve(path: str, command: Command, given: dict[str, Any], service: ServeRuntime) -> int:
    """Serve there, in this process."""
    log = _log(given)
    with (
        _end_is_logged(log, in_file=given["log_file"] is not None),
        _trace(path, log, on_stderr=given["trace"], file=given["trace_file"]) as watch,
    ):
        return run(
            path,
            command,
            _config(given),
            new_handler=lambda limit: new_handler(command, given, path, limit, log),
            mode=_mode(given),
            group=given["group"],
            backlog=given["backlog"],
            log=log,
            observe=watch,
            service=service,
        )


@contextmanager
def _end_is_logged(log: Log, *, in_file: bool) -> Iterator[None]:
    """Why it ended goes to stderr; to a log file, too, for in the background it is all there is."""
    try:
        yield
    except SipcError as error:
        if in_file:
            log.error(f"sipc serve: {error.text}")
        raise


def _log(given: dict[str, Any]) -> Log:
    kind = JsonLog if given["log_format"] == "json" else TextLog
    return kind(LineWriter(given["log_file"]), quiet=given["quiet"], verbose=given["verbose"])


def _mode(given: dict[str, Any]) -> int:
    """The mode that was given, else the one with which the others make sense."""
    mode: int | None = given["mode"]
    if mode is not None:
        return mode
    if given["allowed_users"]:
        return 0o666
    return 0o600 if given["group"] is None else 0o660


def _config(given: dict[str, Any]) -> ServerConfig:
    return ServerConfig(
        max_concurrency=given["threads"],
        max_request=given["max_request"],
        read_timeout=given["read_timeout"],
        write_timeout=given["write_timeout"],
        handler_timeout=given["timeout"],
        grace_period=given["kill_after"],
        drain_timeout=given["drain_timeout"],
        max_requests=given["count"],
        idle_timeout=given["idle_timeout"],
        quit_on=None if given["quit_on"] is None else os.fsencode(given["quit_on"]),
        allowed_users=frozenset(given["allowed_users"]) or None,
        whole_request=given["whole_request"],
        finish_on_hangup=given["on_hangup"] == "finish",
        spool_folder=os.environ.get("TMPDIR") or SPOOL_FOLDER,
    )


@contextmanager
def _trace(
    path: str, log: Log, *, on_stderr: bool, file: str | None
) -> Iterator[Callable[[Stream, str], Stream] | None]:
    """What traces each request by its id, if that was asked for; loaded only then."""
    if file is None and not on_stderr:
        yield None
        return
    from simpleipc_cli.cli.line_writer import open_trace  # noqa: PLC0415

    def warn(error: SipcError) -> None:
        log.error(f"sipc serve: {error.text}")

    tracer = open_trace(warn, on_stderr=on_stderr, path=file)
    try:
        yield lambda stream, request_id: tracer.observe(stream, request_id, "accepted on", path)
    finally:
        tracer.close()
