"""Sockets in the states that a client or a server may find."""

from __future__ import annotations

import socket
from contextlib import contextmanager

from helpers.wire import connect


def stale_socket(path) -> None:
    """Leave a socket that no process has open."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


@contextmanager
def busy_listener(path):
    """Listen with a queue that is full; the listening socket."""
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with connect(path):
            yield busy
