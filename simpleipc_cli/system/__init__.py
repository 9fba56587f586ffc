"""What differs between operating systems and is no transport and no process: files, users, signals.

The one place for it: the others that ask for the platform are the front of `transport` and
that of `handlers`. Loads little: every call of every verb needs it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.system.posix_signals import (
        BlockedSignals,
        block_terminal_signals,
        ignore_interrupt,
    )

    class Watch(Protocol):
        """What tells whether a descriptor can be used, as select.poll does."""

        def poll(self, milliseconds: float | None = None, /) -> object:
            """Wait, None for ever; true if it can be used, or is of no use any more."""


__all__ = [
    "ENDING_SIGNALS",
    "HAS_OWNERSHIP",
    "OPEN_FLAGS",
    "O_NONBLOCK_FLAGS",
    "PID_FILES",
    "PIPES_GROW",
    "RELOAD_SIGNALS",
    "SPOOL_FOLDER",
    "STATS_SIGNALS",
    "STOP_SIGNALS",
    "UNLIMITED",
    "UNSUPPORTED_OPTIONS",
    "BlockedSignals",
    "Watch",
    "block_terminal_signals",
    "exit_by_signal",
    "get_fd_limits",
    "ignore_interrupt",
    "read_at",
    "read_into",
    "read_into_nowait",
    "reset_signals",
    "set_binary_stdio",
    "set_fd_limit",
    "set_timer",
    "stop_alarm",
    "user_id",
    "watch",
    "write_at",
]

if sys.platform == "win32":
    from simpleipc_cli.system.windows import (
        ENDING_SIGNALS,
        HAS_OWNERSHIP,
        O_NONBLOCK_FLAGS,
        OPEN_FLAGS,
        PID_FILES,
        PIPES_GROW,
        RELOAD_SIGNALS,
        SIGNALS,
        SPOOL_FOLDER,
        STATS_SIGNALS,
        STOP_SIGNALS,
        UNLIMITED,
        UNSUPPORTED_OPTIONS,
        exit_by_signal,
        get_fd_limits,
        read_at,
        read_into,
        read_into_nowait,
        reset_signals,
        set_binary_stdio,
        set_fd_limit,
        set_timer,
        stop_alarm,
        user_id,
        watch,
        write_at,
    )
else:
    import _signal  # type: ignore[import-not-found]  # `signal` loads enums: see cli/signals.py

    UNSUPPORTED_OPTIONS: frozenset[str] = frozenset()
    """Options that make no sense here."""

    ENDING_SIGNALS: tuple[str, ...] = ("SIGINT", "SIGTERM", "SIGHUP")
    """Names of those that ask a program for its end."""

    STOP_SIGNALS: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    RELOAD_SIGNALS: tuple[str, ...] = ("SIGHUP",)
    STATS_SIGNALS: tuple[str, ...] = ("SIGUSR1",)
    """Names of what a server hears: to stop, to open its files anew, to say how it is."""

    SIGNALS = "system.posix_signals"
    """The module for what few need of signals."""

    HAS_OWNERSHIP = True
    """Whether files have owners, groups and modes."""

    PID_FILES = "process.posix.pidfile"
    """The module of `server` for them."""

    PIPES_GROW = True
    """Whether a pipe can be made to hold more."""

    SPOOL_FOLDER = "/var/tmp"  # noqa: S108 - files there have no names
    """Where bytes wait unless told otherwise: on a disk, where /tmp may be memory."""

    OPEN_FLAGS = os.O_CLOEXEC
    """For every file we open: no child is to have it."""

    O_NONBLOCK_FLAGS = os.O_NONBLOCK | os.O_NOCTTY
    """For what may be a pipe or a terminal."""

    UNLIMITED = -1
    """A limit that is none."""

    def get_fd_limits() -> tuple[int, int]:
        """How many descriptors may be open at once, and how many the system would ever allow us.

        UNLIMITED where there is no such limit.
        """
        import resource  # noqa: PLC0415 - few ask

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        none = resource.RLIM_INFINITY
        return UNLIMITED if soft == none else soft, UNLIMITED if hard == none else hard

    def set_fd_limit(soft: int, hard: int) -> bool:
        """Change the first of those; `hard` is the second, as it is. False if that cannot be."""
        import resource  # noqa: PLC0415 - see above

        none = resource.RLIM_INFINITY
        limits = (none if soft == UNLIMITED else soft, none if hard == UNLIMITED else hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (OSError, ValueError):
            return False
        return True

    def user_id() -> int:
        """The number of the user whom we act as; -1 where users have none."""
        return os.geteuid()

    def set_binary_stdio() -> None:
        """Let the standard streams pass on bytes as they are."""

    def read_into(descriptor: int, buffer: memoryview) -> int:
        """Read into a buffer; how many bytes, 0 at the end. Raises OSError."""
        return os.readv(descriptor, [buffer])

    def read_into_nowait(descriptor: int, buffer: memoryview) -> int:
        """The same, if that can be done without waiting. Raises OSError, also if it cannot."""
        return os.preadv(descriptor, [buffer], -1, os.RWF_NOWAIT)  # from where it stands

    def read_at(descriptor: int, size: int, offset: int) -> bytes:
        """Read from a place in a file. Raises OSError."""
        return os.pread(descriptor, size, offset)

    def write_at(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write some of `buffers` at a place in a file; how many bytes. Raises OSError."""
        return os.pwritev(descriptor, buffers, offset)

    def watch(descriptor: int, *, writing: bool) -> Watch:
        """What tells whether a descriptor can be read or written."""
        import select  # noqa: PLC0415 - most never wait but in a read or write

        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
        return poll

    def reset_signals() -> None:
        """Undo what a parent process leaves behind by accident: a signal mask, SIGCHLD ignored.

        Of children whose SIGCHLD is ignored the kernel keeps no exit status.
        """
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def set_timer(seconds: float, ring: Callable[[int, object], object]) -> None:
        """Have the main thread call `ring` after some seconds, whatever it does."""
        _signal.signal(_signal.SIGALRM, ring)
        _signal.setitimer(_signal.ITIMER_REAL, seconds)

    def stop_alarm() -> None:
        """Have no `ring` called any more."""
        _signal.setitimer(_signal.ITIMER_REAL, 0)

    def exit_by_signal(number: int) -> None:
        """End as a signal ends a program that does not handle it.

        Returns where that is impossible.
        """
        _signal.signal(number, _signal.SIG_DFL)
        _signal.raise_signal(number)


_LATER = ("BlockedSignals", "block_terminal_signals", "ignore_interrupt")


def __getattr__(name: str) -> object:
    """Load what only some need (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - a small send does without

    return getattr(import_module(f"simpleipc_cli.{SIGNALS}"), name)
