"""`sipc serve`."""

from __future__ import annotations

from dataclasses import dataclass

from simpleipc_cli.server.context import ServerConfig
from simpleipc_cli.system import UNSUPPORTED_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of `sipc serve`; times in seconds. None means no limit, or not given."""

    config: ServerConfig
    kill_after: float
    command: str | None
    worker: str | None
    call: str | None
    max_requests_per_worker: int | None
    prestart: int | None
    backlog: int
    mode: int | None
    group: int | None
    stdio: bool
    background: bool
    max_wait: float | None
    pid_file: str | None
    log_file: str | None
    log_format: str
    handler_stderr: str | None
    quiet: bool
    verbose: bool
    trace: bool
    trace_file: str | None
    warning: str = ""
    """What to log at the start; empty for nothing."""

    @property
    def socket_mode(self) -> int:
        """The given mode, or a default that lets the given group or users connect."""
        if self.mode is not None:
            return self.mode
        if self.config.allowed_users:
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
