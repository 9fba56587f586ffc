"""What exchanges share: how far the stop has come, and buffers, one after the other."""

from __future__ import annotations

from simpleipc_cli.transport import Latch, new_latch

_BUFFER_SIZE = 512 * 1024
"""Bytes moved at once, each way: several full packets, and little memory with many requests."""


class Stages:
    """How far the server's stopping has come; each stage is for all its threads to see."""

    def __init__(self) -> None:
        """Nobody has asked to stop. Raises OSError without descriptors."""
        self.drain: Latch = new_latch()
        """Answer what is there, but wait no longer for clients that say nothing."""
        self.end: Latch = new_latch()
        """End every request now, handlers with their grace."""
        self.hurry: Latch = new_latch()
        """No grace."""

    def close(self) -> None:
        """Free the descriptors."""
        for latch in (self.drain, self.end, self.hurry):
            latch.close()


class Workspace:
    """What is needed for a request while it is answered: two buffers."""

    def __init__(self) -> None:
        """Memory is only used as far as it is written to."""
        self.request = memoryview(bytearray(_BUFFER_SIZE))
        self.response = memoryview(bytearray(_BUFFER_SIZE))
