"""Watch a connection of `multiprocessing` on Windows: a thread waits for it."""

from __future__ import annotations

import _thread

from simpleipc_cli.transport.base_polling import ConnectionWatcher
from simpleipc_cli.transport.windows.poller import WinLatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class WinConnectionWatcher(ConnectionWatcher):
    """A latch that a thread sets."""

    def __init__(self, connection: Connection) -> None:
        """Starts the thread, which ends when something has come."""
        self._connection = connection
        self._latch = WinLatch()
        _thread.start_new_thread(self._wait, ())

    def _wait(self) -> None:
        try:
            self._connection.poll(None)
        except OSError:
            pass  # its other end is closed: that is reported, too
        self._latch.set()

    def fileno(self) -> int:
        return self._latch.fileno()

    def is_writable(self) -> bool:
        """Return True: nothing reports it."""
        return True

    def close(self) -> None:
        self._latch.close()
