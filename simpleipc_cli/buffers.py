"""Lists of buffers, as gathering writes take them: nothing is copied to make one piece."""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview

MOST_BUFFERS = 1024
"""Buffers that one gathering write may have (IOV_MAX of Linux)."""


def advance(buffers: list[Buffer], count: int) -> None:
    """Remove the first `count` bytes from a list of buffers; there must be as many."""
    whole = 0
    for buffer in buffers:
        if count < len(buffer):
            break
        count -= len(buffer)
        whole += 1
    del buffers[:whole]
    if count:
        buffers[0] = memoryview(buffers[0])[count:]
