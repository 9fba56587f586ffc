"""A listening socket that somebody else has made, and keeps: the service manager.

The open socket is shared with its maker. It is never shut down and its path never removed:
who connects while no server runs waits in its queue for the next one (sd_listen_fds(3)).
"""

from __future__ import annotations

import _socket
import errno
import os

from simpleipc_cli.errors import NotASocket, SipcError
from simpleipc_cli.transport.unix.listener import UnixListener

_REMEDY = "let the socket unit have ListenStream= with a path"


class UnixActivatedListener(UnixListener):
    """A listening Unix domain socket whose path is somebody else's to make and to remove."""

    is_externally_owned = True

    def __init__(self, listening: _socket.socket) -> None:
        """Takes over the socket's descriptor."""
        super().__init__(listening, _name_of(listening), (0, 0))

    @property
    def path(self) -> str:
        """Where it listens: an absolute path, or an abstract name behind "@"."""
        return self._path

    @property
    def is_abstract(self) -> bool:
        """Whether it has a name without a file (unix(7))."""
        return isinstance(self._socket.getsockname(), bytes)

    def is_at(self, path: str) -> bool:
        """Whether `path` means this socket, however it is written."""
        if self.is_abstract:
            return path == self._path
        try:
            return os.path.samefile(path, self._path)
        except (OSError, ValueError):
            return os.path.abspath(path) == self._path

    def owns_path(self) -> bool:
        """See Listener. Whoever made the path decides about it."""
        return True

    def stop_listening(self) -> None:
        """See Listener. The queue goes on."""


def listener_from_fd(descriptor: int) -> UnixActivatedListener:
    """The listening socket behind a descriptor that we were started with.

    No process that we start gets it. Raises SipcError if it is not open, InvalidPath if it is
    anything but a listening Unix stream socket.
    """
    try:
        os.set_inheritable(descriptor, False)
    except OSError:
        raise SipcError(
            f"LISTEN_FDS announces descriptor {descriptor}, but it is not open",
            "start the server by a socket unit, or unset LISTEN_FDS",
        ) from None
    try:
        given = _socket.socket(-1, -1, -1, descriptor)  # -1: ask the socket itself
    except OSError as error:
        if error.errno != errno.ENOTSOCK:
            raise SipcError(f"descriptor {descriptor}: {error.strerror}", _REMEDY) from error
        raise NotASocket(f"descriptor {descriptor} is no socket", _REMEDY) from None
    try:
        _check(given, descriptor)
        given.setblocking(False)
        return UnixActivatedListener(given)
    except BaseException:
        given.close()
        raise


def _check(given: _socket.socket, descriptor: int) -> None:
    """Raises InvalidPath unless it is what a server listens on."""
    what = f"the socket at descriptor {descriptor} is "
    if given.family != _socket.AF_UNIX:
        raise NotASocket(f"{what}no Unix domain socket", _REMEDY)
    if given.type != _socket.SOCK_STREAM:
        raise NotASocket(f"{what}of another type, not a stream", _REMEDY)
    if not given.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
        raise NotASocket(
            f"the socket at descriptor {descriptor} does not listen",
            "let the socket unit have Accept=no",
        )


def _name_of(listening: _socket.socket) -> str:
    """The address as people write it; NULs in an abstract one as "@", as in /proc/net/unix."""
    name: str | bytes = listening.getsockname()
    if isinstance(name, bytes):
        return os.fsdecode(name.replace(b"\0", b"@"))
    return os.path.abspath(name)
