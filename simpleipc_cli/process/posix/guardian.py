"""The guardian: a process that kills the handlers of a killed server.

When a server is killed by SIGKILL, the kernel closes its ends of all pipes. A handler that waits
for more of its request would then see the end of its input, and take the truncated request for
complete. So the guardian also has the write end of each such pipe open until the request is
complete. When the server has ended, the guardian kills these handlers before it closes the pipes.

This file is also the guardian's program: it imports no other module of the package.
"""

from __future__ import annotations

import _socket  # `socket` is slow to load
import errno
import os
import select
import signal
import struct
import sys
from itertools import count
from threading import Lock
from time import sleep

_SHELL = "/bin/sh"

# macOS has no SOCK_SEQPACKET for AF_UNIX. A stream is as good: all messages have the same size, and
# a descriptor arrives with the first byte of its message.
_SOCKET_TYPE = _socket.SOCK_STREAM if sys.platform == "darwin" else _socket.SOCK_SEQPACKET

_HOLD, _ASSIGN, _RELEASE = range(3)
_MESSAGE = struct.Struct("=BQQ")  # action, number of the pipe, handler's process group
_DESCRIPTOR = struct.Struct("i")  # as in SCM_RIGHTS of unix(7)
_SERVER = 1  # the guardian's descriptor for its connection to the server

# In the background, so that init adopts it. There, a shell redirects standard input.
_START = '"$@" &'

_POLL_INTERVAL = 0.02  # seconds between scans for a handler that is being started (tunable)

_NO_READER = select.POLLERR | select.POLLHUP | select.POLLNVAL  # of a pipe's write end

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Guardian:
    """The server's connection to its guardian, which starts at the first hold().

    Any thread may use it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._numbers = count(1)
        self._connection: _socket.socket | None = None

    def hold(self, descriptor: int) -> int:
        """Keep a pipe's write end open in the guardian; return a number for it, 0 if impossible."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _start_program()
                number = next(self._numbers)
                passed = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))
                self._connection.sendmsg([_MESSAGE.pack(_HOLD, number, 0)], [passed])
            except OSError:  # no more processes or descriptors, or the guardian was killed
                self._disconnect()  # the next call starts another guardian
                return 0
            return number

    def assign(self, number: int, group: int) -> None:
        """Send the process group that reads the pipe."""
        self._send(_ASSIGN, number, group)

    def release(self, number: int) -> None:
        """Close the guardian's end of a pipe: the request is complete, or the handler has ended."""
        self._send(_RELEASE, number, 0)

    def close(self) -> None:
        """Stop the guardian, and wait until it exits. Call it after all handlers have ended."""
        if self._connection is not None:
            try:
                self._connection.shutdown(_socket.SHUT_WR)
                self._connection.recv(1)  # returns when the guardian exits
            except OSError:
                pass  # the guardian was killed before it had read everything
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, action: int, number: int, group: int) -> None:
        if number and self._connection is not None:
            try:
                self._connection.send(_MESSAGE.pack(action, number, group))
            except OSError:
                pass  # the guardian was killed: the handlers are unguarded


def _start_program() -> _socket.socket:
    """Start the guardian in a new process group, where it gets no signals from a terminal."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _SOCKET_TYPE)
    try:
        pid = os.posix_spawn(
            _SHELL,
            [_SHELL, "-c", _START, _SHELL, sys.executable, "-I", "-S", __file__],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), _SERVER),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
            setsigmask=(),
        )
    finally:
        theirs.close()
    try:
        if os.waitpid(pid, 0)[1]:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    except ChildProcessError:
        pass  # the shell was reaped with the orphans
    return ours


def main() -> None:
    """Keep pipes open until the server has ended, then kill their handlers."""
    for number in _IGNORED:  # a service manager signals every process of a service
        signal.signal(number, signal.SIG_IGN)
    try:
        os.setsid()
    except OSError:
        pass  # a sandbox forbids it: the process group is enough
    server = _socket.socket(fileno=_SERVER)
    held = _serve(server)
    # The server waits until the connection is closed. Without handlers, the exit of this process
    # closes it. With handlers it is closed now, as the server may hang while it starts one of them.
    close = server.close if held else server.detach
    close()
    unassigned = select.poll()  # pipes of handlers that the server was starting
    for pipe, group in held.values():
        if group:
            _kill(group)
        else:
            unassigned.register(pipe, select.POLLOUT)  # macOS reports nothing without an event
    names = {pipe: f"pipe:[{os.fstat(pipe).st_ino}]" for pipe, group in held.values() if not group}
    while names:
        for process in _processes():
            if _input(process) in names.values():
                _kill(int(process))  # its number is also its group's
        for pipe, events in unassigned.poll(0):
            if events & _NO_READER:
                unassigned.unregister(pipe)
                del names[pipe]
        if names:
            sleep(_POLL_INTERVAL)


def _processes() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []  # without /proc these handlers are not found: they wait until they end themselves


def _input(process: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/fd/0")
    except OSError:
        return ""  # it has ended, or runs as another user


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass  # the group has ended


def _serve(server: _socket.socket) -> dict[int, tuple[int, int]]:
    """Return the pipes when the server ends: descriptor and process group by number."""
    held: dict[int, tuple[int, int]] = {}
    while True:
        space = _socket.CMSG_LEN(_DESCRIPTOR.size)
        message, passed, _, _ = server.recvmsg(_MESSAGE.size, space, _socket.MSG_WAITALL)
        if len(message) < _MESSAGE.size:
            return held
        action, number, group = _MESSAGE.unpack(message)
        if action == _HOLD:
            held[number] = (_DESCRIPTOR.unpack(passed[0][2])[0], 0)
        elif number not in held:
            pass  # it was a pipe of an earlier guardian, which was killed
        elif action == _ASSIGN:
            held[number] = (held[number][0], group)
        else:
            os.close(held.pop(number)[0])


if __name__ == "__main__":
    main()
