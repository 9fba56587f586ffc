"""Child processes on Windows, and the pipes between the server and them.

Windows has no process groups to signal. Each child runs in a new job, which its own children cannot
leave. Closing the server's handle of the job kills all processes in it: no process of a handler
outlives its request or a killed server.

The child's ends of the pipes are blocking, the server's ends are not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from simpleipc_cli.errors import SipcError
from simpleipc_cli.pktline import Buffer
from simpleipc_cli.process import base
from simpleipc_cli.process.windows.spawn import (
    Command,
    JobObject,
    create_process,
    duplicate_stderr,
)
from simpleipc_cli.system.fd_limit import DescriptorLimit
from simpleipc_cli.transport import READ, WakeupEvent
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.poller import Pollable, completion_port
from simpleipc_cli.transport.windows.stream import PIPE_BUFFER, OverlappedPipe

_CTRL_BREAK = 1
_KILL_TIMEOUT = 1.0  # seconds to wait for a killed process (tunable)
_CRASHED = 0x80000000  # from here on, a status is a system error, documented in hexadecimal


class ChildProcess(base.ChildProcess, Pollable):
    """A child in a new job."""

    def __init__(
        self, line: str, environment: Mapping[str, str], streams: tuple[int, int, int]
    ) -> None:
        """Start the child. Raises OSError."""
        self._job = JobObject()
        try:
            self._handle, self.pid = create_process(line, environment, streams, job=self._job)
            super().__init__()
            self._has_exited = False
            self._wait = completion_port().wait_for(self._handle, self._on_exit)
        except BaseException:
            self._job.close()  # kills it, if it has started
            raise

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - every change calls notify()
        return READ if self._has_exited else 0

    def _on_exit(self, _operation: object) -> None:
        self._has_exited = True
        self.notify()

    def status(self) -> int | None:
        return int(win32.api.GetExitCodeProcess(self._handle)) if self._has_exited else None

    def stop(self, grace_period: float, kill_now: WakeupEvent | None) -> None:
        """Send Ctrl-Break only to the child, and kill all processes after the grace period."""
        try:
            if not self._has_exited and self._send_ctrl_break():
                self.wait(grace_period, kill_now)
            self._job.kill()
            if not self.wait(_KILL_TIMEOUT, None):
                raise SipcError(f"process {self.pid} cannot be killed", "check what it waits for")
            self._job.wait_until_empty()
        finally:
            self._close()

    def kill(self) -> None:
        self._job.kill()

    def _send_ctrl_break(self) -> bool:
        """Return False if this process has no console: Ctrl-Break is sent through it."""
        kernel = win32.dll("kernel32")
        return bool(kernel.GenerateConsoleCtrlEvent(_CTRL_BREAK, self.pid))

    def _close(self) -> None:
        try:
            win32.overlapped.UnregisterWait(self._wait)
        except OSError:
            pass  # its callback is running
        self._job.close()
        win32.api.CloseHandle(self._handle)
        self.unregister()


class Guardian:
    """Does nothing: each child is in a job, which ends with the server."""

    def close(self) -> None:
        pass


def describe(status: int) -> tuple[str, str]:
    """Return how a process ended, as one word and as a message."""
    word = str(status) if status < _CRASHED else f"0x{status:08X}"
    return word, f"exit status {word}"


def exit_watch_fds() -> int:
    """Return 1, for the handle of a process."""
    return 1


def prepare_spawn() -> None:
    """Do nothing: CreateProcess needs no preparation."""


def reap_orphans() -> None:
    """Do nothing: on Windows no process must reap its children."""


def kill_children() -> None:
    """Do nothing: the children's jobs end with this process."""


@cache
def _own_user_only() -> win32.SecurityDescriptor:
    """Let only this user open the pipes. Raises OSError."""
    return win32.SecurityDescriptor(f"D:P(A;;GA;;;{win32.own_user()})")


class StdioPipes(base.StdioPipes):
    """Named pipes, as anonymous pipes have no overlapped operations."""

    accepts_file = False

    _max_unread = PIPE_BUFFER
    """Size in bytes of the buffer of the pipe to the child. With 0, a write ends when all is
    read."""

    def __init__(self, _stdin: int | None = None, _stderr: int | None = None) -> None:
        self._child_ends: list[int] = []
        self._our_ends: list[OverlappedPipe] = []
        api = win32.api
        try:
            # Duplex, though the child does not write: a pending read fails when the child has
            # closed.
            self._writer = self._pipe(api.PIPE_ACCESS_DUPLEX, api.GENERIC_READ, self._max_unread)
            self._reader = self._pipe(api.PIPE_ACCESS_INBOUND, api.GENERIC_WRITE, 0)
            self._child_ends.append(duplicate_stderr())
        except OSError as error:
            self.close()
            what = f"cannot create a pipe for the handler: {win32.strerror(error)}"
            raise SipcError(what, win32.hint(error, "try again later")) from error
        self.input = self._writer.descriptor
        self.output = self._reader.descriptor

    def _pipe(self, our_access: int, child_access: int, out_buffer: int) -> OverlappedPipe:
        """Create a pipe and open the child's end; return the server's end. Raises OSError."""
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
        limit: DescriptorLimit,  # noqa: ARG002 - Windows has none
        variables: Mapping[str, str],
    ) -> ChildProcess:
        stdin, stdout, stderr = self._child_ends
        try:
            process = ChildProcess(
                command.shell_line(environment),
                {**environment, **variables},
                (stdin, stdout, stderr),
            )
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                what = f"cannot start {command.line!r}: {win32.strerror(error)}"
                raise SipcError(what, win32.hint(error, "check COMSPEC")) from error
            raise
        self._close_child_ends()
        return process

    def take_child_ends(self) -> tuple[int, int]:
        runtime: Any = import_module("msvcrt")
        stdin, stdout, _ = self._child_ends
        descriptors = (
            runtime.open_osfhandle(stdin, os.O_RDONLY),
            runtime.open_osfhandle(stdout, os.O_WRONLY),
        )
        del self._child_ends[:2]
        self._close_child_ends()
        return descriptors

    def _close_child_ends(self) -> None:
        for handle in self._child_ends:
            win32.api.CloseHandle(handle)
        self._child_ends = []

    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:  # noqa: ARG002
        return self._writer.write_nowait(payload)

    def end_input(self) -> None:
        self.input = -1
        self._writer.close()

    def unread(self) -> int:
        """Return the unread bytes; less than 0 if the child read more than write() returned."""
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

    def close(self) -> None:
        self.input = self.output = -1
        self._close_child_ends()
        for end in self._our_ends:
            end.close()


class WorkerPipes(StdioPipes):
    """Pipes of a worker. They also report how much the worker has read.

    Windows does not report how much of a pipe's content is unread: the other end can be queried
    only while no process reads there, and an idle worker reads. So the pipe has no buffer, and a
    write completes when the worker has read all of it. Each write is either the length of one
    packet or the rest of the packet: if the length is unread, so is the payload.
    """

    _max_unread = 0

    def write(self, payload: Sequence[Buffer], *, last: bool = False) -> int:  # noqa: ARG002
        """Write only the first buffer, a packet's length, unless it is empty."""
        return self._writer.write_nowait(payload[:1] if payload[0] else payload)
