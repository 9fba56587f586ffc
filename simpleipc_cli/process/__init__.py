"""Child processes of this operating system, under names that are the same on all."""

from __future__ import annotations

import sys

from simpleipc_cli.lazy import lazy_exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.process.posix.child import describe
    from simpleipc_cli.process.posix.command import Command
    from simpleipc_cli.process.posix.daemonize import ReadyPipe, daemonize
    from simpleipc_cli.process.posix.detached import Detached, start_detached
    from simpleipc_cli.process.posix.exec import (
        ProcessHandler,
        ProcessRun,
        start_process,
        start_worker,
    )
    from simpleipc_cli.process.posix.pidfile import PidFile

__all__ = [
    "Command",
    "Detached",
    "PidFile",
    "ProcessHandler",
    "ProcessRun",
    "ReadyPipe",
    "daemonize",
    "describe",
    "start_detached",
    "start_process",
    "start_worker",
]

if sys.platform == "win32":
    _EXPORTS = {
        "Command": "process.windows.command:WinCommand",
        "Detached": "process.windows.detached:WinDetached",
        "ProcessHandler": "process.windows.exec:WinProcessHandler",
        "ProcessRun": "process.windows.exec:WinProcessRun",
        "ReadyPipe": "process.windows.daemonize:WinReadyPipe",
        "daemonize": "process.windows.daemonize",
        "describe": "process.windows.exec",
        "PidFile": "process.windows.pidfile",
        "start_detached": "process.windows.detached",
        "start_process": "process.windows.exec",
        "start_worker": "process.windows.exec",
    }
else:
    _EXPORTS = {
        "Command": "process.posix.command",
        "Detached": "process.posix.detached",
        "ProcessHandler": "process.posix.exec",
        "ProcessRun": "process.posix.exec",
        "ReadyPipe": "process.posix.daemonize",
        "daemonize": "process.posix.daemonize",
        "describe": "process.posix.child",
        "PidFile": "process.posix.pidfile",
        "start_detached": "process.posix.detached",
        "start_process": "process.posix.exec",
        "start_worker": "process.posix.exec",
    }

__getattr__ = lazy_exports(__name__, _EXPORTS)
