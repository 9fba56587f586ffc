"""The numbers a server goes by. Times are seconds, sizes bytes, None is no limit."""

from __future__ import annotations

from dataclasses import dataclass

from simpleipc_cli.system import SPOOL_FOLDER

DRAIN_SILENCE = 1.0
"""Seconds for which a connection may stay silent once the server is stopping."""

LINGER = 1.0
"""Seconds of silence after which an output whose handler has exited is taken to be over."""


@dataclass(frozen=True, slots=True)
class Limits:
    """See `sipc serve --help` for each."""

    threads: int = 8
    max_request: int | None = None
    read_timeout: float | None = 30.0
    write_timeout: float | None = 60.0
    timeout: float | None = None
    kill_after: float = 2.0
    drain_timeout: float | None = 10.0
    count: int | None = None
    idle_timeout: float | None = None
    quit_on: bytes | None = None
    allowed_users: frozenset[int] | None = None
    whole_request: bool = False
    finish_on_hangup: bool = False
    spool_folder: str = SPOOL_FOLDER
