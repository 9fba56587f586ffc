"""Windows itself, as far as pipes need it: its modules, numbers, and calls that have no module.

Loaded on Windows alone. The modules are fetched by name, so that a type checker on another
system, to which they are empty, does not mind.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

api: Any = import_module("_winapi")
overlapped: Any = import_module("_overlapped")
"""asyncio's own: completion ports and overlapped reads and writes that keep their buffers."""

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

# winbase.h
REJECT_REMOTE_CLIENTS = 0x8
IDENTIFY_ONLY = 0x00110000
"""SECURITY_SQOS_PRESENT, SECURITY_IDENTIFICATION: a server learns who we are, no more."""

_libraries: dict[str, Any] = {}


def ctypes() -> Any:
    """The module, loaded when it is first needed."""
    return import_module("ctypes")


def dll(name: str) -> Any:
    """A system library, whose calls keep their own last error."""
    if name not in _libraries:
        _libraries[name] = ctypes().WinDLL(name, use_last_error=True)
    return _libraries[name]


def handle(value: int) -> Any:
    """A handle as a foreign call takes it; a bare number would be cut to 32 bits."""
    return ctypes().c_void_p(value)


def last_error() -> OSError:
    """The last foreign call's error."""
    native = ctypes()
    error: OSError = native.WinError(native.get_last_error())
    return error


def winerror(error: OSError) -> int:
    """The system's own number of an error."""
    return getattr(error, "winerror", None) or 0


def strerror(error: OSError) -> str:
    """The system's own words, beginning small, as they stand behind a colon."""
    text = (error.strerror or str(error)).rstrip(". \r\n")
    return text[:1].lower() + text[1:]


def process_at_other_end(pipe: int, *, of_client: bool) -> int:
    """The process id of whoever opened, or made, the other end; 0 if that is not known."""
    kernel = dll("kernel32")
    ask = kernel.GetNamedPipeClientProcessId if of_client else kernel.GetNamedPipeServerProcessId
    number = ctypes().c_ulong()
    found = ask(handle(pipe), ctypes().byref(number))
    return int(number.value) if found else 0


def own_user() -> str:
    """The security identifier of the user whom this process runs as, in text. Raises OSError."""
    native, kernel, security = ctypes(), dll("kernel32"), dll("advapi32")
    kernel.GetCurrentProcess.restype = native.c_void_p
    token, size = native.c_void_p(), native.c_ulong()
    query, token_user = 0x0008, 1  # TOKEN_QUERY, TokenUser
    if not security.OpenProcessToken(
        handle(kernel.GetCurrentProcess()), query, native.byref(token)
    ):
        raise last_error()
    try:
        room = native.create_string_buffer(256)  # the longest has 68 bytes, and a pointer to it
        if not security.GetTokenInformation(token, token_user, room, len(room), native.byref(size)):
            raise last_error()
    finally:
        api.CloseHandle(token.value)
    user = native.cast(room, native.POINTER(native.c_void_p))[0]
    text = native.c_wchar_p()
    if not security.ConvertSidToStringSidW(handle(user), native.byref(text)):
        raise last_error()
    found = str(text.value)
    kernel.LocalFree(text)
    return found


class SecurityDescriptor:
    """Who may open a pipe, as CreateNamedPipe takes it; it must be kept for so long."""

    def __init__(self, rules: str) -> None:
        """`rules` in the security descriptor definition language. Raises OSError."""
        native = ctypes()
        self._descriptor = native.c_void_p()
        revision = 1  # SDDL_REVISION_1
        if not dll("advapi32").ConvertStringSecurityDescriptorToSecurityDescriptorW(
            rules, revision, native.byref(self._descriptor), None
        ):
            raise last_error()
        # SECURITY_ATTRIBUTES: its size, the descriptor, and that children get no copy.
        size = 3 * native.sizeof(native.c_void_p)
        self._attributes = (native.c_void_p * 3)(size, self._descriptor.value, 0)
        self.address: int = native.addressof(self._attributes)

    def close(self) -> None:
        """Free it."""
        dll("kernel32").LocalFree(self._descriptor)
