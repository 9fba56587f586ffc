"""Pipes between the server and a child: the child's ends block, ours never do."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Mapping, Sequence

from simpleipc_cli.errors import PeerClosed, SipcError
from simpleipc_cli.message import MAX_BUFFERS
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process.posix.child import ChildProcess, spawn
from simpleipc_cli.process.posix.command import Command
from simpleipc_cli.system import grow_pipe
from simpleipc_cli.system.fd_limit import DescriptorLimit


class StdioPipes:
    """The pipes to a child's standard input and from its standard output."""

    accepts_file = True

    _bulk = 32 * 1024.0
    """Bytes moved at once after which a pipe is enlarged: half of its default size."""

    def __init__(self, stdin: int | None = None) -> None:
        self.input = self.output = self._reader = -1
        self._child_ends: list[int] = []
        try:
            if stdin is None:
                stdin, self.input = os.pipe()
                self._child_ends.append(stdin)
                os.set_blocking(self.input, False)
            self._reader, stdout = os.pipe()
            self._child_ends.append(stdout)
            os.set_blocking(self._reader, False)
        except OSError as error:
            self.close()
            raise SipcError(
                f"no pipe for the handler: {error.strerror}",
                "raise the descriptor limit (ulimit -n)",
            ) from error
        self.output = self._reader  # set to -1 at end of file; the reader stays open
        self._child_files = [(stdin, 0), (stdout, 1)]
        self._is_input_enlarged = self._is_output_enlarged = False

    def spawn(
        self,
        command: Command,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        variables: Mapping[str, str],
    ) -> ChildProcess:
        try:
            process = spawn(command, environment, self._child_files, limit, variables)
        except BaseException:
            self.close()
            raise
        for descriptor in self._child_ends:
            os.close(descriptor)
        self._child_ends = []
        return process

    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:  # noqa: ARG002
        try:
            count = os.writev(self.input, payload[:MAX_BUFFERS])
        except BrokenPipeError:
            raise PeerClosed("the handler has closed its standard input") from None
        if count >= self._bulk and not self._is_input_enlarged:
            self._is_input_enlarged = True
            grow_pipe(self.input)
        return count

    def end_input(self) -> None:
        descriptor, self.input = self.input, -1
        if descriptor >= 0:
            os.close(descriptor)

    def abandon_input(self) -> None:
        """Leave the pipe open.

        A process that the handler has started may still read it, and must not take half a
        request for a whole one.
        """

    def unread(self) -> int:
        return _unread(self.input)

    def read(self, buffer: memoryview) -> list[memoryview]:
        count = os.readv(self._reader, [buffer])
        if count >= self._bulk and not self._is_output_enlarged:
            self._is_output_enlarged = True
            grow_pipe(self._reader)
        if not count:
            self.output = -1
            return []
        return [buffer[:count]]

    def has_output(self) -> bool:
        return _unread(self._reader) > 0

    def end_output(self) -> None:
        self.output = -1

    def close(self) -> None:
        for descriptor in self._child_ends:
            os.close(descriptor)
        self._child_ends = []
        self.end_input()
        self.output = -1
        descriptor, self._reader = self._reader, -1
        if descriptor >= 0:
            os.close(descriptor)


class WorkerPipes(StdioPipes):
    """Pipes of a worker. They are not enlarged: unread input would delay the next client."""

    _bulk = float("inf")


def _unread(descriptor: int) -> int:
    """Return how many bytes are in a pipe, also when it has no reader."""
    size = struct.pack("@i", 0)
    (found,) = struct.unpack("@i", fcntl.ioctl(descriptor, termios.FIONREAD, size))
    return int(found)
