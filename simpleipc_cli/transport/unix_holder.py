"""Handing silent connections to a process that holds them: the server's side of it.

They travel as SCM_RIGHTS (unix(7)) over a pair of sockets that keeps messages apart. Each
message is three numbers, the same in both directions; see WORD.
"""

from __future__ import annotations

import _socket
import errno
import os
import signal
import struct
import sys
from collections.abc import Mapping, Sequence

from simpleipc_cli.errors import PeerClosed, SipcError
from simpleipc_cli.transport.base import OutOfDescriptors, Stream
from simpleipc_cli.transport.base_listening import Holder, Word
from simpleipc_cli.transport.unix.stream import UnixStream

WORD = struct.Struct("=III")
"""What a message is.

To the holder: how many connections come with it, how many to close before, and 0.
From it: how many it has got, how many it has closed, and 1 if a connection comes with it.
"""

HELLO = WORD.pack(0x51DC, 1, 0)
"""Its first message. The 1 is the version of all this: the package may be replaced under a
server that runs for months."""

MOST_AT_ONCE = 128
"""Connections in one message; the system allows 253 (SCM_MAX_FD)."""

LATER = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
"""Errors that pass: too many connections of all the user's processes are on the way."""

_ONE = struct.Struct("=i")


def start_holder(environment: Mapping[str, str]) -> UnixHolder:
    """Start a process that holds connections. Raises SipcError if there can be none.

    It gets this environment, as the interpreter may need it, the other end of a socket as its
    standard input, and nothing else of ours.
    """
    if not sys.executable:
        raise SipcError("the Python interpreter is not known")
    try:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    except OSError as error:
        raise SipcError(f"no socket: {error.strerror}") from error
    try:
        return UnixHolder(_start(theirs.fileno(), environment), ours)
    except OSError as error:
        ours.close()
        raise SipcError(f"no process: {error.strerror}") from error
    finally:
        theirs.close()


def _start(control: int, environment: Mapping[str, str]) -> int:
    """Start the process with `control` as its standard input; its number.

    A group of its own, and all signals blocked, for good: what is sent to everybody on a
    terminal, or in a service, is for the server to act on, which may still need it then.
    """
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-S", "-s", "-P", "-c", _program(), "sipc: holds silent connections"],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, control, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setpgroup=0,
        setsigmask=signal.valid_signals(),
    )


def _program() -> str:
    """Finds this very package, however we have found it."""
    folder = __file__
    for _ in __name__.split("."):
        folder = os.path.dirname(folder)
    return (
        f"import sys; sys.path.insert(0, {folder!r}); "
        "from simpleipc_cli.transport.unix_holding import main; main()"
    )


class UnixHolder(Holder):
    """A process at the other end of a socket."""

    def __init__(self, pid: int, control: _socket.socket) -> None:
        """Takes charge of a child and of our end."""
        self.pid = pid
        self._control = control
        self._ready = False

    def fileno(self) -> int:
        """See Holder."""
        return self._control.fileno()

    def hear(self, *, room: bool) -> Word:
        """See Holder."""
        if not room and self._brings_one():
            raise OutOfDescriptors
        told, found = self._receive()
        stream = None if found is None else _stream(found)
        if not told:
            raise PeerClosed(f"process {self.pid} has ended")
        if not self._ready:
            if told != HELLO:
                raise PeerClosed(f"process {self.pid} is of another version")
            self._ready = True
            return Word(0, 0, None)
        held, closed, returned = WORD.unpack(told)
        if returned and stream is None:
            closed += 1
        return Word(held, closed, stream)

    def _brings_one(self) -> bool:
        """Whether a connection comes with the next message, which stays where it is."""
        try:
            told = self._control.recv(WORD.size, _socket.MSG_DONTWAIT | _socket.MSG_PEEK)
        except ConnectionResetError:
            return True  # the next message has not been looked at
        return bool(told) and WORD.unpack(told)[2] > 0

    def _receive(self) -> tuple[bytes, int | None]:
        """A message, empty at the end, and the descriptor that came with it."""
        flags = _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
        while True:
            try:
                told, extra, _, _ = self._control.recvmsg(
                    WORD.size, _socket.CMSG_SPACE(_ONE.size), flags
                )
            except ConnectionResetError:
                continue  # said once: it has not read all; what it said before it ended follows
            break
        for _, _, rights in extra:
            return told, int(_ONE.unpack(rights)[0])
        return told, None

    def give(self, streams: Sequence[Stream], *, close: int = 0) -> bool:
        """See Holder."""
        if not self._ready:
            return False
        numbers = [stream.fileno() for stream in streams]
        rights = struct.pack(f"={len(numbers)}i", *numbers)
        try:
            self._control.sendmsg(
                [WORD.pack(len(numbers), close, 0)],
                [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)],
                _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL,
            )
        except BlockingIOError:
            return False
        except ConnectionError:
            return False  # hear() will tell
        except OSError as error:
            if error.errno in LATER:
                return False
            raise SipcError(f"cannot hand over a connection: {error.strerror}") from error
        return True

    def dismiss(self) -> None:
        """See Holder."""
        try:
            self._control.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # it has ended

    def end(self) -> None:
        """See Holder. Not reaped before, so that the number is nobody else's."""
        self._control.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # whoever started us has children reaped by the system


def _stream(descriptor: int) -> UnixStream:
    return UnixStream(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor))
