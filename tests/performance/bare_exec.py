"""The smallest server that runs cat for each request, and answers one client after the other.

Run as `bare_exec.py PATH`. It makes the pipes and packets of `sipc serve --exec cat`, and waits
for the same process. It promises nothing: it assumes that a small message arrives in one read.
"""

from __future__ import annotations

import os
import signal
import socket
import sys


def _serve(path: str) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    while True:
        connection, _ = listener._accept()  # see bare.py
        if wire := os.read(connection, 1 << 16):
            pieces, start = [], 0
            while size := int(wire[start : start + 4], 16):
                pieces.append(wire[start + 4 : start + size])
                start += size
            _answer(connection, pieces)
        os.close(connection)


def _answer(connection: int, pieces: list[bytes]) -> None:
    stdin, writer = os.pipe()
    reader, stdout = os.pipe()
    os.writev(writer, pieces)
    os.close(writer)
    files = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    pid = os.posix_spawnp("cat", ["cat"], os.environ, file_actions=files, setsid=True)
    os.close(stdin)
    os.close(stdout)
    while payload := os.read(reader, 1 << 16):
        os.write(connection, b"%04x%b" % (len(payload) + 4, payload))
    os.close(reader)
    if os.waitpid(pid, 0)[1] == 0:
        os.write(connection, b"0000")


if __name__ == "__main__":
    _serve(sys.argv[1])
