"""The functions of each operating system's module; mypy checks both modules against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Protocol

from simpleipc_cli.pktline import Buffer


class FdPoll(Protocol):
    """Waits until a descriptor is ready, as select.poll does."""

    def poll(self, milliseconds: float | None = None, /) -> object:
        """Wait (None: without limit); return a true value if the descriptor is ready or closed."""


class SignalBlock(Protocol):
    """A context that blocks the signals that end a program. Use it in the main thread only."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def unblocked(self) -> AbstractContextManager[None]:
        """Return a context in which the signals are handled."""


class System(Protocol):
    """Files, users, signals and limits of one operating system."""

    UNSUPPORTED_OPTIONS: frozenset[str]
    """Options that this system cannot offer."""
    ENDING_SIGNALS: tuple[str, ...]
    """Names of the signals that end a program."""
    STOP_SIGNALS: tuple[str, ...]
    """Names of the signals that stop a server."""
    RELOAD_SIGNALS: tuple[str, ...]
    """Names of the signals on which a server reopens its files."""
    STATS_SIGNALS: tuple[str, ...]
    """Names of the signals on which a server logs its counters."""
    MAX_WAIT: float
    """Seconds that the main thread may wait for a lock, so that it handles signals (tunable)."""
    HAS_OWNERSHIP: bool
    """Whether files have owners, groups and modes."""
    SPOOL_FOLDERS: tuple[str, ...]
    """Directories for spool files, in the order in which they are tried after $TMPDIR."""
    PIPE_BUF: int
    """Bytes that a writable pipe accepts without blocking, and as one piece."""
    OPEN_FLAGS: int
    """Flags for every file that is opened: child processes must not inherit it."""
    O_NONBLOCK_FLAGS: int
    """Flags for a file that may be a FIFO or a terminal."""

    def get_fd_limits(self) -> tuple[int, int]:
        """Return the soft and the hard limit of open descriptors; sys.maxsize means no limit."""

    def count_open_fds(self) -> int:
        """Return the number of open descriptors; 3 (the standard streams) if it is unknown."""

    def set_fd_limit(self, soft: int, /) -> bool:
        """Set the soft limit of open descriptors. Return False if the system refuses."""

    def user_id(self) -> int:
        """Return the effective user id; -1 if users have no number."""

    def is_ambiguous_user(self, user: int, /) -> bool:
        """Return whether several users may have this number."""

    def set_binary_stdio(self) -> None:
        """Make the standard streams pass bytes unchanged."""

    def grow_pipe(self, descriptor: int) -> None:
        """Enlarge a pipe to a mebibyte if the system allows it; ignore other files."""

    def read_into(self, descriptor: int, buffer: memoryview) -> int:
        """Read into a buffer; return the number of bytes, 0 at the end. Raises OSError."""

    def read_into_nowait(self, descriptor: int, buffer: memoryview) -> int:
        """Read like read_into() without blocking. Raises OSError, also if it would block."""

    def temporary_file(self, folder: str) -> IO[bytes]:
        """Create a file without a name in `folder`, without a buffer. Raises OSError."""

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read at an offset of a file. Raises OSError."""

    def write_at(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write some of `buffers` at an offset; return the number of bytes. Raises OSError."""

    def fd_poll(self, descriptor: int, *, writing: bool) -> FdPoll:
        """Return an object that waits until a descriptor can be read or written."""

    def reset_signals(self) -> None:
        """Unblock all signals and set SIGCHLD to its default; a process inherits both."""

    def receive_signals(self, numbers: Iterable[int], handler: Callable[[int], object], /) -> None:
        """Block these signals in this thread; call `handler` with each one in another thread.

        A main thread that hangs in a system call cannot handle signals. Do nothing if the system
        cannot do this or no thread can start.
        """

    def set_timer(self, seconds: float, handler: Callable[[int, object], object], /) -> None:
        """Call `handler` in the main thread after some seconds."""

    def stop_timer(self) -> None:
        """Stop the timer of set_timer()."""

    def exit_by_signal(self, number: int, /) -> None:
        """End the process with a signal's default action. Return if the system cannot do that."""

    def execute(self, command: Sequence[str], environment: Mapping[str, str], /) -> int:
        """Execute a command with default signal handling, in place of this process if possible.

        Signals that are ignored stay ignored, except those that Python itself ignores. If the
        system cannot replace the process, wait for the command and return its exit status. Raises
        OSError if the command cannot be executed.
        """

    def in_foreground(self, terminal: int) -> bool:
        """Return whether this process may write to a terminal; True without job control."""

    def BlockedSignals(self) -> SignalBlock:
        """Return a context in which the signals that end a program are blocked."""

    def ignore_interrupt(self) -> None:
        """Ignore Ctrl-C. Call it in a process that the parent started within BlockedSignals."""
