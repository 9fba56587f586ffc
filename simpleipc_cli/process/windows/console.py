"""Starting processes on Windows that go on without us.

They have a console of their own that nobody sees, so neither Ctrl-C nor the end of ours reaches
them, and what they start opens no window, as it would if they had no console at all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from simpleipc_cli.process.windows.child import Job, set_inheritable
from simpleipc_cli.transport.windows import win32

_SUSPENDED, _NEW_GROUP, _NO_WINDOW = 0x4, 0x200, 0x08000000  # winbase.h
_SHARED = 0x3  # FILE_SHARE_READ, FILE_SHARE_WRITE


def start_apart(
    line: str,
    environment: Mapping[str, str],
    streams: tuple[int, int, int],
    more: tuple[int, ...],
    job: Job | None = None,
) -> int:
    """Start a program that gets these handles and no others; a handle of it, to be closed.

    `streams` become its standard streams, `more` it has to be told of, in `line` or
    `environment`. It starts in `job`, if there is one. Raises OSError.
    """
    api = win32.api
    handles = {*streams, *more}
    for handle in handles:
        set_inheritable(handle, True)
    startup: Any = subprocess.__dict__["STARTUPINFO"](
        dwFlags=api.STARTF_USESTDHANDLES,
        hStdInput=streams[0],
        hStdOutput=streams[1],
        hStdError=streams[2],
        lpAttributeList={"handle_list": list(handles)},
    )
    flags = _NEW_GROUP | _NO_WINDOW | _SUSPENDED
    process, thread, *_ = api.CreateProcess(
        None, line, None, None, True, flags, dict(environment), None, startup
    )
    try:
        if job is not None:
            job.add(process)  # before it can have started anything
        win32.library("kernel32").ResumeThread(win32.handle(thread))
    except BaseException:
        api.TerminateProcess(process, 1)
        api.CloseHandle(process)
        raise
    finally:
        api.CloseHandle(thread)
        for handle in handles:
            set_inheritable(handle, False)
    return int(process)


def anonymous_pipe() -> tuple[int, int]:
    """Its end for reading, and that for writing. Raises OSError."""
    reader, writer = win32.api.CreatePipe(None, 0)
    return int(reader), int(writer)


def open_nowhere() -> int:
    """NUL, for reading and writing. Raises OSError."""
    api = win32.api
    access = api.GENERIC_READ | api.GENERIC_WRITE
    return int(api.CreateFile("NUL", access, _SHARED, api.NULL, api.OPEN_EXISTING, 0, api.NULL))
