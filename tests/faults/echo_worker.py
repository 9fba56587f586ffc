"""A worker that returns each request: packets and a flush, over standard input and output."""

import os
import sys


def take(count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        piece = os.read(0, count - len(taken))
        if not piece:
            sys.exit(0)
        taken += piece
    return taken


while True:
    wire = b""
    while not wire.endswith(b"0000") or length:  # noqa: F821 - the packet before
        head = take(4)
        length = int(head, 16)
        wire += head + take(max(length - 4, 0))
    while wire:
        wire = wire[os.write(1, wire) :]
