"""Pipes between the server and a child: the child's ends wait as it likes, ours never do."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.pktline import Buffer


class Pipes:
    """Our ends and the child's ends of two pipes."""

    def __init__(self) -> None:
        """No pipes yet."""
        self.writer = -1
        """Our end of the pipe to the child, -1 if there is none."""
        self.reader = -1
        """Our end of the pipe from it."""
        self._theirs: list[int] = []

    def to_child(self) -> int:
        """Make the one; returns the child's end. Raises OSError."""
        theirs, self.writer = os.pipe()
        self._theirs.append(theirs)
        os.set_blocking(self.writer, False)
        return theirs

    def from_child(self) -> int:
        """Make the other; returns the child's end. Raises OSError."""
        self.reader, theirs = os.pipe()
        self._theirs.append(theirs)
        os.set_blocking(self.reader, False)
        return theirs

    def write(self, buffers: list[Buffer]) -> int:
        """Write some to the child; how many bytes. Raises BlockingIOError, PeerGone."""
        try:
            return os.writev(self.writer, buffers)
        except BrokenPipeError:
            raise PeerClosed("it has closed its standard input") from None

    def read(self, buffer: memoryview) -> int:
        """Read from the child; 0 at the end. Raises BlockingIOError."""
        return os.readv(self.reader, [buffer])

    def unread(self) -> int:
        """How many bytes the child has not read, also when it never will."""
        return unread(self.writer)

    def close_writer(self) -> None:
        """Let the child see the end of its input."""
        os.close(self.writer)
        self.writer = -1

    def close_theirs(self) -> None:
        """The child has got its ends."""
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs = []

    def close(self) -> None:
        """Close what is still open."""
        self.close_theirs()
        for descriptor in (self.writer, self.reader):
            if descriptor >= 0:
                os.close(descriptor)
        self.writer = self.reader = -1


def unread(descriptor: int) -> int:
    """How many bytes lie in a pipe, asked at either end, also when nobody can read them."""
    size = struct.pack("@i", 0)
    (found,) = struct.unpack("@i", fcntl.ioctl(descriptor, termios.FIONREAD, size))
    return int(found)
