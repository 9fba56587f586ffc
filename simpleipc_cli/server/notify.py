"""Tells the service manager how the server is, in the words of sd_notify(3).

One datagram a message, lines of NAME=value. The socket is opened once and kept: the
watchdog must be told even when descriptors run short. That nobody listens there is told
once, and is no reason to stop.
"""

from __future__ import annotations

import _socket
import os
import struct
from collections.abc import Callable
from time import monotonic

_SHORTEST = 0.01  # seconds between signs of life, whatever is asked for; at will
_TIMEOUT = 2  # seconds in which a manager should make room for a message, at will


class Notifier:
    """The way to a service manager, or to nobody. For one thread."""

    def __init__(
        self,
        address: str = "",
        *,
        watchdog: float | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`address` is a path, or an abstract name behind "@"; "" is nobody.

        `watchdog` is after how many seconds without a word the manager takes us for dead:
        it hears from us twice as often (sd_watchdog_enabled(3)). `warn` gets to know, once,
        if it cannot be reached.
        """
        name = os.fsencode(address)
        self._address = b"\0" + name[1:] if name[:1] == b"@" else name
        self._interval: float | None = None
        if watchdog is not None and address:
            self._interval = max(watchdog / 2, _SHORTEST)
        self._next = monotonic()
        self._warn = warn
        self._warned = False
        self._socket: _socket.socket | None = None
        if address:
            self._open(address)

    def _open(self, address: str) -> None:
        if address[0] not in "/@":
            self._complain(f"{address}: neither a path nor an abstract name")
            return
        try:
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        except OSError as error:
            self._complain(str(error.strerror))
            return
        limit = struct.pack("@ll", _TIMEOUT, 0)
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)

    def ready(self, status: str) -> None:
        """The server listens; `status` says it to people, in one printable line."""
        self._tell("READY=1", status)

    def stopping(self, status: str) -> None:
        """The server has begun to stop; `status` as in ready()."""
        self._tell("STOPPING=1", status)

    def remaining(self) -> float | None:
        """Seconds until tick() should be called; None if that is never needed."""
        return None if self._interval is None else max(0.0, self._next - monotonic())

    def tick(self) -> None:
        """The server is well. Call it as often as you like."""
        if self._interval is not None and (now := monotonic()) >= self._next:
            self._next = now + self._interval
            self._send("WATCHDOG=1", _socket.MSG_DONTWAIT)  # the next one comes in time, too

    def close(self) -> None:
        """Nothing more will be told."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._interval = None

    def _tell(self, state: str, status: str) -> None:
        status = status.replace("\n", " ")  # another line would be an assignment of its own
        self._send(f"{state}\nSTATUS={status}", 0)

    def _send(self, text: str, flags: int) -> None:
        if self._socket is None:
            return
        data = text.encode("utf-8", "backslashreplace")
        try:
            self._socket.sendto(data, flags | _socket.MSG_NOSIGNAL, self._address)
        except OSError as error:
            self._complain(error.strerror or str(error))

    def _complain(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"the service manager cannot be told how the server is: {why}: check NOTIFY_SOCKET"
            )
