"""What a service manager tells a server in its environment: sockets, readiness, watchdog.

The words are systemd's: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3). They are
meant for the server's process alone, so handlers do not get to see them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import click

from simpleipc_cli.cli.options import option_given
from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.systemd import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.transport.unix.listener import UnixInheritedListener

_FIRST = 3  # the first descriptor that is passed (SD_LISTEN_FDS_START)
_MOST = 1 << 20  # descriptors; more than Linux lets any process have
_NAME = "sipc"
_OURS = {
    *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"),
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
}
_DECIDED_BY_THE_UNIT = {"mode": "--mode", "group": "--group", "backlog": "--backlog"}


def for_handlers(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what is meant for the server alone."""
    return {name: value for name, value in environment.items() if name not in _OURS}


def passed_listener(
    ctx: click.Context, path: str | None, environment: Mapping[str, str]
) -> UnixInheritedListener | None:
    """The listening socket that we were started with, if there is one.

    Raises UsageError for options that do not go with it, and for a `path` that is not the
    socket's; SipcError for sockets that cannot be served.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()) or "LISTEN_FDS" not in environment:
        return None
    number = _chosen(environment["LISTEN_FDS"], environment.get("LISTEN_FDNAMES", ""))
    if ctx.params["background"]:
        raise click.UsageError(
            "--background cannot be used with a socket passed by the service manager"
        )
    for name, option in _DECIDED_BY_THE_UNIT.items():
        if option_given(ctx, name):
            raise click.UsageError(
                f"{option} cannot be used with a passed socket: its unit decides that"
            )
    from simpleipc_cli.transport import listener_from_fd  # noqa: PLC0415 - only for those who are passed one

    listener = listener_from_fd(number)
    if path is not None and not listener.is_at(path):
        listener.close()
        raise click.UsageError(f"PATH is {path}, but the passed socket is at {listener.path}")
    return listener


def _chosen(count: str, names: str) -> int:
    """The descriptor to serve, of all that were passed; handlers get none of them."""
    # Python refuses to convert thousands of digits, with an error of its own.
    if not count.isdecimal() or len(count) > len(str(_MOST)) or not 0 < int(count) <= _MOST:
        raise SipcError(
            f"LISTEN_FDS is {count!r}, not a number of sockets", "unset it, or use a socket unit"
        )
    numbers = range(_FIRST, _FIRST + int(count))
    for number in numbers:
        try:
            os.set_inheritable(number, False)
        except OSError:
            pass  # not open, which matters only if it is the one
    if len(numbers) == 1:
        return _FIRST
    named = [
        number for number, name in zip(numbers, names.split(":"), strict=False) if name == _NAME
    ]
    if len(named) != 1:
        raise SipcError(
            f"{count} sockets were passed, {len(named)} of them named {_NAME}",
            f"set FileDescriptorName={_NAME} in one socket unit, or pass a single socket",
        )
    return named[0]


def notifier(environment: Mapping[str, str], warn: Callable[[str], None]) -> Notifier:
    """The way to the service manager, if there is one."""
    pid = environment.get("WATCHDOG_PID")
    return Notifier(
        environment.get("NOTIFY_SOCKET", ""),
        watchdog=_seconds(environment.get("WATCHDOG_USEC", ""))
        if pid is None or pid == str(os.getpid())
        else None,
        warn=warn,
    )


def _seconds(micros: str) -> float | None:
    """Microseconds from the environment; None if there are none."""
    if not micros.isdecimal() or len(micros) > 20:  # 64 bits at most
        return None
    return int(micros) / 1_000_000 or None
