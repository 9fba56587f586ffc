"""Pipes between the server and a child on Windows: the child's ends block, ours never do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache

from simpleipc_cli.errors import SipcError
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process.windows.child import ChildProcess, spawn
from simpleipc_cli.process.windows.command import Command
from simpleipc_cli.process.windows.create_process import duplicate_stderr
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.overlapped_pipe import PIPE_BUFFER, OverlappedPipe


@cache
def _own_user_only() -> win32.SecurityDescriptor:
    """Let only our user open the pipes. Raises OSError."""
    return win32.SecurityDescriptor(f"D:P(A;;GA;;;{win32.own_user()})")


class StdioPipes:
    """The pipes to a child's standard input and from its standard output."""

    accepts_file = False

    _max_unread = PIPE_BUFFER
    """Bytes that the pipe to the child holds. With 0, a write ends when all of it is read."""

    def __init__(self, _stdin: int | None = None) -> None:
        self._child_ends: list[int] = []
        self._our_ends: list[OverlappedPipe] = []
        api = win32.api
        try:
            # Duplex, though the child does not write: a read here fails once the child has closed.
            self._writer = self._pipe(api.PIPE_ACCESS_DUPLEX, api.GENERIC_READ, self._max_unread)
            self._reader = self._pipe(api.PIPE_ACCESS_INBOUND, api.GENERIC_WRITE, 0)
            self._child_ends.append(duplicate_stderr())
        except OSError as error:
            self.close()
            raise SipcError(
                f"no pipe for the handler: {win32.strerror(error)}", "end some programs"
            ) from error
        self.input = self._writer.descriptor
        self.output = self._reader.descriptor

    def _pipe(self, our_access: int, child_access: int, out_buffer: int) -> OverlappedPipe:
        """Make a pipe and open the child's end; return ours. Raises OSError."""
        api = win32.api
        name = rf"\\.\pipe\sipc-handler-{os.getpid()}-{os.urandom(8).hex()}"
        our_end = OverlappedPipe(
            api.CreateNamedPipe(
                name,
                our_access | api.FILE_FLAG_OVERLAPPED | api.FILE_FLAG_FIRST_PIPE_INSTANCE,
                win32.REJECT_REMOTE_CLIENTS,
                1,
                out_buffer,
                PIPE_BUFFER,
                0,
                _own_user_only().address,
            ),
            writes=our_access == api.PIPE_ACCESS_DUPLEX,
        )
        self._our_ends.append(our_end)
        self._child_ends.append(
            api.CreateFile(name, child_access, 0, api.NULL, api.OPEN_EXISTING, 0, api.NULL)
        )
        return our_end

    def spawn(
        self,
        command: Command,
        environment: Mapping[str, str],
        limit: DescriptorLimit,
        variables: Mapping[str, str],
    ) -> ChildProcess:
        stdin, stdout, stderr = self._child_ends
        try:
            process = spawn(command, environment, (stdin, stdout, stderr), limit, variables)
        except BaseException:
            self.close()
            raise
        self._close_child_ends()
        return process

    def _close_child_ends(self) -> None:
        for handle in self._child_ends:
            win32.api.CloseHandle(handle)
        self._child_ends = []

    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:  # noqa: ARG002
        return self._writer.write_nowait(payload)

    def end_input(self) -> None:
        self.input = -1
        self._writer.close()

    def abandon_input(self) -> None:
        """Leave the pipe open: see posix.stdio_pipes."""

    def unread(self) -> int:
        """Return the unread bytes; negative if the child has read more than write() returned."""
        return -self._writer.unreported

    def read(self, buffer: memoryview) -> list[memoryview]:
        count = self._reader.read_nowait(buffer)
        if not count:
            self.output = -1
            return []
        return [buffer[:count]]

    def has_output(self) -> bool:
        try:
            return self._reader.peek_nowait()
        except BlockingIOError:
            return False

    def end_output(self) -> None:
        self.output = -1

    def close(self) -> None:
        self.input = self.output = -1
        self._close_child_ends()
        for end in self._our_ends:
            end.close()


class WorkerPipes(StdioPipes):
    """Pipes of a worker that also report how much the worker has read.

    Windows does not report how much of a pipe's content its reader has read: the other end's count
    may be queried only while no process reads there, and an idle worker reads. So nothing is left
    in the pipe, and each write is one packet's length, or what follows it: what is written has been
    read, and a worker that has not read a packet's length has read nothing of its payload.
    """

    _max_unread = 0

    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:  # noqa: ARG002
        """Write the first buffer alone, a packet's length, unless it is empty."""
        return self._writer.write_nowait(payload[:1] if payload[0] else payload)
