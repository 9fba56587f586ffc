"""`sipc serve`."""

from __future__ import annotations

import os

from simpleipc_cli.cli.parse import Options, spool_folders
from simpleipc_cli.server.context import ServerConfig
from simpleipc_cli.system import UNSUPPORTED_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_CONFIG = ServerConfig()
_MAX_KILL = 5.0  # seconds to wait for handlers after SIGKILL (tunable)


class UsageError(Exception):
    """Options that cannot be combined; click shows the message."""


class ServeOptions(Options):
    """The options of `sipc serve`; times in seconds. None means no limit, or not given."""

    given: Collection[str] = ()
    """The names of those that are on the command line."""
    path: str | None = None
    command: str | None = None
    worker: str | None = None
    call: str | None = None
    max_requests_per_worker: int | None = None
    prestart: int | None = None
    whole_request: bool = _CONFIG.whole_request
    on_hangup: str = "kill"
    timeout: float | None = _CONFIG.handler_timeout
    kill_after: float = 2.0
    threads: int = _CONFIG.max_concurrency
    backlog: int = 1024
    max_request: int | None = _CONFIG.max_request
    read_timeout: float | None = _CONFIG.read_timeout
    write_timeout: float | None = _CONFIG.write_timeout
    mode: int | None = None
    group: int | None = None
    allowed_users: Collection[int] = ()
    count: int | None = _CONFIG.max_requests
    idle_timeout: float | None = _CONFIG.idle_timeout
    quit_on: str | None = None
    drain_timeout: float | None = _CONFIG.drain_timeout
    stdio: bool = False
    background: bool = False
    max_wait: float | None = 60.0
    pid_file: str | None = None
    log_file: str | None = None
    log_format: str = "text"
    handler_stderr: str | None = None
    quiet: bool = False
    verbose: bool = False
    trace: bool = False
    trace_file: str | None = None
    warning: str = ""
    """What to log at the start; empty for nothing."""

    def server_config(self) -> ServerConfig:
        """Return the settings of the server."""
        return ServerConfig(
            max_concurrency=self.threads,
            max_request=self.max_request,
            read_timeout=self.read_timeout,
            write_timeout=self.write_timeout,
            handler_timeout=self.timeout,
            drain_timeout=self.drain_timeout,
            abort_timeout=self.kill_after + _MAX_KILL,
            max_requests=self.count,
            idle_timeout=self.idle_timeout,
            quit_on=None if self.quit_on is None else os.fsencode(self.quit_on),
            allowed_users=frozenset(self.allowed_users) or None,
            whole_request=self.whole_request,
            finish_on_hangup=self.on_hangup == "finish",
            spool_folders=spool_folders(),
        )

    @property
    def socket_mode(self) -> int:
        """The given mode, or a default that lets the given group or users connect."""
        if self.mode is not None:
            return self.mode
        if self.allowed_users:
            return 0o666
        return 0o600 if self.group is None else 0o660

    @property
    def stderr_goes_to(self) -> str:
        """Where handlers' standard error goes: "inherit", "log" or "discard"."""
        if self.handler_stderr is not None:
            return self.handler_stderr
        has_log = self.background or self.log_file is not None or self.log_format == "json"
        can_log = self.call is None and "--handler-stderr" not in UNSUPPORTED_OPTIONS
        return "log" if has_log and can_log else "inherit"

    @property
    def sighup_reloads(self) -> bool:
        """Whether SIGHUP reloads. Otherwise it stops the server, as its terminal has closed."""
        return self.background or any(
            value is not None for value in (self.log_file, self.worker, self.call, self.prestart)
        )
