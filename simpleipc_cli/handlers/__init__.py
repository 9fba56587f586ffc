"""Handlers, which answer requests. The server knows only their interface, server/handler.py.

This module picks what the operating system needs: Windows has other commands and processes.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.handlers.background import Announcement, into_background
    from simpleipc_cli.handlers.command import Command
    from simpleipc_cli.handlers.detached import Detached, start_detached
    from simpleipc_cli.handlers.process import (
        ProcessHandler,
        ProcessRun,
        start_process,
        start_worker,
    )
    from simpleipc_cli.handlers.spawn import describe

__all__ = [
    "Announcement",
    "Command",
    "Detached",
    "ProcessHandler",
    "ProcessRun",
    "describe",
    "into_background",
    "start_detached",
    "start_process",
    "start_worker",
]

if sys.platform == "win32":
    _WHERE = {
        "Announcement": ("background_windows", "WinAnnouncement"),
        "Command": ("windows", "WinCommand"),
        "Detached": ("detached_windows", "WinDetached"),
        "ProcessHandler": ("windows", "WinProcessHandler"),
        "ProcessRun": ("windows", "WinProcessRun"),
        "describe": ("windows", "describe"),
        "into_background": ("background_windows", "into_background"),
        "start_detached": ("detached_windows", "start_detached"),
        "start_process": ("windows", "start_process"),
        "start_worker": ("windows", "start_worker"),
    }
else:
    _WHERE = {
        "Announcement": ("background", "Announcement"),
        "Command": ("command", "Command"),
        "Detached": ("detached", "Detached"),
        "ProcessHandler": ("process", "ProcessHandler"),
        "ProcessRun": ("process", "ProcessRun"),
        "describe": ("spawn", "describe"),
        "into_background": ("background", "into_background"),
        "start_detached": ("detached", "start_detached"),
        "start_process": ("process", "start_process"),
        "start_worker": ("process", "start_worker"),
    }


def __getattr__(name: str) -> object:
    """Load a name when it is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see above

    module, attribute = _WHERE[name]
    return getattr(import_module(f"simpleipc_cli.handlers.{module}"), attribute)
