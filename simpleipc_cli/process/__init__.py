"""Child processes of this operating system, under names that are the same on all."""

from __future__ import annotations

import sys

from simpleipc_cli.lazy import lazy_exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from simpleipc_cli.process import base
    from simpleipc_cli.process.posix import child, command, pidfile, stdio_pipes
    from simpleipc_cli.process.posix import daemonize as _daemonize
    from simpleipc_cli.process.posix import detached as _detached
    from simpleipc_cli.process.posix.child import ChildProcess, describe, prepare_spawn
    from simpleipc_cli.process.posix.command import Command
    from simpleipc_cli.process.posix.daemonize import PendingDaemon, ReadyPipe, daemonize
    from simpleipc_cli.process.posix.detached import Detached, start_detached
    from simpleipc_cli.process.posix.pidfile import PidFile
    from simpleipc_cli.process.posix.stdio_pipes import StdioPipes, WorkerPipes
    from simpleipc_cli.process.windows import child as win_child
    from simpleipc_cli.process.windows import command as win_command
    from simpleipc_cli.process.windows import daemonize as win_daemonize
    from simpleipc_cli.process.windows import detached as win_detached
    from simpleipc_cli.process.windows import pidfile as win_pidfile
    from simpleipc_cli.process.windows import stdio_pipes as win_stdio_pipes

    # Both systems offer what base describes.
    _commands: list[Callable[[str, str], base.Command]] = [command.Command, win_command.Command]
    _children: list[type[base.ChildProcess]] = [child.ChildProcess, win_child.ChildProcess]
    _pipes: list[Callable[[int | None], base.StdioPipes]] = [
        *(stdio_pipes.StdioPipes, win_stdio_pipes.StdioPipes),
        *(stdio_pipes.WorkerPipes, win_stdio_pipes.WorkerPipes),
    ]
    _texts: list[Callable[[int], tuple[str, str]]] = [child.describe, win_child.describe]
    _preparations: list[Callable[[], object]] = [child.prepare_spawn, win_child.prepare_spawn]
    _starts: list[Callable[[Any, dict[str, str]], base.Detached]] = [
        _detached.start_detached,
        win_detached.start_detached,
    ]
    _daemons: list[Callable[[list[str], dict[str, str]], base.PendingDaemon | base.ReadyPipe]] = [
        _daemonize.daemonize,
        win_daemonize.daemonize,
    ]
    _pid_files: list[Callable[[str], base.PidFile]] = [pidfile.PidFile, win_pidfile.PidFile]

__all__ = [
    "ChildProcess",
    "Command",
    "Detached",
    "PendingDaemon",
    "PidFile",
    "ReadyPipe",
    "StdioPipes",
    "WorkerPipes",
    "daemonize",
    "describe",
    "prepare_spawn",
    "start_detached",
]

_MODULES = {
    "child": ("ChildProcess", "describe", "prepare_spawn"),
    "command": ("Command",),
    "daemonize": ("PendingDaemon", "ReadyPipe", "daemonize"),
    "detached": ("Detached", "start_detached"),
    "pidfile": ("PidFile",),
    "stdio_pipes": ("StdioPipes", "WorkerPipes"),
}
_SYSTEM = "windows" if sys.platform == "win32" else "posix"

__getattr__ = lazy_exports(
    __name__,
    {name: f"process.{_SYSTEM}.{module}" for module, names in _MODULES.items() for name in names},
)
