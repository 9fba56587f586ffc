"""Standard streams, messages on standard error, the input of requests, the output of responses.

This module uses descriptors without buffers, so that data is passed on as it arrives. Other
programs may share a standard stream, so O_NONBLOCK is not set on it.
"""

from __future__ import annotations

import errno
import os
import stat
from _thread import TIMEOUT_MAX, allocate_lock, start_new_thread

from simpleipc_cli import system
from simpleipc_cli.cli.exitcodes import SIGPIPE, Terminated
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, TimedOut, errno_hint, file_hint
from simpleipc_cli.pktline import MAX_PAYLOAD
from simpleipc_cli.system import grow_pipe
from simpleipc_cli.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from simpleipc_cli.transport import FileReader, FileWriter

STDIN, STDOUT, STDERR = 0, 1, 2
CHUNK = 8 * MAX_PAYLOAD
"""Bytes per read: eight full packets."""

# Most requests fit, and a large buffer takes time to allocate. It is a full packet, as one read may
# get no more: not everywhere can all available data be read without blocking.
_FIRST_CHUNK = MAX_PAYLOAD
_BULK = 32 * 1024  # a larger read means bulk transfer; bytes, half of a pipe's default size
# Ends of hints that name no option, as programs get them, too.
_WAITING = ("wait for one", "wait longer", "allow more time")
_MAX_POLL = 86400.0  # seconds; poll's limit is 24 days (31 bits of milliseconds)


def fill_standard_fds() -> None:
    """Open /dev/null for each closed standard stream, so that no socket gets its number.

    Standard input is opened write-only and standard output read-only, so that using them fails.
    """
    for number, flags in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest free number
    system.set_binary_stdio()


def format_error(verb: str, error: SipcError) -> str:
    """Return the line `sipc VERB: MESSAGE: HINT`."""
    option = " with --wait" if error.hint.endswith(_WAITING) else ""
    return printable(f"{f'sipc {verb}' if verb else 'sipc'}: {error.text}{option}")


def unexpected_error(error: Exception) -> SipcError:
    """Return the error to report for an unexpected exception.

    For an OSError the message contains the failed call's argument and the calling function.
    """
    if isinstance(error, ImportError):
        hint = "check the installation, and the limits of files and memory"
        return SipcError(f"cannot load a module of Python: {error}", hint)
    if not isinstance(error, OSError):
        hint = "please report this, with the output of SIPC_DEBUG=1"
        return SipcError(f"unexpected {type(error).__name__}: {error}", hint)
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    call = "a system call" if traceback is None else traceback.tb_frame.f_code.co_qualname
    place = "" if error.filename is None else f" ({error.filename!r})"
    get_hint = errno_hint if error.filename is None else file_hint
    hint = get_hint(error, "set SIPC_DEBUG=1 to see where")
    return SipcError(f"{call}{place} failed: {error.strerror or error}", hint)


def print_error(line: str) -> None:
    """Write a line to standard error, in one write if possible; ignore errors."""
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass


def with_priority(text: str, priority: int) -> str:
    """Prefix each line with `<priority>`, which systemd's journal removes: sd-daemon(3)."""
    return "\n".join(f"<{priority:d}>{line}" for line in text.split("\n"))


def is_journal(descriptor: int = STDERR) -> bool:
    """Return whether a descriptor is the journal's, which JOURNAL_STREAM names: systemd.exec(5).

    The variable alone is not enough: processes with redirected stderr inherit it, too.
    """
    found = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def is_socket(descriptor: int) -> bool:
    """Return whether an open descriptor is a socket."""
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


class Input:
    """Reads the bytes of a request from a descriptor.

    The descriptor stays open until the process exits, as a thread may still read it.
    """

    def __init__(self, descriptor: int, name: str, deadline: Deadline) -> None:
        """`name` is for messages; `deadline` limits the wait for the first byte."""
        self._descriptor = descriptor
        self.name = name
        self._deadline = deadline
        self.is_terminal = os.isatty(descriptor)
        self._is_bulk = False
        self._is_full = False  # the last read has filled a small buffer
        self._buffer = memoryview(bytearray(_FIRST_CHUNK))
        self._reader: FileReader | None = None  # for read_nowait()
        self.at_eof = False
        """Whether read_first() or read_nowait() has reached the end."""

    @property
    def size(self) -> int | None:
        """Bytes left in a regular file; None if unknown."""
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None
            left = found.st_size - os.lseek(self._descriptor, 0, os.SEEK_CUR)
        except OSError:
            return None
        return left if left > 0 else None  # files in /proc have the size 0

    def read_first(self) -> memoryview:
        """Wait for data and read all available data; return no bytes at the end. See read_more().

        Raises TimedOut, SipcError.
        """
        is_limited = self._deadline.remaining() is not None
        if is_limited and not wait_until_ready(self._descriptor, self._deadline):
            raise TimedOut(f"no data arrived from {self.name} in time")
        count = len(self.read_more())
        if self._is_full:
            self._enlarge_buffer()
        try:
            while count and count < len(self._buffer) and not self.at_eof:
                more = system.read_into_nowait(self._descriptor, self._buffer[count:])
                count += more
                self.at_eof = not more
        except OSError:
            pass  # read_more() will raise the error
        return self._buffer[:count]

    def read_more(self) -> memoryview:
        """Wait for data and return it, valid until the next call; return no bytes at the end.

        Raises SipcError.
        """
        if self._is_full:
            self._enlarge_buffer()
        while True:
            try:
                count = system.read_into(self._descriptor, self._buffer)
            except BlockingIOError:  # another program set O_NONBLOCK
                wait_until_ready(self._descriptor, Deadline(None))
                continue
            except OSError as error:
                raise self._read_error(error) from error
            if not count:
                self._check_terminal()
            if not self._is_bulk and count >= _BULK:
                self._is_bulk = True
                grow_pipe(self._descriptor)
            self._is_full = count == len(self._buffer) < CHUNK
            return self._buffer[:count]

    def _enlarge_buffer(self) -> None:
        """Take a buffer of CHUNK bytes that starts with the bytes of the full one."""
        first = self._buffer
        self._buffer = memoryview(bytearray(CHUNK))
        self._buffer[: len(first)] = first
        self._is_full = False

    def fileno(self) -> int:
        """Return the descriptor to poll before read_nowait()."""
        if self._reader is None:
            from simpleipc_cli.transport import new_file_reader  # noqa: PLC0415

            self._reader = new_file_reader(self._descriptor)
        return self._reader.fileno()

    def read_nowait(self, limit: int) -> bytes:
        """Read up to `limit` bytes after the poller has reported READ; return no bytes at the end.

        Do not use it together with read_more(). Raises BlockingIOError without data, SipcError.
        """
        assert self._reader is not None, "fileno() comes first"  # noqa: S101
        try:
            data = self._reader.read_nowait(limit)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._read_error(error) from error
        if not data:
            self._check_terminal()
            self.at_eof = True
        return data

    def _check_terminal(self) -> None:
        """Raise SipcError if the terminal has closed: a read then returns 0 (Linux: tty_io.c)."""
        if self.is_terminal and not os.isatty(self._descriptor):
            raise self._read_error(OSError(errno.EIO, "the terminal was closed"))

    def _read_error(self, error: OSError) -> SipcError:
        hint = file_hint(error, "check its source")
        return SipcError(f"cannot read {self.name}: {error.strerror}", hint)


def named_descriptor(path: str, standard: int) -> int | None:
    """Return N for /dev/fd/N or a synonym, `standard` for "-", None for any other path.

    Callers use the open descriptor, as opening the path again fails for a socket.
    """
    named = {"-": standard, "/dev/stdin": STDIN, "/dev/stdout": STDOUT, "/dev/stderr": STDERR}
    if path in named:
        return named[path]
    folder, number = os.path.split(path)
    is_one = folder in {"/dev/fd", "/proc/self/fd"} and number.isdecimal() and len(number) < 10
    return int(number) if is_one else None


def open_input(name: str, deadline: Deadline) -> Input:
    """Open a file to read; "-" is standard input. Raises SipcError."""
    descriptor = named_descriptor(name, STDIN)
    if descriptor is not None:
        return Input(descriptor, "standard input" if name == "-" else name, deadline)
    try:
        descriptor = open_in_time(name, os.O_RDONLY, deadline)
    except OSError as error:
        raise SipcError(
            f"cannot read {name}: {error.strerror}", file_hint(error, "check its name and mode")
        ) from error
    return Input(descriptor, name, deadline)


def open_in_time(path: str, flags: int, deadline: Deadline) -> int:
    """Open a file. For a named pipe, wait for a process that opens the other end.

    Raises TimedOut, OSError.
    """
    flags |= system.OPEN_FLAGS
    left = deadline.remaining()
    if left is None or stat.S_ISREG(os.stat(path).st_mode):
        return os.open(path, flags)
    outcome: list[int | OSError] = []
    opened = allocate_lock()
    opened.acquire()

    def open_file() -> None:
        try:
            outcome.append(os.open(path, flags))
        except OSError as error:
            outcome.append(error)
        opened.release()

    # Open in a thread: not all systems can open a pipe without waiting for the other process.
    try:
        start_new_thread(open_file, ())
    except RuntimeError as error:
        raise SipcError(f"cannot open {path}: {error}", "raise the limit of processes") from None
    if not opened.acquire(timeout=min(left, TIMEOUT_MAX)):
        purpose = "read" if flags & os.O_WRONLY else "write"
        what = f"no process opened {path} to {purpose} in time"
        raise TimedOut(what, "allow more time, or start that process")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def read_whole(name: str) -> bytes:
    """Read a file into memory; "-" is standard input. Raises SipcError."""
    source = open_input(name, Deadline(None))
    return b"".join(bytes(data) for data in iter(source.read_more, b""))


def wait_until_ready(descriptor: int, deadline: Deadline, *, writing: bool = False) -> bool:
    """Wait until a descriptor is ready; return False if the deadline expires first."""
    poll = system.fd_poll(descriptor, writing=writing)
    while not deadline.expired():
        left = deadline.remaining()
        # Rounded up, so that poll() does not return before the deadline.
        if poll.poll(None if left is None else -int(-min(left, _MAX_POLL) * 1000 // 1)):
            return True
    return False


class Output:
    """An output that is written as the data arrives: standard output, a device or a pipe."""

    before_first_write: Callable[[], None] | None = None
    """Called once, before the first byte is written."""

    def __init__(self, descriptor: int, name: str, deadline: Deadline) -> None:
        """`name` is for messages. The descriptor stays open until the process exits."""
        self._descriptor = descriptor
        self._name = name
        self._deadline = deadline
        self._is_limited = deadline.remaining() is not None
        self._writer: FileWriter | None = None  # for write_nowait()

    @property
    def is_terminal(self) -> bool:
        return os.isatty(self._descriptor)

    def open(self) -> None:
        """Create files that close() removes; the caller must make sure to call close().

        Raises SipcError.
        """

    def fileno(self) -> int:
        """Return the descriptor to poll before the next write_nowait(); -1 if none."""
        return self._polled().fileno()

    def _polled(self) -> FileWriter:
        if self._writer is None:
            from simpleipc_cli.transport import new_file_writer  # noqa: PLC0415 - seldom needed

            self._writer = new_file_writer(self._descriptor)
        return self._writer

    def write_nowait(self, payload: memoryview) -> int:
        """Write without blocking; return the number of written bytes.

        Pass the rest again before other bytes, as its write may be pending. Raises the errors of
        write().
        """
        self._report_first_write()
        try:
            return self._polled().write_nowait(payload)
        except OSError as error:
            raise self._write_error(error) from error

    def write(self, payload: memoryview) -> None:
        """Write all of `payload`.

        Raises SipcError, TimedOut; Terminated (SIGPIPE) if a pipe has no reader.
        """
        self._report_first_write()
        while payload:
            if self._is_limited:
                self._wait_for_space()
            data = payload[: system.PIPE_BUF] if self._is_limited else payload
            try:
                payload = payload[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another program set O_NONBLOCK
                self._wait_for_space()
            except OSError as error:
                raise self._write_error(error) from error

    def _report_first_write(self) -> None:
        if self.before_first_write is not None:
            self.before_first_write()
            self.before_first_write = None

    def _wait_for_space(self) -> None:
        if not wait_until_ready(self._descriptor, self._deadline, writing=True):
            raise TimedOut(f"{self._name} did not take the response in time")

    def _write_error(self, error: OSError) -> SipcError | Terminated:
        if isinstance(error, BrokenPipeError):
            return Terminated(SIGPIPE)
        return write_error(self._name, error)

    def commit(self) -> None:
        """Complete the output after its last byte was written. Raises SipcError."""

    def close(self) -> None:
        """Remove the file if commit() was not called."""


def standard_output(deadline: Deadline) -> Output:
    """Return the output to standard output. `deadline` limits the waits for space."""
    return Output(STDOUT, "standard output", deadline)


def write_error(name: str, error: OSError) -> SipcError:
    """Return the error to report for a failed write to `name`."""
    hint = file_hint(error, "choose another place")
    return SipcError(f"cannot write to {name}: {error.strerror}", hint)


def print_line(text: str) -> None:
    """Write a line to standard output. Raises SipcError, or Terminated for a closed pipe."""
    data = (text + "\n").encode("utf-8", "surrogateescape")
    standard_output(Deadline(None)).write(memoryview(data))
