"""Speak the protocol by hand.

This code knows the protocol on its own: tests must not trust the code they test.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, contextmanager

from helpers.waiting import TIMEOUT

MAX_PAYLOAD = 65516


def packets(payload: bytes) -> bytes:
    """Encode a payload as packets, without a flush."""
    pieces = [payload[at : at + MAX_PAYLOAD] for at in range(0, len(payload), MAX_PAYLOAD)]
    return b"".join(b"%04x%s" % (len(piece) + 4, piece) for piece in pieces)


def message(payload: bytes) -> bytes:
    """Encode a payload as a whole message."""
    return packets(payload) + b"0000"


def connect(path) -> socket.socket:
    """Open a connection."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(TIMEOUT)
    try:
        connected.connect(str(path))
    except BaseException:
        connected.close()
        raise
    return connected


def receive_all(connection: socket.socket) -> bytes:
    """Read until the other end closes; a reset is an end."""
    pieces = []
    while True:
        try:
            piece = connection.recv(1 << 20)
        except ConnectionResetError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)


def decode(wire: bytes) -> tuple[bytes, bool]:
    """Return the payload of a message, and whether a flush ends it."""
    payload, at = [], 0
    while at + 4 <= len(wire):
        length = int(wire[at : at + 4], 16)
        if length == 0:
            assert at + 4 == len(wire), "bytes after the flush"
            return b"".join(payload), True
        payload.append(wire[at + 4 : at + length])
        at += length
    return b"".join(payload), False


def ask(path, payload: bytes) -> tuple[bytes, bool]:
    """Write all, then read all, as git's client does; the payload, and whether a flush ended it."""
    with connect(path) as connection:
        connection.sendall(message(payload))
        return decode(receive_all(connection))


@contextmanager
def open_connections(path, count: int):
    """Open several connections; leaving the `with` closes them."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(path)) for _ in range(count)]


def accepted(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new connection, the client's first."""
    client = socket.socket(listener.family)
    client.settimeout(TIMEOUT)
    client.connect(listener.getsockname())
    return client, listener.accept()[0]


def is_listening(path) -> bool:
    """Return whether a process listens on a socket."""
    try:
        connect(path).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def wait_until_accepted(path) -> None:
    """Wait until a server has accepted all earlier connections: it accepts in order.

    The server counts this connection as one that was closed without data.
    """
    with connect(path) as last:
        last.shutdown(socket.SHUT_WR)
        assert receive_all(last) == b""


def pid_of_listener(path) -> int:
    """Return the id of the process that called listen(2) for a socket."""
    with connect(path) as connection:
        size_of_ucred = 12
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size_of_ucred)
    return struct.unpack("3i", found)[0]


def receive_wire(connection: socket.socket) -> bytes:
    """Read the bytes of one message, or those before the end of the stream."""
    wire = bytearray()
    while not (wire.endswith(b"0000") and decode(bytes(wire))[1]):
        piece = connection.recv(1 << 20)
        if not piece:
            break
        wire += piece
    return bytes(wire)


def read_message(connection: socket.socket) -> bytes:
    """Read the bytes of one whole message."""
    wire = receive_wire(connection)
    assert decode(wire)[1], "the request was cut off"
    return wire
