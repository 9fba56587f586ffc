"""Picks the platform: the rooms above import names from here and never ask which it is.

What only the server needs is loaded when first asked for: a client that sends one small request
must not pay for it.
"""

from __future__ import annotations

import sys

from simpleipc_cli.transport.base import HANGUP, READ, WRITE, OutOfDescriptors, Peer, Stream

if sys.platform == "win32":
    from simpleipc_cli.transport.winpipe import connect, connect_now
else:
    from simpleipc_cli.transport.unix import connect, connect_now

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
    from simpleipc_cli.transport.unix_activated import adopt
    from simpleipc_cli.transport.unix_inspect import inspect
    from simpleipc_cli.transport.unix_listen import listen
    from simpleipc_cli.transport.unix_poll import is_hung_up
    from simpleipc_cli.transport.unix_start_lock import StartLock, real_path

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
    "adopt",
    "connect",
    "connect_now",
    "inspect",
    "is_hung_up",
    "listen",
    "new_connection_watcher",
    "new_file_reader",
    "new_file_writer",
    "new_latch",
    "new_poller",
    "new_scalable_poller",
    "new_wakeup_event",
    "real_path",
]

_LATER = {
    "WakeupEvent": ("base_polling", "WakeupEvent"),
    "FileReader": ("base_polling", "FileReader"),
    "FileWriter": ("base_polling", "FileWriter"),
    "Latch": ("base_polling", "Latch"),
    "ConnectionWatcher": ("base_polling", "ConnectionWatcher"),
    "Listener": ("base_listening", "Listener"),
    "Poller": ("base_polling", "Poller"),
}
if sys.platform == "win32":
    _LATER |= {
        "StartLock": ("winpipe_start_lock", "WinStartLock"),
        "inspect": ("winpipe", "inspect"),
        "is_hung_up": ("winpipe_poll", "is_hung_up"),
        "listen": ("winpipe_listen", "listen"),
        "new_wakeup_event": ("winpipe_poll", "WinWakeupEvent"),
        "new_file_reader": ("winfile", "WinFileReader"),
        "new_file_writer": ("winfile", "WinFileWriter"),
        "new_latch": ("winpipe_poll", "WinLatch"),
        "new_connection_watcher": ("winpipe_line", "WinConnectionWatcher"),
        "new_poller": ("winpipe_poll", "WinPoller"),
        "new_scalable_poller": ("winpipe_poll", "WinPoller"),
        "real_path": ("winpipe_start_lock", "real_path"),
    }
else:
    _LATER |= {
        "StartLock": ("unix_start_lock", "StartLock"),
        "adopt": ("unix_activated", "adopt"),
        "inspect": ("unix_inspect", "inspect"),
        "is_hung_up": ("unix_poll", "is_hung_up"),
        "listen": ("unix_listen", "listen"),
        "new_wakeup_event": ("unix_poll", "UnixWakeupEvent"),
        "new_file_reader": ("unix_file", "UnixFileReader"),
        "new_file_writer": ("unix_file", "UnixFileWriter"),
        "new_latch": ("unix_poll", "UnixLatch"),
        "new_connection_watcher": ("unix_poll", "UnixConnectionWatcher"),
        "new_poller": ("unix_poll", "UnixPoller"),
        "new_scalable_poller": ("unix_poll", "UnixScalablePoller"),
        "real_path": ("unix_start_lock", "real_path"),
    }


def __getattr__(name: str) -> object:
    """Load what only some need (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - a small send does without

    module, attribute = _LATER[name]
    return getattr(import_module(f"simpleipc_cli.transport.{module}"), attribute)
