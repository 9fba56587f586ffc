"""The process at the other end of a Unix domain socket, on systems other than Linux.

Each system has its own socket option, whose number Python does not know, and its own structure.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
from collections.abc import Callable

from simpleipc_cli.transport.base import Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

_SOL_LOCAL = 0  # of macOS, FreeBSD and NetBSD (sys/un.h)
_LOCAL_PEERCRED = 1  # of macOS and FreeBSD (sys/un.h)
_LOCAL_PEERPID = 2  # of macOS (sys/un.h)
_LOCAL_PEEREID = 3  # of NetBSD (sys/un.h)
_SO_PEERCRED = 0x1022  # of OpenBSD (sys/socket.h)

_XUCRED = 76  # bytes of macOS's struct xucred, with which FreeBSD's begins (sys/ucred.h)
_MAX_XUCRED = 88  # bytes of FreeBSD's struct xucred
_THREE_NUMBERS = 12  # bytes of the structures of NetBSD and OpenBSD
_UNKNOWN = -1


def decode_xucred(raw: bytes) -> Peer:
    """Decode the struct xucred of macOS or FreeBSD: version, uid, number of groups, 16 groups.

    Only FreeBSD's contains the pid, in the last part, which is as long as a pointer. The pid of
    another one is 0. Raises OSError for another structure.
    """
    if len(raw) < _XUCRED or len(raw) % 4 or (fields := memoryview(raw).cast("I"))[0] != 0:
        raise OSError(errno.EPROTO, "the system describes the peer in an unknown way")
    group_count = memoryview(raw)[8:10].cast("h")[0]
    # On 64-bit systems, padding precedes the last part, whose first half is the pid.
    pids = fields[19:] if len(fields) == 20 else fields[20:21]
    return Peer(pids[0] if pids else 0, fields[1], fields[3] if group_count > 0 else _UNKNOWN)


def decode_unpcbid(raw: bytes) -> Peer:
    """Decode NetBSD's struct unpcbid: pid, uid, gid."""
    fields = memoryview(raw).cast("I")
    return Peer(fields[0], fields[1], fields[2])


def decode_sockpeercred(raw: bytes) -> Peer:
    """Decode OpenBSD's struct sockpeercred: uid, gid, pid."""
    fields = memoryview(raw).cast("I")
    return Peer(fields[2], fields[0], fields[1])


def _of_macos(connected: _socket.socket) -> Peer:
    peer = decode_xucred(connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED))
    try:
        peer.pid = connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        # The peer has closed: its user is known, its process is not.
    return peer


def _of_freebsd(connected: _socket.socket) -> Peer:
    return decode_xucred(connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _MAX_XUCRED))


def _of_netbsd(connected: _socket.socket) -> Peer:
    return decode_unpcbid(connected.getsockopt(_SOL_LOCAL, _LOCAL_PEEREID, _THREE_NUMBERS))


def _of_openbsd(connected: _socket.socket) -> Peer:
    raw = connected.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, _THREE_NUMBERS)
    return decode_sockpeercred(raw)


_READERS: dict[str, Callable[[_socket.socket], Peer]] = {
    "darwin": _of_macos,
    "freebsd": _of_freebsd,
    "netbsd": _of_netbsd,
    "openbsd": _of_openbsd,
}
_PLATFORM = sys.platform.rstrip("0123456789")  # "freebsd14"


def peer_of(connected: _socket.socket) -> Peer:
    """Return the process at the other end. An unknown pid is 0, an unknown user or group -1.

    Raises OSError if the system does not answer.
    """
    reader = _READERS.get(_PLATFORM)
    return _by_getpeereid(connected) if reader is None else reader(connected)


def reports_users() -> bool:
    """Return whether the system reports the user at the other end of a connection."""
    return _PLATFORM == "linux" or _PLATFORM in _READERS or hasattr(_c_library(), "getpeereid")


def _by_getpeereid(connected: _socket.socket) -> Peer:
    """Ask the C library, which may have a function for the user, but none for the pid."""
    library = _c_library()
    if not hasattr(library, "getpeereid"):
        return Peer(0, _UNKNOWN, _UNKNOWN)
    import ctypes  # noqa: PLC0415 - for few systems

    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    if library.getpeereid(connected.fileno(), ctypes.byref(uid), ctypes.byref(gid)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return Peer(0, uid.value, gid.value)


def _c_library() -> CDLL:
    import ctypes  # noqa: PLC0415 - for few systems

    return ctypes.CDLL(None, use_errno=True)
