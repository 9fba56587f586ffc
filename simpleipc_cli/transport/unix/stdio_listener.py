"""The connection on standard input and output, for a server that is started for each connection.

If both are the same socket, the stream is that socket. Otherwise, for two pipes, two threads copy
between them and a socket pair: so the server polls one descriptor, and never changes the pipes'
flags, which other programs share.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import stat
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread

from simpleipc_cli.errors import IncompleteMessage, SipcError, TimedOut
from simpleipc_cli.system import absolute_path
from simpleipc_cli.transport.base import Peer
from simpleipc_cli.transport.base_server import Listener
from simpleipc_cli.transport.unix.listener import AcceptedStream
from simpleipc_cli.transport.unix.poller import UnixWakeupEvent

_CHUNK = 1 << 16
_HANGUPS = {errno.ECONNRESET, errno.EIO}  # the second: of a terminal
_CLOSED = select.POLLERR | select.POLLHUP | select.POLLNVAL


def stdin_socket() -> str:
    """Return which kind of socket standard input is.

    "" is none; "listening"; "accepted": a connection that a listener has accepted; "connected": any
    other connection, such as one of a socket pair; "other": not connected, or no stream.
    """
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        return ""
    given = _socket.socket(-1, -1, -1, os.dup(0))
    try:
        if given.type != _socket.SOCK_STREAM:
            return "other"
        if given.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            return "listening"
        try:
            given.getpeername()
        except OSError as error:
            if error.errno != errno.EINVAL:  # macOS, if the peer has closed
                return "other"
        return "accepted" if given.getsockname() else "connected"
    finally:
        given.close()


class StdioListener(Listener):
    """Accepts one connection: that on standard input and output."""

    can_lose_path = False

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Own standard input and output, and replace both by the null device.

        `environment` describes the client if they are no Unix socket; see UCSPI. Raises OSError.
        """
        self._ready = UnixWakeupEvent()
        self._ready.set()
        self._copier: _Copier | None = None
        given = {
            name: environment.get(f"{environment.get('PROTO', '')}{name}", "")
            for name in ("LOCALPATH", "REMOTEPID", "REMOTEEUID", "REMOTEEGID")
        }
        self.path = given["LOCALPATH"]
        """The endpoint's absolute path, or the name of an abstract socket; "" if it is unknown."""
        if stat.S_ISSOCK(os.fstat(0).st_mode) and os.path.sameopenfile(0, 1):
            connected = _socket.socket(-1, -1, -1, os.dup(0))
            self.path = _local_path(connected) or self.path
        else:
            connected, ours = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
            self._copier = _Copier(ours, os.dup(0), os.dup(1))
        if self._copier is None and connected.family == _socket.AF_UNIX:
            self._stream = AcceptedStream(connected)
        else:
            numbers = (_number(given[f"REMOTE{name}"]) for name in ("PID", "EUID", "EGID"))
            self._stream = _ForwardedStream(connected, Peer(*numbers))
        _replace_standard_streams()

    def fileno(self) -> int:
        return self._ready.fileno()

    def accept(self) -> AcceptedStream:
        if self.is_exhausted:
            raise BlockingIOError
        self.is_exhausted = True
        if self._copier is not None:
            self._copier.start()
        return self._stream

    def stop_listening(self) -> None:
        """Do nothing: the connection has been made."""

    def close(self) -> None:
        self._ready.close()
        if not self.is_exhausted:
            self._stream.close()

    def finish(self, timeout: float | None) -> None:
        """Wait until the response is written; raise TimedOut after `timeout` without progress."""
        if self._copier is not None:
            self._copier.finish(timeout)

    def check(self) -> None:
        """Raise IncompleteMessage if the response was cut off, SipcError if reading failed."""
        if self._copier is not None:
            self._copier.check()


class _ForwardedStream(AcceptedStream):
    """A stream whose socket does not know the client's process."""

    __slots__ = ("_peer",)

    def __init__(self, connected: _socket.socket, peer: Peer) -> None:
        super().__init__(connected)
        self._peer = peer

    def peer(self) -> Peer:
        return self._peer


class _Copier:
    """Copies between one end of a socket pair and two descriptors, in two threads.

    An end of the input is passed on, and a process that reads the output no more.
    """

    def __init__(self, ours: _socket.socket, source: int, target: int) -> None:
        self._ours = ours
        self._source = source
        self._target = target
        self._written = 0
        self._read_error = ""
        self._write_error = ""
        self._input = Thread(target=self._copy_input, daemon=True)
        self._output = Thread(target=self._copy_output, daemon=True)

    def start(self) -> None:
        """Start the threads. Call this when the signals are blocked that they must not receive."""
        self._output.start()
        self._input.start()

    def finish(self, timeout: float | None) -> None:
        """See StdioListener.finish()."""
        while self._output.is_alive():
            written = self._written
            self._output.join(timeout)
            if self._output.is_alive() and self._written == written:
                what = "the client did not read the response"
                raise TimedOut(what, "allow more --write-timeout")

    def check(self) -> None:
        """See StdioListener.check()."""
        if self._write_error:
            what = f"the response was cut off: cannot write standard output: {self._write_error}"
            raise IncompleteMessage(what, "check what reads it")
        if self._read_error:
            what = f"cannot read standard input: {self._read_error}"
            raise SipcError(what, "check how this server was started")

    def _copy_input(self) -> None:
        with suppress(OSError):  # the server has closed
            while data := self._read():
                self._ours.sendall(data)
        with suppress(OSError):
            self._ours.shutdown(_socket.SHUT_WR)

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._source, _CHUNK)
            except BlockingIOError:  # another program has set O_NONBLOCK
                _wait(self._source, select.POLLIN)
            except OSError as error:
                if error.errno not in _HANGUPS:
                    self._read_error = os.strerror(error.errno or 0)
                return b""

    def _copy_output(self) -> None:
        poll = select.poll()
        poll.register(self._ours.fileno(), select.POLLIN)
        poll.register(self._target, 0)
        try:
            while dict(poll.poll()).get(self._target, 0) & _CLOSED == 0:
                data = self._receive()
                if not data:
                    return
                self._write(data)
        except OSError as error:
            self._write_error = os.strerror(error.errno or 0)
        finally:
            os.close(self._target)
            with suppress(OSError):
                self._ours.shutdown(_socket.SHUT_RDWR)
            if self._receive():  # what the server wrote before it could know
                self._write_error = self._write_error or os.strerror(errno.EPIPE)

    def _receive(self) -> bytes:
        try:
            return self._ours.recv(_CHUNK)
        except OSError:
            return b""  # the server has closed, and not read all

    def _write(self, data: bytes) -> None:
        while data:
            try:
                count = os.write(self._target, data)
            except BlockingIOError:
                _wait(self._target, select.POLLOUT)
                continue
            self._written += count
            data = data[count:]


def _wait(descriptor: int, events: int) -> None:
    poll = select.poll()
    poll.register(descriptor, events)
    poll.poll()


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= 10 else -1


def _local_path(connected: _socket.socket) -> str:
    """Return the path or abstract name at which a Unix socket was accepted; "" for any other."""
    if connected.family != _socket.AF_UNIX:
        return ""
    name: str | bytes = connected.getsockname()
    if isinstance(name, bytes):
        return os.fsdecode(name.replace(b"\0", b"@"))
    return absolute_path(name) if name else ""


def _replace_standard_streams() -> None:
    """Close the connection here, so that it ends when its stream is closed.

    Close standard error, too, if it is the connection: the log must not be part of the response.
    """
    is_log = os.isatty(2) or not (os.path.sameopenfile(0, 2) or os.path.sameopenfile(1, 2))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1) if is_log else (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
