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

    _SYSTEM, _PREFIX = "transport.windows", "Win"
else:
    from simpleipc_cli.transport.unix.stream import connect, connect_nowait

    _SYSTEM, _PREFIX = "transport.unix", "Unix"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.transport import base_server
    from simpleipc_cli.transport.base_server import (
        ConnectionWatcher,
        FileReader,
        FileWriter,
        Latch,
        Listener,
        Poller,
        WakeupEvent,
    )
    from simpleipc_cli.transport.unix import listener, poller, start_lock, stdio, stream
    from simpleipc_cli.transport.unix.listener import listen, listener_from_fd
    from simpleipc_cli.transport.unix.poller import is_hung_up
    from simpleipc_cli.transport.unix.start_lock import StartLock, real_path
    from simpleipc_cli.transport.unix.stream import endpoint_info
    from simpleipc_cli.transport.windows import listener as win_listener
    from simpleipc_cli.transport.windows import poller as win_poller
    from simpleipc_cli.transport.windows import start_lock as win_start_lock
    from simpleipc_cli.transport.windows import stdio as win_stdio
    from simpleipc_cli.transport.windows import stream as win_stream

    new_connection_watcher: Callable[[Connection], ConnectionWatcher]
    new_file_reader: Callable[[int], FileReader]
    new_file_writer: Callable[[int], FileWriter]
    new_latch: Callable[[], Latch]
    new_poller: Callable[[], Poller]
    new_scalable_poller: Callable[[], Poller]
    new_wakeup_event: Callable[[], WakeupEvent]

    # Both systems offer the same.
    _connects: list[Callable[[str, Deadline], Stream]] = [stream.connect, win_stream.connect]
    _connects_nowait: list[Callable[[str], Stream]] = [
        *(stream.connect_nowait, win_stream.connect_nowait)
    ]
    _infos: list[Callable[[str], dict[str, object]]] = [
        *(stream.endpoint_info, win_stream.endpoint_info)
    ]
    _listens: list[base_server.Listen] = [listener.listen, win_listener.listen]
    _locks: list[Callable[[str], base_server.StartLock]] = [
        *(start_lock.StartLock, win_start_lock.StartLock)
    ]
    _real_paths: list[Callable[[str], str]] = [start_lock.real_path, win_start_lock.real_path]
    _hangups: list[Callable[[int], bool]] = [poller.is_hung_up, win_poller.is_hung_up]
    _latches: list[Callable[[], Latch]] = [poller.UnixLatch, win_poller.WinLatch]
    _events: list[Callable[[], WakeupEvent]] = [
        *(poller.UnixWakeupEvent, win_poller.WinWakeupEvent)
    ]
    _pollers: list[Callable[[], Poller]] = [
        *(poller.UnixPoller, poller.UnixScalablePoller),
        *(win_poller.WinPoller, win_poller.WinScalablePoller),
    ]
    _watchers: list[Callable[[Connection], ConnectionWatcher]] = [
        *(poller.UnixConnectionWatcher, win_poller.WinConnectionWatcher)
    ]
    _readers: list[Callable[[int], FileReader]] = [*(stdio.UnixFileReader, win_stdio.WinFileReader)]
    _writers: list[Callable[[int], FileWriter]] = [*(stdio.UnixFileWriter, win_stdio.WinFileWriter)]

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
    "endpoint_info",
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
    "ConnectionWatcher": "transport.base_server",
    "FileReader": "transport.base_server",
    "FileWriter": "transport.base_server",
    "Latch": "transport.base_server",
    "Listener": "transport.base_server",
    "Poller": "transport.base_server",
    "WakeupEvent": "transport.base_server",
    "StartLock": f"{_SYSTEM}.start_lock",
    "endpoint_info": f"{_SYSTEM}.stream",
    "is_hung_up": f"{_SYSTEM}.poller",
    "listen": f"{_SYSTEM}.listener",
    "listener_from_fd": f"{_SYSTEM}.listener",
    "new_connection_watcher": f"{_SYSTEM}.poller:{_PREFIX}ConnectionWatcher",
    "new_file_reader": f"{_SYSTEM}.stdio:{_PREFIX}FileReader",
    "new_file_writer": f"{_SYSTEM}.stdio:{_PREFIX}FileWriter",
    "new_latch": f"{_SYSTEM}.poller:{_PREFIX}Latch",
    "new_poller": f"{_SYSTEM}.poller:{_PREFIX}Poller",
    "new_scalable_poller": f"{_SYSTEM}.poller:{_PREFIX}ScalablePoller",
    "new_wakeup_event": f"{_SYSTEM}.poller:{_PREFIX}WakeupEvent",
    "real_path": f"{_SYSTEM}.start_lock",
}

__getattr__ = lazy_exports(__name__, _EXPORTS)
