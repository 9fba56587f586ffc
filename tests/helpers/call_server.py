"""`sipc serve --call`, run as a process."""

from __future__ import annotations

from helpers.procfs import descriptors, is_waiting
from helpers.server import Server
from helpers.waiting import wait_until
from helpers.wire import ask, is_listening


class CallServer(Server):
    """A server whose main thread only waits for others."""

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log
        return is_listening(self.path) and is_waiting(self.pid)

    def warm_up(self) -> None:
        """Have it open what it keeps from its first request on."""
        ask(self.path, b"")
        wait_until(lambda: is_waiting(self.pid), "it to wait")
        self.open_at_start = descriptors(self.pid)
