"""Child processes of this operating system, under names that are the same on all."""

from __future__ import annotations

import sys

from simpleipc_cli.lazy import lazy_exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from simpleipc_cli.process import base
    from simpleipc_cli.process.base import ReadyPipe
    from simpleipc_cli.process.posix import background, child
    from simpleipc_cli.process.posix.background import Detached, daemonize, start_detached
    from simpleipc_cli.process.posix.child import (
        ChildProcess,
        StdioPipes,
        WorkerPipes,
        describe,
        exit_watch_fds,
        kill_children,
        prepare_spawn,
        reap_orphans,
    )
    from simpleipc_cli.process.posix.guardian import Guardian
    from simpleipc_cli.process.posix.pidfile import PidFile
    from simpleipc_cli.process.posix.spawn import Command, join_words
    from simpleipc_cli.process.windows import background as win_background
    from simpleipc_cli.process.windows import child as win_child

    # Both systems offer the same functions. The classes have base classes.
    _texts: list[Callable[[int], tuple[str, str]]] = [child.describe, win_child.describe]
    _checks: list[Callable[[], int]] = [child.exit_watch_fds, win_child.exit_watch_fds]
    _preparations: list[Callable[[], object]] = [child.prepare_spawn, win_child.prepare_spawn]
    _reapers: list[Callable[[], None]] = [child.reap_orphans, win_child.reap_orphans]
    _kills: list[Callable[[], None]] = [child.kill_children, win_child.kill_children]
    _starts: list[Callable[[Any, dict[str, str]], base.Detached]] = [
        background.start_detached,
        win_background.start_detached,
    ]
    _daemons: list[Callable[[list[str], dict[str, str]], base.PendingDaemon | ReadyPipe]] = [
        background.daemonize,
        win_background.daemonize,
    ]

_SYSTEM = "process.windows" if sys.platform == "win32" else "process.posix"
_EXPORTS = {
    **dict.fromkeys(("Detached", "daemonize", "start_detached"), f"{_SYSTEM}.background"),
    **dict.fromkeys(("ChildProcess", "StdioPipes", "WorkerPipes"), f"{_SYSTEM}.child"),
    **dict.fromkeys(
        ("describe", "exit_watch_fds", "kill_children", "prepare_spawn", "reap_orphans"),
        f"{_SYSTEM}.child",
    ),
    **dict.fromkeys(("Command", "join_words"), f"{_SYSTEM}.spawn"),
    "Guardian": "process.windows.child" if sys.platform == "win32" else "process.posix.guardian",
    "PidFile": f"{_SYSTEM}.pidfile",
    "ReadyPipe": "process.base",
}

__getattr__ = lazy_exports(__name__, _EXPORTS)
