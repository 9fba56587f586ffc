"""Streams, listeners and pollers of this operating system, under names that are the same on all.

Other packages import these names and need not know the operating system. Names that only a server
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
    if sys.platform == "linux":
        from simpleipc_cli.transport.unix.stream import connect, connect_nowait
    else:
        from simpleipc_cli.transport.unix.portable_stream import connect, connect_nowait

    _SYSTEM, _PREFIX = "transport.unix", "Unix"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.transport.base_server import (
        FileReader,
        FileWriter,
        Listener,
        Poller,
        WakeupEvent,
    )
    from simpleipc_cli.transport.unix import listener, lock, poller, stdio, stream
    from simpleipc_cli.transport.unix.listener import listener_from_fd
    from simpleipc_cli.transport.unix.peer import reports_users
    from simpleipc_cli.transport.windows import listener as win_listener
    from simpleipc_cli.transport.windows import lock as win_lock
    from simpleipc_cli.transport.windows import poller as win_poller
    from simpleipc_cli.transport.windows import stream as win_stream

    # mypy checks each use for both branches of a condition: both systems have the same names.
    _unix = bool(_SYSTEM)
    _connect: Callable[[str, Deadline], Stream] = stream.connect if _unix else win_stream.connect
    _connect_nowait: Callable[[str], Stream] = (
        stream.connect_nowait if _unix else win_stream.connect_nowait
    )
    endpoint_info = stream.endpoint_info if _unix else win_stream.endpoint_info
    listen = listener.listen if _unix else win_listener.listen
    StartLock = lock.StartLock if _unix else win_lock.StartLock
    real_path = lock.real_path if _unix else win_lock.real_path
    is_hung_up = poller.is_hung_up if _unix else win_poller.is_hung_up
    new_poller: Callable[[], Poller] = poller.new_poller if _unix else win_poller.new_poller
    new_scalable_poller: Callable[[], Poller] = (
        poller.new_scalable_poller if _unix else win_poller.new_scalable_poller
    )
    new_wakeup_event = poller.UnixWakeupEvent if _unix else win_poller.WinWakeupEvent
    new_file_reader = stdio.UnixFileReader if _unix else win_poller.WinFileReader
    new_file_writer = stdio.UnixFileWriter if _unix else win_poller.WinFileWriter

# On Windows, poller.py reads and writes standard streams, too.
_STDIO = f"{_SYSTEM}.poller" if sys.platform == "win32" else f"{_SYSTEM}.stdio"

_EXPORTS = {
    "FileReader": "transport.base_server",
    "FileWriter": "transport.base_server",
    "Listener": "transport.base_server",
    "Poller": "transport.base_server",
    "WakeupEvent": "transport.base_server",
    "StartLock": f"{_SYSTEM}.lock",
    "endpoint_info": f"{_SYSTEM}.stream",
    "is_hung_up": f"{_SYSTEM}.poller",
    "listen": f"{_SYSTEM}.listener",
    "listener_from_fd": f"{_SYSTEM}.listener",
    "new_file_reader": f"{_STDIO}:{_PREFIX}FileReader",
    "new_file_writer": f"{_STDIO}:{_PREFIX}FileWriter",
    "new_poller": f"{_SYSTEM}.poller",
    "new_scalable_poller": f"{_SYSTEM}.poller",
    "new_wakeup_event": f"{_SYSTEM}.poller:{_PREFIX}WakeupEvent",
    "real_path": f"{_SYSTEM}.lock",
    "reports_users": f"{_SYSTEM}.peer",
}

__getattr__ = lazy_exports(__name__, _EXPORTS)
