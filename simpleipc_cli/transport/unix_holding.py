"""The process that holds silent connections for a server: all that it does.

Its standard input is a socket to the server. It waits until a connection can be read, which
is when its client has spoken or gone, and hands it back. It reads nothing from it. It ends
when the server has closed its end, however that came.
"""

from __future__ import annotations

import _socket
import os
import resource
import select
import struct
from time import monotonic, sleep

from simpleipc_cli.transport.unix_holder import HELLO, LATER, MOST_AT_ONCE, WORD

_CONTROL = 0
_NR_OPEN = 1 << 20  # the default of fs.nr_open in Linux: no process can have more
_PAUSE = 0.01  # seconds until handing back is tried again where the system has no room, at will
_TIMEOUT = 2.0  # seconds in which the system has to have room when we are to end, at will
_MOST_LEAVING = 1024  # while so many wait to be handed back no more are taken, at will


class _Dismissed(Exception):
    """The server says nothing any more."""


class _Gone(Exception):
    """The server takes nothing any more."""


class Holding:
    """What is held, in the order in which it came: that of how long it has been silent."""

    def __init__(self, control: _socket.socket) -> None:
        """Holds nothing yet."""
        self._control = control
        self._control.setblocking(False)
        self._poller = select.epoll()
        self._poller.register(_CONTROL, select.EPOLLIN)
        self._held: dict[int, None] = {}
        self._leaving: dict[int, None] = {}
        self._got = 0  # not yet told
        self._closed = 0  # not yet told

    def run(self) -> None:
        """Hold until dismissed."""
        try:
            self._control.sendall(HELLO)
            timeout = None
            while True:
                self._wait(timeout)
                timeout = self._tell()
        except _Dismissed:
            self._hand_back_the_last()
        except _Gone:
            pass

    def _wait(self, timeout: float | None) -> None:
        for descriptor, _ in self._poller.poll(timeout):
            if descriptor == _CONTROL:
                self._hear()
            elif descriptor in self._held:  # _hear() may have looked already
                self._let_go(descriptor)

    def _let_go(self, descriptor: int) -> None:
        """A connection is no longer silent."""
        self._poller.unregister(descriptor)
        del self._held[descriptor]
        self._leaving[descriptor] = None

    def _hear(self) -> None:
        """Take one message, if there is one: we may have been called for room alone."""
        if len(self._leaving) >= _MOST_LEAVING:
            return
        try:
            told, extra, _, _ = self._control.recvmsg(
                WORD.size,
                _socket.CMSG_SPACE(4 * MOST_AT_ONCE),
                _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return
        except OSError:  # the server was killed
            raise _Gone from None
        if not told:
            raise _Dismissed
        coming, to_close, _ = WORD.unpack(told)
        came = [number for _, _, rights in extra for number in _numbers(rights)]
        self._close_longest(to_close)
        for descriptor in came:
            self._held[descriptor] = None
            self._poller.register(descriptor, select.EPOLLIN)
        self._got += coming
        self._closed += coming - len(came)  # the system has closed whom there was no room for

    def _look(self) -> None:
        """Find those who have spoken by now."""
        for descriptor, _ in self._poller.poll(0, len(self._held) + 1):
            if descriptor != _CONTROL:
                self._let_go(descriptor)

    def _close_longest(self, number: int) -> None:
        if number:
            self._look()
        for descriptor in list(self._held)[:number]:
            self._poller.unregister(descriptor)
            del self._held[descriptor]
            os.close(descriptor)
            self._closed += 1

    def _tell(self) -> float | None:
        """Say what there is to say; seconds after which to try again, if not when there is room."""
        while self._leaving or self._got or self._closed:
            try:
                self._say()
            except BlockingIOError:
                self._poller.modify(_CONTROL, self._wanted() | select.EPOLLOUT)
                return None
            except OSError as error:
                if error.errno not in LATER:
                    raise _Gone from None
                self._poller.modify(_CONTROL, self._wanted())
                return _PAUSE
        self._poller.modify(_CONTROL, select.EPOLLIN)
        return None

    def _wanted(self) -> int:
        return 0 if len(self._leaving) >= _MOST_LEAVING else select.EPOLLIN

    def _say(self) -> None:
        """One message, and with it one connection, if one is to be handed back."""
        leaving = next(iter(self._leaving), None)
        extra = []
        if leaving is not None:
            extra = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("=i", leaving))]
        word = WORD.pack(self._got, self._closed, len(extra))
        self._control.sendmsg([word], extra, _socket.MSG_NOSIGNAL)
        self._got = self._closed = 0
        if leaving is not None:
            del self._leaving[leaving]
            os.close(leaving)

    def _hand_back_the_last(self) -> None:
        """Those who have spoken before the end; the others are closed with this process."""
        self._look()
        self._control.setblocking(True)  # the server ends us when it has no more patience
        end = monotonic() + _TIMEOUT
        while self._leaving:
            try:
                self._say()
            except OSError as error:
                if error.errno not in LATER or monotonic() > end:
                    return  # the server is gone
                sleep(_PAUSE)


def _numbers(rights: bytes) -> tuple[int, ...]:
    """Descriptors as they come; a half number at the end would be none."""
    count = len(rights) // 4
    return struct.unpack(f"={count}i", rights[: 4 * count])


def main() -> None:
    """Hold what the server hands over, until it is gone."""
    try:
        os.closerange(3, _NR_OPEN)  # nothing that the server was given, either
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = _NR_OPEN if most == resource.RLIM_INFINITY else min(most, _NR_OPEN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        Holding(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, _CONTROL)).run()
    finally:
        os._exit(0)  # nothing to tidy up, and nothing to say: our standard error leads nowhere
