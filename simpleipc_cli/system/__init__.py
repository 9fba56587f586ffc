"""What differs between operating systems and is neither transport nor process.

Loads little: every call of every verb needs it.
"""

from __future__ import annotations

import sys

from simpleipc_cli.lazy import lazy_exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.system import posix, windows
    from simpleipc_cli.system.base import FdPoll, System
    from simpleipc_cli.system.posix_signals import (
        BlockedSignals,
        block_terminal_signals,
        ignore_interrupt,
    )

    _posix: System = posix
    _windows: System = windows

if sys.platform == "win32":
    from simpleipc_cli.system.windows import (
        ENDING_SIGNALS,
        HAS_OWNERSHIP,
        O_NONBLOCK_FLAGS,
        OPEN_FLAGS,
        RELOAD_SIGNALS,
        SIGNALS,
        SPOOL_FOLDER,
        STATS_SIGNALS,
        STOP_SIGNALS,
        UNLIMITED,
        UNSUPPORTED_OPTIONS,
        exit_by_signal,
        fd_poll,
        get_fd_limits,
        grow_pipe,
        read_at,
        read_into,
        read_into_nowait,
        reset_signals,
        set_binary_stdio,
        set_fd_limit,
        set_timer,
        stop_timer,
        user_id,
        write_at,
    )
else:
    from simpleipc_cli.system.posix import (
        ENDING_SIGNALS,
        HAS_OWNERSHIP,
        O_NONBLOCK_FLAGS,
        OPEN_FLAGS,
        RELOAD_SIGNALS,
        SIGNALS,
        SPOOL_FOLDER,
        STATS_SIGNALS,
        STOP_SIGNALS,
        UNLIMITED,
        UNSUPPORTED_OPTIONS,
        exit_by_signal,
        fd_poll,
        get_fd_limits,
        grow_pipe,
        read_at,
        read_into,
        read_into_nowait,
        reset_signals,
        set_binary_stdio,
        set_fd_limit,
        set_timer,
        stop_timer,
        user_id,
        write_at,
    )

__all__ = [
    "ENDING_SIGNALS",
    "HAS_OWNERSHIP",
    "OPEN_FLAGS",
    "O_NONBLOCK_FLAGS",
    "RELOAD_SIGNALS",
    "SPOOL_FOLDER",
    "STATS_SIGNALS",
    "STOP_SIGNALS",
    "UNLIMITED",
    "UNSUPPORTED_OPTIONS",
    "BlockedSignals",
    "FdPoll",
    "block_terminal_signals",
    "exit_by_signal",
    "fd_poll",
    "get_fd_limits",
    "grow_pipe",
    "ignore_interrupt",
    "read_at",
    "read_into",
    "read_into_nowait",
    "reset_signals",
    "set_binary_stdio",
    "set_fd_limit",
    "set_timer",
    "stop_timer",
    "user_id",
    "write_at",
]

_SIGNAL_NAMES = (
    "BlockedSignals",
    "block_terminal_signals",
    "ignore_interrupt",
)

__getattr__ = lazy_exports(__name__, dict.fromkeys(_SIGNAL_NAMES, SIGNALS))
