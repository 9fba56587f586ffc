"""Streams, listeners and pollers of this operating system, under names that are the same on all.

Other packages import these names and never ask which system it is. Names that only a server
needs are loaded at their first use.
"""

from __future__ import annotations

import sys

from simpleipc_cli.lazy import lazy_exports
from simpleipc_cli.transport.base import HANGUP, READ, WRITE, OutOfDescriptors, Peer, Stream

if sys.platform == "win32":
    from simpleipc_cli.transport.windows.stream import connect, connect_nowait
else:
    from simpleipc_cli.transport.unix.stream import connect, connect_nowait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from simpleipc_cli.transport.base_listening import Listener
    from simpleipc_cli.transport.base_polling import (
        ConnectionWatcher,
        FileReader,
        FileWriter,
        Latch,
        Poller,
        WakeupEvent,
    )
    from simpleipc_cli.transport.unix.activated import listener_from_fd
    from simpleipc_cli.transport.unix.inspect import inspect
    from simpleipc_cli.transport.unix.listener import listen
    from simpleipc_cli.transport.unix.poller import is_hung_up
    from simpleipc_cli.transport.unix.start_lock import StartLock, real_path

    new_wakeup_event: Callable[[], WakeupEvent]
    new_file_reader: Callable[[int], FileReader]
    new_file_writer: Callable[[int], FileWriter]
    new_latch: Callable[[], Latch]
    new_connection_watcher: Callable[[Connection], ConnectionWatcher]
    new_poller: Callable[[], Poller]
    new_scalable_poller: Callable[[], Poller]

__all__ = [
    "HANGUP",
    "READ",
    "WRITE",
    "ConnectionWatcher",
    "FileReader",
    "FileWriter",
    "Latch",
    "Listener",
    "OutOfDescriptors",
    "Peer",
    "Poller",
    "StartLock",
    "Stream",
    "WakeupEvent",
    "connect",
    "connect_nowait",
    "inspect",
    "is_hung_up",
    "listen",
    "listener_from_fd",
    "new_connection_watcher",
    "new_file_reader",
    "new_file_writer",
    "new_latch",
    "new_poller",
    "new_scalable_poller",
    "new_wakeup_event",
    "real_path",
]

_EXPORTS = {
    "WakeupEvent": "transport.base_polling",
    "FileReader": "transport.base_polling",
    "FileWriter": "transport.base_polling",
    "Latch": "transport.base_polling",
    "ConnectionWatcher": "transport.base_polling",
    "Listener": "transport.base_listening",
    "Poller": "transport.base_polling",
}
if sys.platform == "win32":
    _EXPORTS |= {
        "StartLock": "transport.windows.start_lock:WinStartLock",
        "inspect": "transport.windows.stream",
        "is_hung_up": "transport.windows.poller",
        "listen": "transport.windows.listener",
        "new_wakeup_event": "transport.windows.poller:WinWakeupEvent",
        "new_file_reader": "transport.windows.stdio:WinFileReader",
        "new_file_writer": "transport.windows.stdio:WinFileWriter",
        "new_latch": "transport.windows.poller:WinLatch",
        "new_connection_watcher": "transport.windows.connection_watcher:WinConnectionWatcher",
        "new_poller": "transport.windows.poller:WinPoller",
        "new_scalable_poller": "transport.windows.poller:WinPoller",
        "real_path": "transport.windows.start_lock",
    }
else:
    _EXPORTS |= {
        "StartLock": "transport.unix.start_lock",
        "listener_from_fd": "transport.unix.activated",
        "inspect": "transport.unix.inspect",
        "is_hung_up": "transport.unix.poller",
        "listen": "transport.unix.listener",
        "new_wakeup_event": "transport.unix.poller:UnixWakeupEvent",
        "new_file_reader": "transport.unix.stdio:UnixFileReader",
        "new_file_writer": "transport.unix.stdio:UnixFileWriter",
        "new_latch": "transport.unix.poller:UnixLatch",
        "new_connection_watcher": "transport.unix.poller:UnixConnectionWatcher",
        "new_poller": "transport.unix.poller:UnixPoller",
        "new_scalable_poller": "transport.unix.poller:UnixScalablePoller",
        "real_path": "transport.unix.start_lock",
    }


__getattr__ = lazy_exports(__name__, _EXPORTS)
