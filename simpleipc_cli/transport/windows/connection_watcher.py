"""A connection of `multiprocessing` on Windows, where a thread has to wait for it."""

from __future__ import annotations

import _thread

from simpleipc_cli.transport.base_polling import Line
from simpleipc_cli.transport.windows.poller import WinLatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class WinConnectionWatcher(Line):
    """A latch, set by a thread."""

    def __init__(self, connection: Connection) -> None:
        """Starts the thread, which ends when something has come."""
        self._connection = connection
        self._latch = WinLatch()
        _thread.start_new_thread(self._wait, ())

    def _wait(self) -> None:
        try:
            self._connection.poll(None)
        except OSError:
            pass  # its other end is closed: that is to be told, too
        self._latch.set()

    def fileno(self) -> int:
        """See Line."""
        return self._latch.fileno()

    def has_room(self) -> bool:
        """See Line. Nothing tells."""
        return True

    def close(self) -> None:
        """See Line."""
        self._latch.close()
