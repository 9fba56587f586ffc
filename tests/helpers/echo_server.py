"""A minimal server: one thread, one connection after another, echoes small requests.

Run as a program: `python echo_server.py PATH`. It says "listening" once it is.
"""

from __future__ import annotations

import os
import socket
import sys


def main(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1024)
        os.write(1, b"listening\n")
        while True:
            connection, _ = listener.accept()
            wire = connection.recv(65536)
            while wire and not wire.endswith(b"0000"):
                more = connection.recv(65536)
                wire = wire + more if more else b""
            if wire:
                connection.sendall(wire)
            connection.close()


if __name__ == "__main__":
    main(sys.argv[1])
