"""Sockets that a service manager passes to the server, and messages to the service manager.

See sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3). Handlers do not get the manager's
environment variables. A message is one datagram of NAME=value lines. The socket stays open, as
watchdog messages must be sent even without free descriptors. A failure is logged once and does not
stop the server.
"""

from __future__ import annotations

import _socket
import os
import struct
from collections.abc import Callable, Mapping
from time import monotonic

from simpleipc_cli.errors import SipcError

_FIRST_FD = 3  # the first passed descriptor (SD_LISTEN_FDS_START)
_MAX_FDS = 1 << 20  # the maximum in Linux (the default of fs.nr_open)
_SOCKET_NAME = "sipc"
_OWN_VARIABLES = {
    *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"),
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
}
_MIN_INTERVAL = 0.01  # seconds between watchdog messages (tunable)
_SEND_TIMEOUT = 2  # seconds to wait until the manager accepts a message (tunable)


def without_own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the service manager's variables."""
    return {name: value for name, value in environment.items() if name not in _OWN_VARIABLES}


def passed_descriptor(environment: Mapping[str, str]) -> int | None:
    """Return the socket to serve, if one was passed; make all passed sockets non-inheritable.

    Raises SipcError if several were passed, unless exactly one is named "sipc".
    """
    if environment.get("LISTEN_PID") != str(os.getpid()) or "LISTEN_FDS" not in environment:
        return None
    count, names = environment["LISTEN_FDS"], environment.get("LISTEN_FDNAMES", "")
    # Check the length first, as int() raises another error for thousands of digits.
    if not count.isdecimal() or len(count) > 7 or not 0 < int(count) <= _MAX_FDS:
        raise SipcError(
            f"LISTEN_FDS is {count!r}, not a number of sockets", "unset it, or use a socket unit"
        )
    descriptors = range(_FIRST_FD, _FIRST_FD + int(count))
    for descriptor in descriptors:
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            pass  # not open; the caller checks the one that it serves
    if len(descriptors) == 1:
        return _FIRST_FD
    pairs = zip(descriptors, names.split(":"), strict=False)
    named = [descriptor for descriptor, name in pairs if name == _SOCKET_NAME]
    if len(named) != 1:
        raise SipcError(
            f"{count} sockets were passed, {len(named)} of them named {_SOCKET_NAME}",
            f"set FileDescriptorName={_SOCKET_NAME} in one socket unit, or pass a single socket",
        )
    return named[0]


class Notifier:
    """Notifies a service manager, if the environment names one. Only one thread may use it."""

    def __init__(
        self, environment: Mapping[str, str], warn: Callable[[str], None] = lambda _: None
    ) -> None:
        """`warn` is called once if a message fails."""
        address = environment.get("NOTIFY_SOCKET", "")  # a path, or "@" and an abstract name
        name = os.fsencode(address)
        self._address = b"\0" + name[1:] if name[:1] == b"@" else name
        self._interval = _watchdog_interval(environment) if address else None
        self._next = monotonic()
        self._warn = warn
        self._has_warned = False
        self._socket: _socket.socket | None = None
        if address[:1] in {"/", "@"}:
            try:
                self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            except OSError as error:
                self._warn_once(error)
                return
            # SO_SNDTIMEO_NEW (67) takes 64-bit numbers on a 32-bit system, too.
            numbers = "@qq" if _socket.SO_SNDTIMEO == 67 else "@ll"
            limit = struct.pack(numbers, _SEND_TIMEOUT, 0)
            self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
        elif address:
            self._warn_once(f"{address}: neither a path nor an abstract name")

    def ready(self, status: str) -> None:
        """Report that the server listens; `status` is one printable line for users."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Report that the server is stopping."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def remaining(self) -> float | None:
        """Return the seconds until tick() is due; None without a watchdog."""
        return None if self._interval is None else max(0.0, self._next - monotonic())

    def tick(self) -> None:
        """Send a watchdog message if one is due."""
        if self._interval is not None and (now := monotonic()) >= self._next:
            self._next = now + self._interval
            self._send("WATCHDOG=1", _socket.MSG_DONTWAIT)  # one message may be lost

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._interval = None

    def _send(self, text: str, flags: int = 0) -> None:
        if self._socket is None:
            return
        data = text.encode("utf-8", "backslashreplace")
        try:
            self._socket.sendto(data, flags, self._address)
        except OSError as error:
            self._warn_once(error)

    def _warn_once(self, error: OSError | str) -> None:
        if not self._has_warned:
            self._has_warned = True
            reason = getattr(error, "strerror", None) or error
            self._warn(f"cannot notify the service manager: {reason}: check NOTIFY_SOCKET")


def _watchdog_interval(environment: Mapping[str, str]) -> float | None:
    """Return the seconds between messages: half of the watchdog's timeout."""
    micros = environment.get("WATCHDOG_USEC", "")
    is_ours = environment.get("WATCHDOG_PID") in {None, str(os.getpid())}
    if not is_ours or not micros.isdecimal() or len(micros) > 20:  # 64 bits at most
        return None
    return max(int(micros) / 2_000_000, _MIN_INTERVAL) if int(micros) else None
