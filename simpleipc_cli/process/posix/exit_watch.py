"""Find out that a child has exited, and how, without reaping it.

On Linux a pidfd reports the exit, on macOS and the BSDs a kqueue. Elsewhere, and where a sandbox or
an old kernel forbids these, a thread waits for the child and then closes a pipe.
"""

from __future__ import annotations

import errno
import os
import select
import struct
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from signal import SIGKILL
from threading import Thread
from typing import Any, Protocol

from simpleipc_cli.errors import SipcError

# mypy knows some names only on the systems that have them.
_os: Any = os
_select: Any = select

_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

# Of macOS (sys/wait.h). siginfo_t begins with six numbers: si_signo, si_errno, si_code, si_pid,
# si_uid, si_status.
_P_PID, _WNOHANG, _WEXITED, _WNOWAIT = 1, 0x01, 0x04, 0x20
_SIGINFO = struct.Struct("@4iIi")
_SIGINFO_SIZE = 128  # bytes; more than macOS uses


class ExitWatch(Protocol):
    """Reports the exit of one child. Make it before the child starts, call begin() after that."""

    fds: int
    """Number of descriptors that it takes, and a poller for it."""
    descriptor: int
    """Descriptor to poll: READ after the child has exited; -1 before begin()."""

    def begin(self, pid: int) -> None:
        """Watch a child that is not reaped. Raises OSError."""

    def close(self) -> None:
        """Free the resources, once."""


class _PidfdWatch:
    """pidfd_open(2). The caller must leave a descriptor free."""

    fds = 1
    descriptor = -1

    def begin(self, pid: int) -> None:
        self.descriptor = _os.pidfd_open(pid)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class _KqueueWatch:
    """A kqueue(2), which can itself be polled: its only event is never taken."""

    fds = 2

    def __init__(self) -> None:
        """Raises OSError without a free descriptor."""
        self._kqueue = _select.kqueue()
        self.descriptor: int = self._kqueue.fileno()

    def begin(self, pid: int) -> None:
        try:
            self._add(pid, _select.KQ_FILTER_PROC, fflags=_select.KQ_NOTE_EXIT)
        except ProcessLookupError:  # it has exited; on macOS a zombie is not found either
            self._add(pid, _select.KQ_FILTER_TIMER, data=1)  # milliseconds

    def _add(self, ident: int, kind: int, **values: int) -> None:
        flags = _select.KQ_EV_ADD | _select.KQ_EV_ONESHOT
        self._kqueue.control([_select.kevent(ident, kind, flags, **values)], 0)

    def close(self) -> None:
        self._kqueue.close()


class _ThreadWatch:
    """A thread in waitid(2), and a pipe that it closes."""

    fds = 2

    def __init__(self) -> None:
        """Raises OSError without free descriptors or threads."""
        self.descriptor, writer = os.pipe()
        self._pid: SimpleQueue[int] = SimpleQueue()
        try:
            Thread(target=_close_at_exit, args=(writer, self._pid), daemon=True).start()
        except RuntimeError as error:
            os.close(self.descriptor)
            os.close(writer)
            raise OSError(errno.EAGAIN, str(error)) from error

    def begin(self, pid: int) -> None:
        self._pid.put(pid)

    def close(self) -> None:
        self._pid.put(0)  # ends a thread that has no child
        os.close(self.descriptor)


def _close_at_exit(descriptor: int, pids: SimpleQueue[int]) -> None:
    pid = pids.get()
    if pid:
        try:
            _wait(pid, block=True)
        except ChildProcessError:
            pass  # reaped already
    os.close(descriptor)


@cache
def best_exit_watch() -> type[ExitWatch]:
    """Return the kind of ExitWatch for this system.

    Raises SipcError if the system cannot report exits: then no child may be started.
    """
    pid = os.getpid()
    try:
        _wait(pid, block=False)
    except ChildProcessError:
        pass  # no process is its own child
    except OSError as error:
        raise SipcError(
            f"cannot watch the exit of a process: waitid: {error.strerror}",
            "allow waitid(2) in the sandbox",
        ) from error
    if hasattr(os, "pidfd_open"):
        try:
            os.close(os.pidfd_open(pid))
        except OSError as error:
            if error.errno in _SCARCE:
                raise
        else:
            return _PidfdWatch
    if hasattr(select, "kqueue"):
        return _KqueueWatch
    return _ThreadWatch


def exit_status(pid: int) -> int | None:
    """Return a child's exit status, or the negative signal number; None while it runs.

    Raises OSError.
    """
    found = _wait(pid, block=False)
    if found is None:
        return None
    code, status = found
    status &= 0xFF  # macOS reports all bits
    if code == os.CLD_EXITED:
        return status
    return -(status or SIGKILL)  # old releases of macOS do not report the signal


def _wait_by_python(pid: int, *, block: bool) -> tuple[int, int] | None:
    """Return `si_code` and `si_status` of a child that has exited; it stays a zombie."""
    options = os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG)
    found = _os.waitid(os.P_PID, pid, options)
    return None if found is None else (found.si_code, found.si_status)


def _wait_by_libc(pid: int, *, block: bool) -> tuple[int, int] | None:
    """Do the same on macOS, where Python has waitid(2) only since version 3.13."""
    import ctypes  # noqa: PLC0415 - see best_spawn()

    info = ctypes.create_string_buffer(_SIGINFO_SIZE)
    options = _WEXITED | _WNOWAIT | (0 if block else _WNOHANG)
    while _libc_waitid()(_P_PID, pid, info, options):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    _, _, code, found, _, status = _SIGINFO.unpack_from(info)
    return (code, status) if found else None


@cache
def _libc_waitid() -> Callable[..., int]:
    import ctypes  # noqa: PLC0415 - see best_spawn()

    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).waitid
    return function


_wait = _wait_by_python if hasattr(os, "waitid") else _wait_by_libc
