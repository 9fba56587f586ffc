"""Constants and calls of Windows for pipes and processes.

Loaded on Windows only. It imports Windows modules by import_module(), as type checkers on other
systems find no names in them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

api: Any = import_module("_winapi")
overlapped: Any = import_module("_overlapped")
"""asyncio's module for completion ports and overlapped I/O. Its objects keep their buffers."""

# winerror.h
FILE_NOT_FOUND = 2
PATH_NOT_FOUND = 3
ACCESS_DENIED = 5
SHARING_VIOLATION = 32
BAD_NETPATH = 53
BROKEN_PIPE = 109
INVALID_NAME = 123
BAD_PATHNAME = 161
NAME_TOO_LONG = 206
PIPE_BUSY = 231

_SCARCE = {4, 8, 14, 1450, 1455, 1816}  # too few handles; too little memory, paging file, quota
_DISK_FULL = {39, 112}

# winbase.h
REJECT_REMOTE_CLIENTS = 0x8
IDENTIFY_ONLY = 0x00110000
"""SECURITY_SQOS_PRESENT, SECURITY_IDENTIFICATION: no server may act as the client's user."""

_dlls: dict[str, Any] = {}


def ctypes() -> Any:
    """Return the module, loaded at first use."""
    return import_module("ctypes")


def dll(name: str) -> Any:
    """Return a system library. Its calls set last_error()."""
    if name not in _dlls:
        _dlls[name] = ctypes().WinDLL(name, use_last_error=True)
    return _dlls[name]


def handle(value: int) -> Any:
    """Return a handle as an argument of a call: ctypes truncates a plain number to 32 bits."""
    return ctypes().c_void_p(value)


def last_error() -> OSError:
    """Return the error of the last call."""
    native = ctypes()
    error: OSError = native.WinError(native.get_last_error())
    return error


def winerror(error: OSError) -> int:
    """Return the system's error number, 0 if there is none."""
    return getattr(error, "winerror", None) or 0


def strerror(error: OSError) -> str:
    """Return the system's message with a small first letter, for use after a colon."""
    text = (error.strerror or str(error)).rstrip(". \r\n")
    return text[:1].lower() + text[1:]


def is_scarce(error: OSError) -> bool:
    """Return whether the system has too little memory, handles or quota."""
    return winerror(error) in _SCARCE


def hint(error: OSError, default: str) -> str:
    """Return advice for errors about missing resources; `default` for any other error."""
    if is_scarce(error):
        return "close some programs"
    return "free space on the disk" if winerror(error) in _DISK_FULL else default


def create_lock_pipe(name: str) -> int:
    """Create a pipe of which only one can exist; return its handle. It ends with the process.

    Return 0 if the pipe exists. Raises OSError.
    """
    access = api.PIPE_ACCESS_INBOUND
    try:
        pipe = api.CreateNamedPipe(name, access, REJECT_REMOTE_CLIENTS, 1, 0, 0, 0, api.NULL)
    except OSError as error:
        if winerror(error) in (PIPE_BUSY, ACCESS_DENIED):
            return 0
        raise
    return int(pipe)


def peer_pid(pipe: int, *, of_client: bool) -> int:
    """Return the process id of the pipe's client, or server; 0 if it is not known."""
    kernel = dll("kernel32")
    query = kernel.GetNamedPipeClientProcessId if of_client else kernel.GetNamedPipeServerProcessId
    number = ctypes().c_ulong()
    found = query(handle(pipe), ctypes().byref(number))
    return int(number.value) if found else 0


def own_user() -> str:
    """Return the security identifier of this process's user, as text. Raises OSError."""
    native, kernel, security = ctypes(), dll("kernel32"), dll("advapi32")
    kernel.GetCurrentProcess.restype = native.c_void_p
    token, size = native.c_void_p(), native.c_ulong()
    query, token_user = 0x0008, 1  # TOKEN_QUERY, TokenUser
    if not security.OpenProcessToken(
        handle(kernel.GetCurrentProcess()), query, native.byref(token)
    ):
        raise last_error()
    try:
        buffer = native.create_string_buffer(256)  # an identifier has at most 68 bytes
        if not security.GetTokenInformation(
            token, token_user, buffer, len(buffer), native.byref(size)
        ):
            raise last_error()
    finally:
        api.CloseHandle(token.value)
    user = native.cast(buffer, native.POINTER(native.c_void_p))[0]
    text = native.c_wchar_p()
    if not security.ConvertSidToStringSidW(handle(user), native.byref(text)):
        raise last_error()
    found = str(text.value)
    kernel.LocalFree(text)
    return found


class SecurityDescriptor:
    """Access rules for CreateNamedPipe(). Keep the object until the last call that uses it."""

    def __init__(self, rules: str) -> None:
        """`rules` in the security descriptor definition language. Raises OSError."""
        native = ctypes()
        self._descriptor = native.c_void_p()
        revision = 1  # SDDL_REVISION_1
        if not dll("advapi32").ConvertStringSecurityDescriptorToSecurityDescriptorW(
            rules, revision, native.byref(self._descriptor), None
        ):
            raise last_error()
        # SECURITY_ATTRIBUTES: its size, the descriptor, and 0: children do not inherit the handle.
        size = 3 * native.sizeof(native.c_void_p)
        self._attributes = (native.c_void_p * 3)(size, self._descriptor.value, 0)
        self.address: int = native.addressof(self._attributes)

    def close(self) -> None:
        """Free the memory."""
        dll("kernel32").LocalFree(self._descriptor)
