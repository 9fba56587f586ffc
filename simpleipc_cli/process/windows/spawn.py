"""Start a command line on Windows: CreateProcess, job objects, inherited handles.

A child inherits the handles that are listed for it, and no others.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from importlib import import_module
from math import ceil
from time import monotonic, sleep
from typing import Any

from simpleipc_cli.process import base
from simpleipc_cli.transport.windows import win32

join_words = subprocess.list2cmdline
"""Returns the command line that has these words. cmd.exe still expands %NAME% in them."""

NO_WINDOW = 0x08000000  # winbase.h
KILLED = 1
"""Exit status of killed processes."""

_SUSPENDED, _NEW_GROUP = 0x4, 0x200  # winbase.h
_SHARED = 0x3  # FILE_SHARE_READ, FILE_SHARE_WRITE
_ACCOUNTING, _LIMITS, _KILL_ON_CLOSE = 1, 9, 0x2000  # winnt.h: of jobs
_LIMITS_SIZE, _LIMITS_FLAGS_AT = 144, 16  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION with 64 bits
_ACCOUNTING_SIZE, _ACTIVE_AT = 48, 40  # JOBOBJECT_BASIC_ACCOUNTING_INFORMATION
_EXIT_TIMEOUT = 1.0  # seconds to wait for killed processes (tunable)
_POLL_INTERVAL = 0.005  # seconds between polls of a job (tunable)


class Command(base.Command):
    """A command line for cmd.exe. Only cmd.exe can find out whether the command exists."""

    def shell_line(self, environment: Mapping[str, str]) -> str:
        """Return the line that starts the shell. With /s it removes only the outer quotes."""
        return f'"{environment.get("COMSPEC", "cmd.exe")}" /d /s /c "{self.line}"'


class JobObject:
    """A Windows job. Its processes cannot leave it. Closing it kills them, if so created."""

    def __init__(self, *, kill_on_close: bool = True) -> None:
        """Create an empty job. Raises OSError."""
        kernel, native = win32.dll("kernel32"), win32.ctypes()
        kernel.CreateJobObjectW.restype = native.c_void_p
        self._handle: int = kernel.CreateJobObjectW(None, None) or 0
        if not self._handle:
            raise win32.last_error()
        if not kill_on_close:
            return
        limits = bytearray(_LIMITS_SIZE)
        limits[_LIMITS_FLAGS_AT : _LIMITS_FLAGS_AT + 4] = _KILL_ON_CLOSE.to_bytes(4, "little")
        if not kernel.SetInformationJobObject(
            win32.handle(self._handle), _LIMITS, bytes(limits), _LIMITS_SIZE
        ):
            error = win32.last_error()
            self.close()
            raise error

    def add(self, process: int) -> None:
        """Add a process, and all processes that it will start. Raises OSError."""
        kernel = win32.dll("kernel32")
        if not kernel.AssignProcessToJobObject(win32.handle(self._handle), win32.handle(process)):
            raise win32.last_error()

    def kill(self) -> None:
        win32.dll("kernel32").TerminateJobObject(win32.handle(self._handle), KILLED)

    def wait_until_empty(self) -> None:
        """Wait until no process in the job runs, by polling, at most a second."""
        end = monotonic() + _EXIT_TIMEOUT
        while not self._is_empty() and monotonic() < end:
            sleep(_POLL_INTERVAL)

    def _is_empty(self) -> bool:
        buffer = win32.ctypes().create_string_buffer(_ACCOUNTING_SIZE)
        found = win32.dll("kernel32").QueryInformationJobObject(
            win32.handle(self._handle), _ACCOUNTING, buffer, _ACCOUNTING_SIZE, None
        )
        return not found or buffer.raw[_ACTIVE_AT : _ACTIVE_AT + 4] == bytes(4)

    def close(self) -> None:
        handle, self._handle = self._handle, 0
        if handle:
            win32.api.CloseHandle(handle)


def create_process(
    line: str,
    environment: Mapping[str, str],
    streams: tuple[int, int, int],
    *,
    extra: tuple[int, ...] = (),
    job: JobObject | None = None,
    flags: int = 0,
) -> tuple[int, int]:
    """Start a program; return its process handle, which the caller closes, and its process id.

    The program inherits `streams` as its standard streams, and the `extra` handles. It starts in
    `job`, if given. Raises OSError.
    """
    api = win32.api
    handles = {*streams, *extra}
    for handle in handles:
        _set_inheritable(handle, True)
    startup: Any = subprocess.__dict__["STARTUPINFO"](
        dwFlags=api.STARTF_USESTDHANDLES,
        hStdInput=streams[0],
        hStdOutput=streams[1],
        hStdError=streams[2],
        lpAttributeList={"handle_list": list(handles)},
    )
    flags |= _NEW_GROUP | _SUSPENDED
    process, thread, pid, _ = api.CreateProcess(
        None, line, None, None, True, flags, dict(environment), None, startup
    )
    try:
        if job is not None:
            job.add(process)  # before it runs and starts other processes
        win32.dll("kernel32").ResumeThread(win32.handle(thread))
    except BaseException:
        api.TerminateProcess(process, KILLED)
        api.CloseHandle(process)
        raise
    finally:
        api.CloseHandle(thread)
        for handle in handles:
            _set_inheritable(handle, False)
    return int(process), int(pid)


def wait_for_exit(process: int, seconds: float) -> int | None:
    """Return the exit status of a process; None if it does not exit in time.

    Ctrl-C interrupts the wait in the main thread.
    """
    api = win32.api
    try:
        found = api.WaitForMultipleObjects([process], False, ceil(seconds * 1000))
    except InterruptedError:
        return None
    return int(api.GetExitCodeProcess(process)) if found == api.WAIT_OBJECT_0 else None


def _set_inheritable(handle: int, inheritable: bool) -> None:
    change: Any = os.__dict__["set_handle_inheritable"]
    change(handle, inheritable)


def duplicate_stderr() -> int:
    """Return a duplicate of standard error, for a child. Raises OSError."""
    api, runtime = win32.api, import_module("msvcrt")
    get: Any = runtime.__dict__["get_osfhandle"]
    us = api.GetCurrentProcess()
    return int(api.DuplicateHandle(us, get(2), us, 0, False, api.DUPLICATE_SAME_ACCESS))


def anonymous_pipe() -> tuple[int, int]:
    """Return the read end and the write end of a new pipe. Raises OSError."""
    reader, writer = win32.api.CreatePipe(None, 0)
    return int(reader), int(writer)


def open_null() -> int:
    """Open NUL for reading and writing. Raises OSError."""
    api = win32.api
    access = api.GENERIC_READ | api.GENERIC_WRITE
    return int(api.CreateFile("NUL", access, _SHARED, api.NULL, api.OPEN_EXISTING, 0, api.NULL))
