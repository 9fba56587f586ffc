"""Handlers, which answer requests. The server knows only their interface, server/handler.py.

This module picks what the operating system needs: Windows has other commands and processes.
"""

from __future__ import annotations

import sys

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

__all__ = [
    "Command",
    "Detached",
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
    _WHERE = {
        "ReadyPipe": ("process.windows.daemonize", "WinReadyPipe"),
        "Command": ("process.windows.exec", "WinCommand"),
        "Detached": ("process.windows.detached", "WinDetached"),
        "ProcessHandler": ("process.windows.exec", "WinProcessHandler"),
        "ProcessRun": ("process.windows.exec", "WinProcessRun"),
        "describe": ("process.windows.exec", "describe"),
        "daemonize": ("process.windows.daemonize", "daemonize"),
        "start_detached": ("process.windows.detached", "start_detached"),
        "start_process": ("process.windows.exec", "start_process"),
        "start_worker": ("process.windows.exec", "start_worker"),
    }
else:
    _WHERE = {
        "ReadyPipe": ("process.posix.daemonize", "ReadyPipe"),
        "Command": ("process.posix.command", "Command"),
        "Detached": ("process.posix.detached", "Detached"),
        "ProcessHandler": ("process.posix.exec", "ProcessHandler"),
        "ProcessRun": ("process.posix.exec", "ProcessRun"),
        "describe": ("process.posix.child", "describe"),
        "daemonize": ("process.posix.daemonize", "daemonize"),
        "start_detached": ("process.posix.detached", "start_detached"),
        "start_process": ("process.posix.exec", "start_process"),
        "start_worker": ("process.posix.exec", "start_worker"),
    }


def __getattr__(name: str) -> object:
    """Load a name when it is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see above

    module, attribute = _WHERE[name]
    return getattr(import_module(f"simpleipc_cli.{module}"), attribute)
