"""Where a request comes from and where a response goes: standard streams and files.

Raw descriptors, no buffering: what is there is passed on. A standard stream may be shared
with other programs, so its flags are left as they are found.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from time import sleep

from simpleipc_cli import system
from simpleipc_cli.cli import signals
from simpleipc_cli.cli.exitcodes import Terminated
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, TimedOut
from simpleipc_cli.pktline import MAX_PAYLOAD
from simpleipc_cli.system.pipes import grow_pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.transport import FileReader, FileWriter

STDIN, STDOUT, STDERR = 0, 1, 2
CHUNK = 8 * MAX_PAYLOAD
"""Bytes read at once: full packets."""

_MUCH = 32 * 1024
"""Bytes read at once that show a stream: half of what a pipe holds unless told otherwise."""

_LONGEST_WAIT = 86400.0  # seconds; poll's number for milliseconds ends at 24 days
_AS_WE_ACT = os.access in os.supports_effective_ids
_PAUSE = 0.01  # seconds between looks where no event tells, at will
_SURE_TO_FIT = 4096  # bytes that a pipe takes without waiting once it is writable (PIPE_BUF)


def fill_standard_fds() -> None:
    """See that 0, 1 and 2 are taken: else a socket would become somebody's standard output.

    What was closed stays of no use: reading standard input fails, as does writing to
    standard output. Only messages may go nowhere.
    """
    for number, flags in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest that is free
    system.set_binary_stdio()


def print_line(text: str) -> None:
    """Write a line to standard output. Raises SipcError; ends as cat does on a closed pipe."""
    data = (text + "\n").encode("utf-8", "surrogateescape")
    DescriptorOutput(STDOUT, "standard output", Deadline(None)).write(memoryview(data))


class Input:
    """A request's bytes, from a descriptor."""

    def __init__(self, descriptor: int, name: str, deadline: Deadline) -> None:
        """`name` is for messages; the deadline is for the first byte."""
        self._descriptor = descriptor
        self.name = name
        self._deadline = deadline
        self._is_terminal = os.isatty(descriptor)
        self._much = False  # whether a stream passes
        self._buffer = memoryview(bytearray(CHUNK))  # memory that is used as far as it is filled
        self._reader: FileReader | None = None  # for read_now(), which few use
        self.ended = False
        """Whether first() has seen that there is nothing more."""

    def fileno(self) -> int:
        """The descriptor to poll before read_now()."""
        if self._reader is None:
            from simpleipc_cli.transport import new_file_reader  # noqa: PLC0415

            self._reader = new_file_reader(self._descriptor)
        return self._reader.fileno()

    @property
    def typed(self) -> bool:
        """Whether somebody types them."""
        return self._is_terminal

    @property
    def size(self) -> int | None:
        """How many are left, as far as that can be known."""
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None
            left = found.st_size - os.lseek(self._descriptor, 0, os.SEEK_CUR)
        except OSError:
            return None
        return left if left > 0 else None  # what the kernel makes up has no size

    def first(self) -> memoryview:
        """The first bytes, all that are there; empty at the end. See more().

        Raises TimedOut, SipcError.
        """
        limited = self._deadline.remaining() is not None
        if limited and not _wait(self._descriptor, self._deadline):
            raise TimedOut(f"nothing came from {self.name} in time")
        count = len(self.more())
        try:
            while count and count < len(self._buffer) and not self.ended:
                more = system.read_into_nowait(self._descriptor, self._buffer[count:])
                count += more
                self.ended = not more
        except OSError:
            pass  # more() will tell
        return self._buffer[:count]

    def more(self) -> memoryview:
        """The next bytes, waiting for them; empty at the end. They are good until the next call.

        Raises SipcError.
        """
        while True:
            try:
                count = system.read_into(self._descriptor, self._buffer)
            except BlockingIOError:  # whoever shares it made it so
                _wait(self._descriptor, Deadline(None))
                continue
            except OSError as error:
                raise self._failure(error) from error
            if not count:
                self._check_end()
            if not self._much and count >= _MUCH:
                self._much = True
                grow_pipe(self._descriptor)
            return self._buffer[:count]

    def read_nowait(self, limit: int) -> bytes:
        """The next bytes, `limit` at most, for when the poller says that some are there.

        Not together with more(). Raises BlockingIOError if there are none after all, SipcError.
        """
        assert self._reader is not None, "nobody has polled"  # noqa: S101
        try:
            data = self._reader.read_nowait(limit)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._failure(error) from error
        if not data:
            self._check_end()
        return data

    def _check_end(self) -> None:
        """A terminal that has gone away reads as one whose user is done (Linux: tty_io.c)."""
        if self._is_terminal and not os.isatty(self._descriptor):
            raise self._failure(OSError(errno.EIO, "its terminal is gone"))

    def _failure(self, error: OSError) -> SipcError:
        return SipcError(f"cannot read {self.name}: {error.strerror}", "check where it comes from")


def open_input(name: str, deadline: Deadline) -> Input:
    """The input for `--data-file`: "-" is standard input. Raises SipcError."""
    if name == "-":
        return Input(STDIN, "standard input", deadline)
    try:
        return Input(os.open(name, os.O_RDONLY | system.OPEN_FLAGS), name, deadline)
    except OSError as error:
        raise SipcError(
            f"cannot read {name}: {error.strerror}", "check its name and mode"
        ) from error


def read_whole(name: str) -> bytes:
    """All of a file, in memory; "-" is standard input. Raises SipcError."""
    source = open_input(name, Deadline(None))
    return b"".join(bytes(piece) for piece in iter(source.more, b""))


class Output(ABC):
    """A response's way to whoever wants it."""

    @property
    def on_terminal(self) -> bool:
        """Whether somebody is going to see it as it comes."""
        return False

    def begin(self) -> None:  # noqa: B027 - most have nothing to do
        """Make ready what abandon() clears up; call it where that is sure to be called.

        Raises SipcError.
        """

    @abstractmethod
    def write(self, payload: memoryview) -> None:
        """Pass some of it on. Raises SipcError, TimedOut."""

    def fileno(self) -> int:
        """The descriptor to poll while write_now() does not take all; -1 if it always does."""
        return -1

    def write_nowait(self, payload: memoryview) -> int:
        """Pass on what can be without waiting for a reader; how many bytes that were.

        The others may be on their way: offer them again before anything else. Raises SipcError.
        """
        self.write(payload)
        return len(payload)

    @abstractmethod
    def complete(self) -> None:
        """All of it was written. Raises SipcError."""

    @abstractmethod
    def abandon(self) -> None:
        """It will never be complete. Without effect after complete()."""


class DescriptorOutput(Output):
    """Standard output, or something else that is no plain file: written to as it comes."""

    def __init__(self, descriptor: int, name: str, deadline: Deadline) -> None:
        """`name` is for messages."""
        self._descriptor = descriptor
        self._name = name
        self._deadline = deadline
        self._limited = deadline.remaining() is not None
        self._writer: FileWriter | None = None  # for write_now(), which few use

    def _polled(self) -> FileWriter:
        if self._writer is None:
            self._writer = _file_writer(self._descriptor)
        return self._writer

    def fileno(self) -> int:
        """See Output."""
        return self._polled().fileno()

    def write_nowait(self, payload: memoryview) -> int:
        """See Output. A closed pipe cuts us short, as it does cat. Raises CutShort."""
        try:
            return self._polled().write_nowait(payload)
        except OSError as error:
            raise self._failure(error) from error

    @property
    def on_terminal(self) -> bool:
        """See Output."""
        return os.isatty(self._descriptor)

    def write(self, payload: memoryview) -> None:
        """See Output. A closed pipe cuts us short, as it does cat. Raises CutShort."""
        while payload:
            if self._limited:
                self._wait(self._deadline)
            piece = payload[:_SURE_TO_FIT] if self._limited else payload
            try:
                payload = payload[os.write(self._descriptor, piece) :]
            except BlockingIOError:  # whoever shares it made it so
                self._wait(self._deadline)
            except OSError as error:
                raise self._failure(error) from error

    def _failure(self, error: OSError) -> SipcError | Terminated:
        if isinstance(error, BrokenPipeError):
            return Terminated(signals.SIGPIPE)
        return _write_error(self._name, error)

    def _wait(self, deadline: Deadline) -> None:
        if not _wait(self._descriptor, deadline, writing=True):
            raise TimedOut(f"{self._name} did not take the answer in time")

    def complete(self) -> None:
        """See Output."""

    def abandon(self) -> None:
        """See Output."""


class MessageOutput:
    """Standard error, for messages: that nobody can read them is no reason to fail."""

    def __init__(self, deadline: Deadline) -> None:
        """Looks what it is. Once the deadline has passed nobody waits for a reader."""
        self._deadline = deadline
        self._writer = _file_writer(STDERR)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._writer.fileno()

    def write_nowait(self, payload: memoryview) -> int:
        """Write what is taken without waiting; how many bytes that were."""
        try:
            return self._writer.write_nowait(payload)
        except OSError:
            return len(payload)

    def write(self, payload: memoryview) -> None:
        """Write all of it, waiting for room."""
        from simpleipc_cli.transport import WRITE, new_poller  # noqa: PLC0415 - see _file_writer

        poller = new_poller()
        poller.register(self._writer.fileno(), WRITE)
        try:
            while payload := payload[self.write_nowait(payload) :]:
                while not poller.wait(self._deadline.remaining()):
                    if self._deadline.passed():
                        return
        finally:
            poller.close()


def _file_writer(descriptor: int) -> FileWriter:
    from simpleipc_cli.transport import new_file_writer  # noqa: PLC0415 - most do without

    return new_file_writer(descriptor)


class FileOutput(Output):
    """A file that appears under its name only when it is complete."""

    def __init__(self, path: str) -> None:
        """Makes nothing yet. Raises SipcError."""
        self._name = path
        try:
            self._path = os.path.realpath(path)  # a link stays, what it leads to is replaced
        except OSError as error:
            raise _write_error(path, error) from error
        folder, name = os.path.split(self._path)
        # Room for what is added, in names that may be 255 bytes long.
        self._temporary = os.path.join(folder, f".{name[:40]}.sipc-{os.urandom(6).hex()}")
        self._descriptor = -1

    def begin(self) -> None:
        """Make the temporary file, whose name is known by now: a signal may come at any time."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.OPEN_FLAGS
        try:
            old = _stat_or_none(self._path)
            if old is not None and not os.access(self._path, os.W_OK, effective_ids=_AS_WE_ACT):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            mode = 0o666 if old is None else 0o600  # until its group is right
            self._descriptor = os.open(self._temporary, flags, mode)
        except OSError as error:
            raise _write_error(self._name, error) from error
        if old is not None and system.HAS_OWNERSHIP:
            self._take_after(old)

    def _take_after(self, old: os.stat_result) -> None:
        """Owner and mode stay, as with a shell's redirection; as far as we may."""
        mode = stat.S_IMODE(old.st_mode) & 0o777
        if not self._give_to(old.st_uid, old.st_gid) and not self._give_to(-1, old.st_gid):
            mode &= ~0o070  # what the old group might do is not for another
        os.fchmod(self._descriptor, mode)

    def _give_to(self, user: int, group: int) -> bool:
        try:
            os.fchown(self._descriptor, user, group)
        except OSError:
            return False
        return True

    def write(self, payload: memoryview) -> None:
        """See Output."""
        try:
            while payload:
                payload = payload[os.write(self._descriptor, payload) :]
        except OSError as error:
            raise _write_error(self._name, error) from error

    def complete(self) -> None:
        """See Output."""
        try:
            os.close(self._descriptor)  # some file systems only now say that they are full
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise _write_error(self._name, error) from error
        self._temporary = ""

    def abandon(self) -> None:
        """See Output. The old file stays."""
        if self._temporary:
            try:
                os.unlink(self._temporary)
            except OSError:
                pass


def open_output(path: str | None, deadline: Deadline) -> Output:
    """The output for `-o`: none or "-" is standard output; a device or pipe gets no rename."""
    if path is None or path == "-":
        return DescriptorOutput(STDOUT, "standard output", deadline)
    try:
        descriptor = _descriptor_named(path)
        if descriptor is not None:
            return DescriptorOutput(os.dup(descriptor), path, deadline)
        found = _stat_or_none(path)
        if found is not None and not stat.S_ISREG(found.st_mode):
            return DescriptorOutput(_open_special(path, deadline), path, deadline)
    except OSError as error:
        raise _write_error(path, error) from error
    if not os.path.basename(path):
        raise SipcError(f"{path!r} is no name for a file", "give another after -o")
    return FileOutput(path)


def _descriptor_named(path: str) -> int | None:
    """The number in /dev/fd/N and the like: what is open there is meant, and not its file."""
    named = {"/dev/stdin": STDIN, "/dev/stdout": STDOUT, "/dev/stderr": STDERR}
    if path in named:
        return named[path]
    folder, number = os.path.split(path)
    is_one = folder in {"/dev/fd", "/proc/self/fd"} and number.isdecimal() and len(number) < 10
    return int(number) if is_one else None


def _stat_or_none(path: str) -> os.stat_result | None:
    """What is there, if anything is. Raises OSError."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _open_special(path: str, deadline: Deadline) -> int:
    """Open a device, or a named pipe, which waits for its reader: until the deadline at most."""
    flags = os.O_WRONLY | system.OPEN_FLAGS
    if deadline.remaining() is None:
        return os.open(path, flags)
    while True:
        try:
            descriptor = os.open(path, flags | system.O_NONBLOCK_FLAGS)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise
        else:
            os.set_blocking(descriptor, True)
            return descriptor
        if deadline.passed():
            raise TimedOut(f"nobody opened {path} to read in time")
        sleep(_PAUSE)


def _write_error(name: str, error: OSError) -> SipcError:
    hint = "make room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "choose another place"
    return SipcError(f"cannot write to {name}: {error.strerror}", hint)


def _wait(descriptor: int, deadline: Deadline, *, writing: bool = False) -> bool:
    """Wait until a descriptor can be read or written; False once the deadline has come."""
    poll = system.watch(descriptor, writing=writing)
    while not deadline.passed():
        left = deadline.remaining()
        # Not a moment too soon: a part of a millisecond is a whole one.
        if poll.poll(None if left is None else -int(-min(left, _LONGEST_WAIT) * 1000 // 1)):
            return True
    return False
