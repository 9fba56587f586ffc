"""Configuration of a server. Times are seconds, sizes bytes, None means no limit."""

from __future__ import annotations

from dataclasses import dataclass

from simpleipc_cli.system import SPOOL_FOLDER

DRAIN_IDLE_TIMEOUT = 1.0
"""Seconds after which a connection that sends nothing is closed while the server drains."""

LINGER = 1.0
"""Seconds without output after which the output of a handler that has exited is complete."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The server's limits and choices; `sipc serve --help` describes each.

    `sipc serve` passes them all: the defaults of its options are in cli/serve/command.py.
    """

    max_concurrency: int = 8
    max_request: int | None = None
    read_timeout: float | None = 30.0
    write_timeout: float | None = 60.0
    handler_timeout: float | None = None
    grace_period: float = 2.0
    drain_timeout: float | None = 10.0
    max_requests: int | None = None
    idle_timeout: float | None = None
    quit_on: bytes | None = None
    allowed_users: frozenset[int] | None = None
    whole_request: bool = False
    finish_on_hangup: bool = False
    spool_folder: str = SPOOL_FOLDER
