"""Starting and ending processes on Windows, where no group of processes is a thing to signal.

Each child runs in a job of its own, which whatever it starts cannot leave, and which ends
with the handle we have of it: nothing of a handler survives its request, or the server, not
even where that is killed. What a child is to inherit is listed; nothing else of ours is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from importlib import import_module
from time import monotonic
from typing import Any

from simpleipc_cli.errors import SipcError
from simpleipc_cli.transport import HANGUP, READ, Latch, new_poller
from simpleipc_cli.transport.windows import win32
from simpleipc_cli.transport.windows.overlapped_pipe import PIPE_BUFFER, OverlappedPipe
from simpleipc_cli.transport.windows.poller import Source, port

_SUSPENDED, _NEW_GROUP = 0x4, 0x200  # winbase.h
_ACCOUNTING, _LIMITS, _KILL_ON_CLOSE = 1, 9, 0x2000  # winnt.h: of jobs
_LIMITS_SIZE, _LIMITS_FLAGS_AT = 144, 16  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION with 64 bits
_ACCOUNTING_SIZE, _ACTIVE_AT = 48, 40  # JOBOBJECT_BASIC_ACCOUNTING_INFORMATION
_CTRL_BREAK = 1
_TIMEOUT = 1.0  # seconds; who has been killed and is still there is not waited for, at will
_PAUSE = 0.005  # seconds between looks at a job, at will
_KILLED = 1  # exit status of what is ended by force


class Job:
    """A set of processes that ends when this is closed, unless it is to stay."""

    def __init__(self, *, stays: bool = False) -> None:
        """An empty one. Raises OSError."""
        kernel, native = win32.library("kernel32"), win32.ctypes()
        kernel.CreateJobObjectW.restype = native.c_void_p
        self._handle: int = kernel.CreateJobObjectW(None, None) or 0
        if not self._handle:
            raise win32.failure()
        if stays:
            return
        limits = bytearray(_LIMITS_SIZE)
        limits[_LIMITS_FLAGS_AT : _LIMITS_FLAGS_AT + 4] = _KILL_ON_CLOSE.to_bytes(4, "little")
        if not kernel.SetInformationJobObject(
            win32.handle(self._handle), _LIMITS, bytes(limits), _LIMITS_SIZE
        ):
            error = win32.failure()
            self.close()
            raise error

    def add(self, process: int) -> None:
        """Put a process into it, and with it what that will start. Raises OSError."""
        kernel = win32.library("kernel32")
        if not kernel.AssignProcessToJobObject(win32.handle(self._handle), win32.handle(process)):
            raise win32.failure()

    def kill(self) -> None:
        """End all that is in it."""
        win32.library("kernel32").TerminateJobObject(win32.handle(self._handle), _KILLED)

    @property
    def is_empty(self) -> bool:
        """Whether nothing in it runs any more."""
        room = win32.ctypes().create_string_buffer(_ACCOUNTING_SIZE)
        found = win32.library("kernel32").QueryInformationJobObject(
            win32.handle(self._handle), _ACCOUNTING, room, _ACCOUNTING_SIZE, None
        )
        return not found or room.raw[_ACTIVE_AT : _ACTIVE_AT + 4] == bytes(4)

    def wait_until_empty(self) -> None:
        """Wait until nothing in it runs any more, a second at most: no event tells, but looking."""
        poller = new_poller()
        end = monotonic() + _TIMEOUT
        while not self.is_empty and monotonic() < end:
            poller.wait(_PAUSE)
        poller.close()

    def close(self) -> None:
        """End all that is in it, unless it is to stay, and the job."""
        handle, self._handle = self._handle, 0
        if handle:
            win32.api.CloseHandle(handle)


class WinProcess(Source):
    """A child and whatever it starts. Its descriptor is READ from when the child has ended."""

    def __init__(self, command_line: str, environment: Mapping[str, str], files: Files) -> None:
        """Start it. Raises OSError."""
        api = win32.api
        self._job = Job()
        try:
            self._handle, thread, self.pid, _ = api.CreateProcess(
                None,
                command_line,
                None,
                None,
                True,
                _SUSPENDED | _NEW_GROUP,
                dict(environment),
                None,
                files.startup(),
            )
        except BaseException:
            self._job.close()
            raise
        try:
            self._job.add(self._handle)  # before it can have started anything
        except BaseException:
            api.TerminateProcess(self._handle, _KILLED)
            for handle in (self._handle, thread):
                api.CloseHandle(handle)
            self._job.close()
            raise
        super().__init__()
        self._exited = False
        self._wait = port().wait_for(self._handle, self._on_exit)
        win32.library("kernel32").ResumeThread(win32.handle(thread))
        api.CloseHandle(thread)

    def ready(self, wanted: int) -> int:  # noqa: ARG002 - changes are told anyway
        """See Source."""
        return READ if self._exited else 0

    def _on_exit(self, _operation: object) -> None:
        self._exited = True
        self.tell()

    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return int(win32.api.GetExitCodeProcess(self._handle)) if self._exited else None

    def stop(self, grace: float, hurry: Latch | None) -> None:
        """End all of it: Ctrl-Break, and once `grace` seconds are over, by force.

        What the child left behind is not asked. `hurry`, if any, cuts the grace short.
        Raises SipcError if the child cannot be ended.
        """
        try:
            if not self._exited and self._ask_to_end():
                self.wait(grace, hurry)
            self._job.kill()
            if not self.wait(_TIMEOUT, None):
                raise SipcError(f"process {self.pid} cannot be ended", "see what it is")
            self._job.wait_until_empty()
        finally:
            self._close()

    def _ask_to_end(self) -> bool:
        """False if it could not be: where we have no console, nobody hears Ctrl-Break."""
        kernel = win32.library("kernel32")
        return bool(kernel.GenerateConsoleCtrlEvent(_CTRL_BREAK, self.pid))

    def wait(self, seconds: float, hurry: Latch | None) -> bool:
        """Wait until it has ended, so long at most, or until there is no time left."""
        end = monotonic() + seconds
        poller = new_poller()
        poller.register(self.descriptor, READ)
        if hurry is not None:
            poller.register(hurry.fileno(), 0)
        try:
            while not self._exited:
                left = end - monotonic()
                if left <= 0 or any(what & HANGUP for _, what in poller.wait(left)):
                    break
        finally:
            poller.close()
        return self._exited

    def _close(self) -> None:
        try:
            win32.overlapped.UnregisterWait(self._wait)
        except OSError:
            pass  # it is just being told
        self._job.close()
        win32.api.CloseHandle(self._handle)
        self.retire()


class Files:
    """A child's standard streams: pipes to and from us, and our standard error."""

    def __init__(self, access: win32.SecurityDescriptor, *, kept: int = PIPE_BUFFER) -> None:
        """Make the pipes, which only those can open whom `access` lets. Raises OSError.

        So many bytes are `kept` that were written and the child has not read. With none of them
        a write is done when all of it has been read.
        """
        self._theirs: list[int] = []
        self._ours: list[OverlappedPipe] = []
        try:
            # Both ways, though the child cannot write: a read of ours fails when it has closed.
            api = win32.api
            self.writer = self._pipe(api.PIPE_ACCESS_DUPLEX, api.GENERIC_READ, kept, access)
            self.reader = self._pipe(api.PIPE_ACCESS_INBOUND, api.GENERIC_WRITE, 0, access)
            self._theirs.append(own_standard_error())
        except BaseException:
            self.close()
            raise

    def _pipe(
        self, ours: int, theirs: int, kept: int, access: win32.SecurityDescriptor
    ) -> OverlappedPipe:
        api = win32.api
        name = rf"\\.\pipe\sipc-handler-{os.getpid()}-{os.urandom(8).hex()}"
        end = OverlappedPipe(
            api.CreateNamedPipe(
                name,
                ours | api.FILE_FLAG_OVERLAPPED | api.FILE_FLAG_FIRST_PIPE_INSTANCE,
                win32.REJECT_REMOTE_CLIENTS,
                1,
                kept,
                PIPE_BUFFER,
                0,
                access.address,
            ),
            writes=ours == api.PIPE_ACCESS_DUPLEX,
        )
        self._ours.append(end)
        self._theirs.append(
            api.CreateFile(name, theirs, 0, api.NULL, api.OPEN_EXISTING, 0, api.NULL)
        )
        return end

    def startup(self) -> Any:
        """What a process is to inherit, and as what."""
        for handle in self._theirs:
            set_inheritable(handle, True)
        startup: Any = subprocess.__dict__["STARTUPINFO"](
            dwFlags=win32.api.STARTF_USESTDHANDLES,
            hStdInput=self._theirs[0],
            hStdOutput=self._theirs[1],
            hStdError=self._theirs[2],
            lpAttributeList={"handle_list": list(self._theirs)},
        )
        return startup

    def close_theirs(self) -> None:
        """The child has got them."""
        for handle in self._theirs:
            win32.api.CloseHandle(handle)
        self._theirs = []

    def close(self) -> None:
        """Close all."""
        self.close_theirs()
        for end in self._ours:
            end.close()


def set_inheritable(handle: int, inheritable: bool) -> None:
    """Whether children can be given this handle. Raises OSError."""
    change: Any = os.__dict__["set_handle_inheritable"]
    change(handle, inheritable)


def own_standard_error() -> int:
    """A copy of it, for a child. Raises OSError."""
    api, runtime = win32.api, import_module("msvcrt")
    get: Any = runtime.__dict__["get_osfhandle"]
    us = api.GetCurrentProcess()
    return int(api.DuplicateHandle(us, get(2), us, 0, False, api.DUPLICATE_SAME_ACCESS))
