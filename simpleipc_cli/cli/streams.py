"""Where a request comes from and where a response goes: standard streams and files.

Raw descriptors, no buffering: what is there is passed on. A standard stream may be shared
with other programs, so its flags are left as they are found.
"""

from __future__ import annotations

import os
import select
import signal
import stat
from abc import ABC, abstractmethod
from math import ceil

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError, TimedOut

STDIN, STDOUT = 0, 1
CHUNK = 256 * 1024
"""Bytes read at once."""

_SURE_TO_FIT = 4096  # bytes that a pipe takes without waiting once it is writable (PIPE_BUF)


class Input:
    """A request's bytes, from a descriptor."""

    def __init__(self, descriptor: int, name: str, deadline: Deadline) -> None:
        """`name` is for messages; the deadline is for the first byte."""
        self._descriptor = descriptor
        self._name = name
        self._deadline = deadline

    def first(self) -> bytes:
        """The first bytes; empty at the end. Raises TimedOut, SipcError."""
        if self._deadline.remaining() is not None:
            ready = _wait(self._descriptor, select.POLLIN, self._deadline)
            if not ready:
                raise TimedOut(f"nothing came from {self._name} in time")
        return self.more()

    def more(self) -> bytes:
        """The next bytes, waiting for them; empty at the end. Raises SipcError."""
        while True:
            try:
                return os.read(self._descriptor, CHUNK)
            except BlockingIOError:  # whoever shares it made it so
                _wait(self._descriptor, select.POLLIN, Deadline(None))
            except OSError as error:
                raise SipcError(
                    f"cannot read {self._name}: {error.strerror}", "check where it comes from"
                ) from error


class Output(ABC):
    """A response's way to whoever wants it."""

    @abstractmethod
    def write(self, payload: memoryview) -> None:
        """Pass some of it on. Raises SipcError, TimedOut."""

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

    def write(self, payload: memoryview) -> None:
        """See Output. A closed pipe ends the process, as it does cat."""
        while payload:
            if self._limited:
                self._wait(self._deadline)
            piece = payload[:_SURE_TO_FIT] if self._limited else payload
            try:
                payload = payload[os.write(self._descriptor, piece) :]
            except BlockingIOError:  # whoever shares it made it so
                self._wait(self._deadline)
            except BrokenPipeError:
                _die_of_sigpipe()
            except OSError as error:
                raise _write_error(self._name, error) from error

    def _wait(self, deadline: Deadline) -> None:
        if not _wait(self._descriptor, select.POLLOUT, deadline):
            raise TimedOut(f"{self._name} did not take the answer in time")

    def complete(self) -> None:
        """See Output."""

    def abandon(self) -> None:
        """See Output."""


class FileOutput(Output):
    """A file that appears under its name only when it is complete."""

    def __init__(self, path: str) -> None:
        """Makes a temporary file beside `path`. Raises SipcError."""
        self._name = path
        self._path = os.path.realpath(path)  # a link stays, what it leads to is replaced
        folder, name = os.path.split(self._path)
        # Room for what is added, in names that may be 255 bytes long.
        self._temporary = os.path.join(folder, f".{name[:40]}.sipc-{os.urandom(6).hex()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._temporary, flags, 0o666)
        except OSError as error:
            raise _write_error(path, error) from error
        self._keep_mode()

    def _keep_mode(self) -> None:
        """As a shell's redirection would: the mode of a file that is already there."""
        try:
            os.fchmod(self._descriptor, stat.S_IMODE(os.stat(self._path).st_mode))
        except OSError:
            pass  # there is none: what the umask left is right

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
            os.rename(self._temporary, self._path)
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
        mode = os.stat(path).st_mode
    except OSError:
        return FileOutput(path)
    if stat.S_ISREG(mode):
        return FileOutput(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _write_error(path, error) from error
    return DescriptorOutput(descriptor, path, deadline)


def _write_error(name: str, error: OSError) -> SipcError:
    return SipcError(
        f"cannot write the answer to {name}: {error.strerror}", "make room, or choose another"
    )


def _wait(descriptor: int, event: int, deadline: Deadline) -> bool:
    """Wait until a descriptor can be read or written; False if the deadline came first."""
    poll = select.poll()
    poll.register(descriptor, event)
    left = deadline.remaining()
    return bool(poll.poll(None if left is None else ceil(left * 1000)))


def _die_of_sigpipe() -> None:
    """End as every other program in a pipeline does whose reader has gone."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.raise_signal(signal.SIGPIPE)
