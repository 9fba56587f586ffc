"""Count bytes that were written to a pipe or socket and not read."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios


def _count(file, request: int) -> int:
    return struct.unpack("@i", fcntl.ioctl(file, request, bytes(4)))[0]


def unread(client: socket.socket) -> int:
    """Return how many bytes that a client has written to a socket were not read."""
    return _count(client, termios.TIOCOUTQ)


def has_read_all(program) -> bool:
    """Whether a program has read all that was written to its standard input, a pipe."""
    return not _count(program.stdin, termios.FIONREAD)


def unread_input(pid: int) -> int:
    """How many bytes wait in the pipe that is a process's standard input."""
    descriptor = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return _count(descriptor, termios.FIONREAD)
    finally:
        os.close(descriptor)
