"""Create sockets in various states."""

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
    """Return a listening socket with a full queue."""
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with connect(path):
            yield busy
