"""Sockets that behave as those of XNU, the kernel of macOS, where that differs from Linux.

Sources: XNU's uipc_usrreq.c, uipc_socket.c and uipc_syscalls.c.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket
import stat
import struct
import sys

from helpers.paths import TESTS
from simpleipc_cli.transport.unix import listener, lock, peer, portable_stream, stream
from simpleipc_cli.transport.unix.portable_stream import PortableStream
from simpleipc_cli.transport.unix.stream import UnixStream

MAX_ADDRESS = 103
_SO_PEERCRED = socket.SO_PEERCRED  # `_socket` has none in a run with a mask of tests/posix


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class XnuSocket(_socket.socket):
    """Use it in place of `_socket.socket`."""

    __slots__ = ()  # as its subclass socket.socket has __weakref__ among its own
    dropped = 0
    """Connections that were closed as no descriptor was free for them."""
    _spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # to drop a connection with

    def send(self, data, flags=0):
        return super().send(data, flags & ~_socket.MSG_DONTWAIT)

    def sendmsg(self, buffers, ancillary=(), flags=0):
        return super().sendmsg(buffers, ancillary, flags & ~_socket.MSG_DONTWAIT)

    def _accept(self):
        try:
            descriptor, address = super()._accept()
        except OSError as error:
            if error.errno == errno.EMFILE:
                self._drop()
            raise
        os.set_blocking(descriptor, os.get_blocking(self.fileno()))
        return descriptor, address

    def _drop(self) -> None:
        os.close(XnuSocket._spare)
        try:
            os.close(super()._accept()[0])
            XnuSocket.dropped += 1
        finally:
            XnuSocket._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def connect(self, address):
        """A full queue refuses a client at once."""
        self._check_length(address)
        timeout = self.gettimeout()
        self.setblocking(False)
        try:
            super().connect(address)
        except BlockingIOError:
            raise failure(errno.ECONNREFUSED) from None
        except ConnectionRefusedError:
            if not stat.S_ISSOCK(os.stat(address).st_mode):
                raise failure(errno.ENOTSOCK) from None
            raise
        finally:
            self.settimeout(timeout)

    def bind(self, address):
        self._check_length(address)
        super().bind(address)

    @staticmethod
    def _check_length(address: str | bytes) -> None:
        if len(os.fsencode(address)) > MAX_ADDRESS:
            raise OSError("AF_UNIX path too long")

    def shutdown(self, how):
        if self.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            raise failure(errno.ENOTCONN)
        super().shutdown(how)

    def getsockopt(self, level, option, *size):
        if level == _socket.SOL_SOCKET:
            return super().getsockopt(level, option, *size)
        found = super().getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("=iII", found)
        match option:
            case 1:
                groups = struct.pack("=h2x16I", 1, gid, *[0] * 15)
                return (struct.pack("=II", 0, uid) + groups)[: size[0]]
            case 2:
                if self._is_peer_gone():
                    raise failure(errno.ENOTCONN)
                return pid
        raise failure(errno.EOPNOTSUPP)

    def _is_peer_gone(self) -> bool:
        try:
            return not self.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except OSError as error:
            return error.errno != errno.EAGAIN


def portable(native: UnixStream, kind: type[_socket.socket] = _socket.socket) -> PortableStream:
    """Return the stream of systems other than Linux, for the connection of this one."""
    return PortableStream(kind(fileno=native._socket.detach()))


_fchmod = os.fchmod


def fchmod(descriptor: int, mode: int) -> None:
    """Fail for sockets. Use it in place of os.fchmod."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise failure(errno.EINVAL)
    _fchmod(descriptor, mode)


def install(monkeypatch, *users) -> None:
    """Use such sockets in this process. `users` are the modules that connect."""
    monkeypatch.setattr(_socket, "socket", XnuSocket)
    monkeypatch.setattr(os, "fchmod", fchmod)
    for module in (listener, lock):
        monkeypatch.setattr(module, "IS_LINUX", False)
    for module in (lock, stream):
        monkeypatch.setattr(module, "MAX_ADDRESS", MAX_ADDRESS)
    for module, name in ((stream, "O_PATH"), (stream, "_NO_SIGNAL")):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(listener, "AcceptedStream", PortableStream)
    monkeypatch.setattr(peer, "_PLATFORM", "darwin")
    for module in users:
        for name in ("connect", "connect_nowait"):
            monkeypatch.setattr(module, name, getattr(portable_stream, name))


_CODE = f"""
import sys
sys.path.append({str(TESTS)!r})
import _socket, os

del os.O_PATH, _socket.SOCK_NONBLOCK, _socket.MSG_NOSIGNAL
sys.platform = "darwin"  # only while the modules are loaded that use sockets
from helpers import xnu
sys.platform = "linux"
_socket.socket, os.fchmod = xnu.XnuSocket, xnu.fchmod
from simpleipc_cli.cli import main
sys.argv[0] = "sipc"
main()
"""

SIPC_ON_XNU = (sys.executable, "-c", _CODE)
"""The start of a command line that runs sipc with such sockets."""
