"""Which handler `sipc serve` was asked for."""

from __future__ import annotations

import os
from typing import Any

import click

from simpleipc_cli.cli.serve.activation import for_handlers
from simpleipc_cli.handlers.exec import ProcessHandler
from simpleipc_cli.process import Command
from simpleipc_cli.server.handler import Handler
from simpleipc_cli.server.log import Log
from simpleipc_cli.system.fd_limit import DescriptorLimit


def chosen_command(given: dict[str, Any]) -> Command:
    """The command of --exec or --worker. Raises UsageError unless it is exactly one of them."""
    command, worker = given["command"], given["worker"]
    if command is not None and worker is not None:
        raise click.UsageError("--exec and --worker cannot be combined")
    if command is None and worker is None:
        raise click.UsageError("one of --exec CMD or --worker CMD is required")
    line = command if worker is None else worker
    if not line.strip():
        name = "--exec" if worker is None else "--worker"
        raise click.UsageError(f"{name}: the command is empty")
    if worker is None and given["max_requests"] is not None:
        raise click.UsageError("--max-requests-per-worker requires --worker")
    if given["prestart"] is not None and worker is not None:
        raise click.UsageError("--prestart cannot be combined with --worker")
    if given["prestart"] is not None and given["whole_request"]:
        raise click.UsageError(
            "--prestart cannot be combined with --whole-request: the first starts handlers before "
            "their requests, the second after them"
        )
    return Command(line, os.environ.get("PATH", os.defpath))


def new_handler(
    command: Command, given: dict[str, Any], path: str, descriptors: DescriptorLimit, log: Log
) -> Handler:
    """The handler of the server at `path`; nothing is started yet."""
    environment = for_handlers(os.environ)
    if given["prestart"] is not None:
        from simpleipc_cli.handlers.prestart import PrestartHandler  # noqa: PLC0415

        return PrestartHandler(
            command,
            environment,
            descriptors,
            log,
            path=os.path.abspath(path),
            count=given["prestart"],
            grace_period=given["kill_after"],
        )
    if given["worker"] is None:
        return ProcessHandler(command, environment, descriptors)
    from simpleipc_cli.handlers.worker_pool import WorkerPool  # noqa: PLC0415

    return WorkerPool(
        command,
        environment,
        descriptors,
        log,
        max_workers=given["threads"],
        max_requests=given["max_requests"],
        grace_period=given["kill_after"],
    )
