"""Check the options of `sipc serve`, choose where to serve, and serve. Imports no click."""

from __future__ import annotations

import os

from simpleipc_cli.cli.parse import resolve_endpoint
from simpleipc_cli.cli.serve import ServeOptions, UsageError
from simpleipc_cli.cli.serve.run import run, run_in_background
from simpleipc_cli.cli.stdio import STDERR, STDIN, STDOUT, is_socket, named_descriptor
from simpleipc_cli.server import systemd
from simpleipc_cli.system import absolute_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simpleipc_cli.transport.unix.listener import UnixInheritedListener


def start(given: dict[str, Any]) -> int:
    """Serve, with the options on the command line; return the exit status.

    Raises UsageError for options that cannot be combined; SipcError.
    """
    options = ServeOptions(**given, given=given.keys())
    _check(options)
    if options.stdio:
        from simpleipc_cli.cli.serve.stdio import serve_stdio  # noqa: PLC0415 - seldom needed

        return serve_stdio(options)
    listener = _passed_listener(options)
    if listener is not None:
        return run(listener.path, options, listener=listener)
    if options.path is None and is_socket(STDIN) and not options.background:
        from simpleipc_cli.cli.serve.stdio import check_stdin  # noqa: PLC0415

        check_stdin()
    endpoint = resolve_endpoint(options.path)
    options.warning = endpoint.warning
    if options.background:
        return run_in_background(endpoint, options)
    return run(endpoint.ensure_parent(), options)


def _check(options: ServeOptions) -> None:
    """Raise UsageError for options that cannot be combined."""
    command, worker = options.command, options.worker
    handlers = {"--exec": command, "--worker": worker, "--call": options.call}
    given = [name for name, value in handlers.items() if value is not None]
    if not given:
        raise UsageError("one of --exec CMD, --worker CMD, --call FUNCTION is required")
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} cannot be combined")
    if not str(handlers[given[0]]).strip():
        raise UsageError(f"{given[0]}: the command is empty")
    if worker is None and options.max_requests_per_worker is not None:
        raise UsageError("--max-requests-per-worker requires --worker")
    if options.handler_stderr is not None and options.call is not None:
        raise UsageError("--handler-stderr cannot be combined with --call")
    if options.prestart is not None and command is None:
        raise UsageError(f"--prestart cannot be combined with {given[0]}")
    if options.prestart is not None and options.whole_request:
        raise UsageError(
            "--prestart cannot be combined with --whole-request: the first starts handlers "
            "before their requests, the second after them"
        )
    _check_files(options)
    if "max_wait" in options.given and not options.background:
        raise UsageError("--max-wait requires --background")


def _check_files(options: ServeOptions) -> None:
    """Raise UsageError for a file that cannot be used for this, or for two purposes."""
    if options.pid_file is not None and named_descriptor(options.pid_file, STDOUT) is not None:
        raise UsageError("--pid-file must name a file: it is also a lock")
    for name, path in (("--log-file", options.log_file), ("--trace-file", options.trace_file)):
        number = named_descriptor(path, STDOUT) if path else None
        if options.background and number not in {None, STDERR}:
            raise UsageError(f"{name}: only stderr is kept open with --background")
        if options.stdio and number in {STDIN, STDOUT}:
            raise UsageError(f"{name}: with --stdio, this is the connection")
    names = [path for path in (options.pid_file, options.log_file) if path]
    files = [absolute_path(path, os.path.realpath) for path in names]
    if len(files) == 2 and files[0] == files[1]:
        raise UsageError("--pid-file and --log-file are the same file")


def _passed_listener(options: ServeOptions) -> UnixInheritedListener | None:
    """Return the listening socket that the service manager has passed, if any.

    Raises UsageError for options that cannot be combined with it, and for a path that is not its
    own; SipcError for unsuitable sockets.
    """
    descriptor = systemd.passed_descriptor(os.environ)
    if descriptor is None:
        return None
    if options.background:
        raise UsageError("--background cannot be used with a socket passed by the service manager")
    for name in ("mode", "group", "backlog"):
        if name in options.given:
            raise UsageError(
                f"--{name} cannot be used with a socket passed by the service manager: "
                "set it in the socket unit"
            )
    from simpleipc_cli.transport import listener_from_fd  # noqa: PLC0415 - seldom needed

    listener = listener_from_fd(descriptor)
    path = options.path
    if path is not None and not listener.is_at(path):
        listener.close()
        raise UsageError(f"PATH is {path}, but the passed socket is at {listener.path}")
    return listener
