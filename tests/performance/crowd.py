"""Connects often to a path, says "connected", and hangs up when standard input ends."""

from __future__ import annotations

import resource
import socket
import sys

if __name__ == "__main__":
    path, count = sys.argv[1], int(sys.argv[2])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held = []
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        held.append(connection)
    print("connected", flush=True)  # noqa: T201
    sys.stdin.read()
