"""Run a program to which one system call is denied, and so to all programs that it starts.

    python denied.py CALL[:FIRST_ARGUMENT] ERRNO PROGRAM [ARGUMENT]...

The kernel's filter (seccomp(2)) is as in a container, or stands for an older kernel. Unlike strace,
it slows nothing down, and needs no permission.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

# The numbers of the calls, on x86_64 and on aarch64.
CALLS = {
    "accept4": (288, 242),
    "clone3": (435, 435),
    "epoll_create1": (291, 20),
    "eventfd2": (290, 19),
    "fchmod": (91, 52),
    "flock": (73, 32),
    "getrandom": (318, 278),
    "inotify_init1": (294, 26),
    "linkat": (265, 37),
    "memfd_create": (319, 279),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "preadv2": (327, 286),
    "prlimit64": (302, 261),
    "socketpair": (53, 199),
    "waitid": (247, 95),
}

_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2  # of prctl(2)
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000  # linux/seccomp.h
_NUMBER, _FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data


def deny(call: str, error: int, argument: int | None = None) -> None:
    """Deny a call to this process from now on, or only the calls with one first argument."""
    number = CALLS[call][os.uname().machine == "aarch64"]
    checks = [(_LOAD, 0, 0, _NUMBER), (_JUMP_IF_EQUAL, 0, 1, number)]
    if argument is not None:
        checks[1] = (_JUMP_IF_EQUAL, 0, 3, number)
        checks += [(_LOAD, 0, 0, _FIRST_ARGUMENT), (_JUMP_IF_EQUAL, 0, 1, argument)]
    program = [*checks, (_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    filters = ctypes.create_string_buffer(code)
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(filters)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *rest in ((_SET_NO_NEW_PRIVS, 1, 0), (_SET_SECCOMP, _FILTER, head)):
        if libc.prctl(option, *rest, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def main() -> None:
    call, error, program, *arguments = sys.argv[1:]
    name, _, argument = call.partition(":")
    deny(name, getattr(errno, error), int(argument) if argument else None)
    os.execvp(program, [program, *arguments])


if __name__ == "__main__":
    main()
