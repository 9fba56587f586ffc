"""Streams and connecting on systems other than Linux, such as macOS and the BSDs.

On them, in contrast to Linux, MSG_DONTWAIT may not prevent a send from blocking (XNU), an accepted
socket is non-blocking if its listener is, and a full queue refuses a client at once. So all sockets
are non-blocking here, poll(2) waits, and a refused client finds out whether there is a server.
"""

from __future__ import annotations

import _socket
from math import ceil

from simpleipc_cli.deadline import Backoff
from simpleipc_cli.errors import ServerBusy, TimedOut
from simpleipc_cli.system import fd_poll
from simpleipc_cli.transport.unix.peer import peer_of
from simpleipc_cli.transport.unix.stream import (
    SocketAddress,
    UnixStream,
    busy_error,
    endpoint_error,
    is_bound,
    new_socket,
    read_error,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from simpleipc_cli.deadline import Deadline
    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport.base import Peer

_MAX_BLOCKED = 1.0
"""Maximum time, in seconds, of one wait (tunable). A signal that arrives just before a system call
does not interrupt it, and Python handles the signal only after the call."""

_RETRY_DELAYS = (0.001, 0.05)  # seconds between tries at a busy server: first, longest (tunable)


class PortableStream(UnixStream):
    """One connection over a non-blocking socket."""

    __slots__ = ()

    def __init__(self, connected: _socket.socket) -> None:
        connected.setblocking(False)
        super().__init__(connected)

    def peer(self) -> Peer:
        return peer_of(self._socket)

    def read(self, buffer: Buffer, deadline: Deadline) -> int:
        while True:
            left = deadline.remaining()
            if left == 0.0:  # even if data is available: the peer may write without end
                raise TimedOut("no complete response in time")
            try:
                return self.read_nowait(buffer)
            except BlockingIOError:
                self._wait(left, writing=False)

    def write(self, buffers: Sequence[Buffer]) -> int:
        while True:
            try:
                return self.write_nowait(buffers)
            except BlockingIOError:
                self._wait(None, writing=True)

    def _wait(self, left: float | None, *, writing: bool) -> None:
        """Wait until the socket can be read or written, at most `left` seconds."""
        timeout = _MAX_BLOCKED if left is None else min(left, _MAX_BLOCKED)
        try:
            # A new poll object each time: one thread may wait to read, and another one to write.
            fd_poll(self._socket.fileno(), writing=writing).poll(ceil(timeout * 1000))
        except OSError as error:
            raise read_error(error) from error


def connect(path: str, deadline: Deadline) -> PortableStream:
    """Connect to the socket at `path`; retry while its queue is full.

    Raises NotListening, ServerBusy if the queue stays full until the deadline, OutOfResources,
    PathNotFound, NotASocket, PermissionDenied.
    """
    backoff = Backoff(*_RETRY_DELAYS)
    while True:
        try:
            return connect_nowait(path)
        except ServerBusy:
            if deadline.expired():
                raise
        deadline.sleep(backoff.next())


def connect_nowait(path: str) -> PortableStream:
    """Connect without blocking. Raises the errors of connect()."""
    connecting = new_socket(path)
    try:
        connecting.setblocking(False)
        with SocketAddress(path) as address:
            connecting.connect(address)
    except BaseException as error:
        connecting.close()
        if isinstance(error, BlockingIOError) or (
            isinstance(error, ConnectionRefusedError) and is_bound(path)
        ):
            raise busy_error(path) from None
        if isinstance(error, OSError):
            raise endpoint_error(error, path) from None
        raise
    return PortableStream(connecting)
