"""The phases of a server's shutdown, visible to all its threads."""

from __future__ import annotations

from simpleipc_cli.transport import Latch, new_latch


class Shutdown:
    """One latch for each phase; a phase that has begun does not end."""

    def __init__(self) -> None:
        """Raises OSError without free descriptors."""
        self.draining: Latch = new_latch()
        """Answer all connected clients, but wait only briefly for those that send nothing."""
        self.aborting: Latch = new_latch()
        """End every request now; handlers get their grace period."""
        self.killing: Latch = new_latch()
        """End handlers without a grace period."""

    def close(self) -> None:
        """Free the descriptors."""
        for latch in (self.draining, self.aborting, self.killing):
            latch.close()
