"""Picks the platform: the rooms above import names from here and never ask which it is.

What only the server needs is loaded when first asked for: a client that sends one small request
must not pay for it.
"""

from __future__ import annotations

import sys

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
        "StartLock": ("windows.start_lock", "WinStartLock"),
        "inspect": ("windows.stream", "inspect"),
        "is_hung_up": ("windows.poller", "is_hung_up"),
        "listen": ("windows.listener", "listen"),
        "new_wakeup_event": ("windows.poller", "WinWakeupEvent"),
        "new_file_reader": ("windows.stdio", "WinFileReader"),
        "new_file_writer": ("windows.stdio", "WinFileWriter"),
        "new_latch": ("windows.poller", "WinLatch"),
        "new_connection_watcher": ("windows.connection_watcher", "WinConnectionWatcher"),
        "new_poller": ("windows.poller", "WinPoller"),
        "new_scalable_poller": ("windows.poller", "WinPoller"),
        "real_path": ("windows.start_lock", "real_path"),
    }
else:
    _LATER |= {
        "StartLock": ("unix.start_lock", "StartLock"),
        "listener_from_fd": ("unix.activated", "listener_from_fd"),
        "inspect": ("unix.inspect", "inspect"),
        "is_hung_up": ("unix.poller", "is_hung_up"),
        "listen": ("unix.listener", "listen"),
        "new_wakeup_event": ("unix.poller", "UnixWakeupEvent"),
        "new_file_reader": ("unix.stdio", "UnixFileReader"),
        "new_file_writer": ("unix.stdio", "UnixFileWriter"),
        "new_latch": ("unix.poller", "UnixLatch"),
        "new_connection_watcher": ("unix.poller", "UnixConnectionWatcher"),
        "new_poller": ("unix.poller", "UnixPoller"),
        "new_scalable_poller": ("unix.poller", "UnixScalablePoller"),
        "real_path": ("unix.start_lock", "real_path"),
    }


def __getattr__(name: str) -> object:
    """Load what only some need (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - a small send does without

    module, attribute = _LATER[name]
    return getattr(import_module(f"simpleipc_cli.transport.{module}"), attribute)
