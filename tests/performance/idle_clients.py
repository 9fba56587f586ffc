"""Connect N times to a path, print "connected", and close when standard input ends."""

from __future__ import annotations

import resource
import socket
import sys

if __name__ == "__main__":
    path, count = sys.argv[1], int(sys.argv[2])
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
    held = []
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        held.append(connection)
    print("connected", flush=True)  # noqa: T201
    sys.stdin.read()
