"""Files, users, signals and limits on POSIX systems. See base.System."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` is slow to load: see cli/__init__.py
import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import IO

    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.system.base import FdPoll

UNSUPPORTED_OPTIONS: frozenset[str] = frozenset()
ENDING_SIGNALS: tuple[str, ...] = ("SIGINT", "SIGTERM", "SIGHUP")
STOP_SIGNALS: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
RELOAD_SIGNALS: tuple[str, ...] = ("SIGHUP",)
STATS_SIGNALS: tuple[str, ...] = ("SIGUSR1",)
# A signal that arrives immediately before the system call of a wait does not interrupt it.
MAX_WAIT = 0.5

HAS_OWNERSHIP = True

SPOOL_FOLDERS: tuple[str, ...] = ("/var/tmp", "/tmp")  # noqa: S108 - files without names
PIPE_BUF = 4096 if sys.platform == "linux" else 512  # select.PIPE_BUF is slow to load
OPEN_FLAGS = os.O_CLOEXEC
O_NONBLOCK_FLAGS = os.O_NONBLOCK | os.O_NOCTTY

_PIPE_SIZE = 1 << 20  # bytes; the default maximum of Linux (fs.pipe-max-size, pipe(7))
_OVERFLOW_USER = 65534  # the default of /proc/sys/kernel/overflowuid
_ALL_USERS = 0xFFFFFFFF  # no user has the last number (user_namespaces(7))
_ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
_DEFAULT_FDS = 1024  # the usual soft limit of Linux; what it is not is found out by EMFILE
_MAX_FDS, _MIN_FDS = 1 << 20, 10240  # to try on macOS; OPEN_MAX of its sys/syslimits.h
_WITHOUT_TMPFILE = (errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL)  # file systems, old kernels
_IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)


def get_fd_limits() -> tuple[int, int]:
    import resource  # noqa: PLC0415 - few callers need it

    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:  # a sandbox forbids it
        return _DEFAULT_FDS, _DEFAULT_FDS
    none = resource.RLIM_INFINITY
    soft, hard = (sys.maxsize if limit == none else limit for limit in (soft, hard))
    return soft, hard if sys.platform != "darwin" else _accepted_fd_limit(soft, hard)


def _accepted_fd_limit(soft: int, hard: int) -> int:
    """Return the highest limit that macOS accepts; its hard limit may be higher."""
    limit = min(hard, _MAX_FDS)
    while limit > soft:
        if set_fd_limit(limit):
            set_fd_limit(soft)
            return limit
        limit = max(limit // 2, _MIN_FDS) if limit > _MIN_FDS else soft
    return soft


def count_open_fds() -> int:
    try:
        # Not counting listdir's own. /dev/fd of the BSDs may have only the standard streams.
        return max(len(os.listdir("/dev/fd")) - 1, 3)
    except OSError:
        return 3


def set_fd_limit(soft: int) -> bool:
    import resource  # noqa: PLC0415 - few callers need it

    try:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = resource.RLIM_INFINITY if soft == sys.maxsize else soft
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):
        return False
    return True


def user_id() -> int:
    return os.geteuid()


def is_ambiguous_user(user: int) -> bool:
    # The kernel shows this number for every user that has none in this user namespace.
    if user != _OVERFLOW_USER:
        return False
    try:
        with open("/proc/self/uid_map", "rb") as file:
            mapped = sum(int(line.split()[2]) for line in file)
    except (OSError, ValueError, IndexError):
        return False  # no user namespaces
    return mapped < _ALL_USERS


def set_binary_stdio() -> None:
    pass


def grow_pipe(descriptor: int) -> None:
    import fcntl  # noqa: PLC0415 - only for large transfers

    query, enlarge = (getattr(fcntl, f"F_{name}PIPE_SZ", None) for name in ("GET", "SET"))
    if query is None or enlarge is None:
        return  # only Linux has them; macOS enlarges a pipe itself when it is full
    try:
        if fcntl.fcntl(descriptor, query) < _PIPE_SIZE:
            fcntl.fcntl(descriptor, enlarge, _PIPE_SIZE)
    except OSError:
        pass  # not a pipe, or the user's pipes have reached their limit


def read_into(descriptor: int, buffer: memoryview) -> int:
    return os.readv(descriptor, [buffer])


def read_into_nowait(descriptor: int, buffer: memoryview) -> int:
    if not hasattr(os, "RWF_NOWAIT"):  # missing on macOS, and in Pythons built with musl < 1.2.5
        raise BlockingIOError
    return os.preadv(descriptor, [buffer], -1, os.RWF_NOWAIT)  # -1: at the file's own offset


def temporary_file(folder: str) -> IO[bytes]:
    flags = getattr(os, "O_TMPFILE", 0)
    if flags:
        try:
            descriptor = os.open(folder, flags | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
            return open(descriptor, "r+b", buffering=0)
        except OSError as error:
            if error.errno not in _WITHOUT_TMPFILE:
                raise
    from tempfile import TemporaryFile  # noqa: PLC0415 - slow to load

    return TemporaryFile(buffering=0, dir=folder)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    return os.pread(descriptor, size, offset)


def write_at(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
    return os.pwritev(descriptor, buffers, offset)


def fd_poll(descriptor: int, *, writing: bool) -> FdPoll:
    import select  # noqa: PLC0415 - most processes wait in a read or write only

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
    return poll


def reset_signals() -> None:
    # The kernel keeps no exit status of children whose SIGCHLD is ignored.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def receive_signals(numbers: Iterable[int], handler: Callable[[int], object]) -> None:
    from threading import Thread  # noqa: PLC0415 - for servers

    def receive() -> None:
        while True:
            handler(_signal.sigwait(numbers))

    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)
    try:
        Thread(target=receive, daemon=True).start()
    except (RuntimeError, MemoryError):  # the system has no more threads
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def set_timer(seconds: float, handler: Callable[[int, object], object]) -> None:
    _signal.signal(_signal.SIGALRM, handler)
    _set_itimer(seconds)


def stop_timer() -> None:
    _set_itimer(0)


def _set_itimer(seconds: float) -> None:
    try:
        _signal.setitimer(_signal.ITIMER_REAL, seconds)
    except OSError:
        pass  # a sandbox forbids it: do without a timer


def exit_by_signal(number: int) -> None:
    _signal.signal(number, _signal.SIG_DFL)
    _signal.raise_signal(number)


def execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
    for number in _ENDING:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)  # a handler would lose a signal during execve
    for number in _IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_DFL)
    if not command[0]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without an interpreter's name is the shell's, as for execvp(3).
    import shutil  # noqa: PLC0415 - seldom needed

    script = shutil.which(command[0], path=environment.get("PATH")) or command[0]
    os.execve("/bin/sh", ["sh", script, *command[1:]], environment)  # noqa: S606


def in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True


class BlockedSignals:
    """Blocks the signals that end a program."""

    def __enter__(self) -> BlockedSignals:
        self._before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)
        return self

    def __exit__(self, *_: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)

    def unblocked(self) -> _UnblockedSignals:
        return _UnblockedSignals(self._before)


class _UnblockedSignals:
    """A context, inside BlockedSignals, in which the blocked signals are handled."""

    def __init__(self, mask: set[int]) -> None:
        self._mask = mask

    def __enter__(self) -> None:
        try:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)
        except BaseException:  # raised by the handler of a pending signal
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)


def ignore_interrupt() -> None:
    pass  # the process has inherited its parent's signal mask


def lock_nowait(descriptor: int) -> bool:
    """Lock an open file with flock(2); return False if another process has the lock.

    The kernel releases it when the process ends. A file system without locks grants every lock.
    """
    import fcntl  # noqa: PLC0415 - for servers

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_at_path(descriptor: int, path: str, folder: int | None = None) -> bool:
    """Return whether `path`, relative to the descriptor `folder`, still names this open file.

    The lock of a file that was removed or replaced protects nothing. Raises OSError if `path`
    cannot be checked.
    """
    try:
        found = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(found, os.fstat(descriptor))
