"""The exceptions that this package raises on purpose.

    SipcError                    any other failure
    |-- EndpointError            about the endpoint, before any byte was sent
    |   |-- NotListening         a socket exists, no process accepts on it
    |   |-- ServerBusy           a server listens, its queue stayed full until the deadline
    |   |-- OutOfResources       no free descriptor or memory to connect with
    |   |-- PathNotFound         no such endpoint
    |   |-- NotASocket           not a stream endpoint, or no endpoint can have this name
    |   |-- PermissionDenied     the system refuses access
    |   |-- Cancelled            stopped before the work began
    |   |-- SpawnFailed          a server could not be started
    |   `-- AddressInUse         another server listens there
    |-- Shortage                 no process or descriptor is free for a handler at the moment
    |-- TimedOut                 connected, but not complete in time
    |-- ExpectationFailed        a response or measurement is not as expected
    |-- ProtocolError            the bytes received are not Simple-IPC
    |   `-- IncompleteMessage    the message ended before its flush
    `-- PeerClosed               the peer reads no more; its data can still be read

The text of an error names the failure and the object; `hint` is advice to the user.
"""

from __future__ import annotations

import errno

_MEMORY = "free memory, or try again later"
_REMEDIES = {
    errno.EMFILE: "raise the descriptor limit (ulimit -n)",
    errno.ENFILE: "close programs: the whole system has no free descriptor",
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _MEMORY,
    errno.EAGAIN: "raise the limit of processes, or try again later",  # of fork(2) and clone(2)
    errno.ECHILD: "do not ignore SIGCHLD, nor reap children of others",  # of waitpid(2)
}
_FILE_REMEDIES = {
    errno.ENOSPC: "free space there, or choose another path",
    errno.EDQUOT: "free space there, or choose another path",
    errno.EROFS: "choose another path",
    errno.EIO: "check the device, or choose another path",
}


def errno_hint(error: OSError, default: str) -> str:
    """Return advice for errors about missing resources; `default` for any other error."""
    return _REMEDIES.get(error.errno or 0, default)


def file_hint(error: OSError, default: str) -> str:
    """Return advice for an error about a file or its path; `default` if there is no special one."""
    return _FILE_REMEDIES.get(error.errno or 0, errno_hint(error, default))


class SipcError(Exception):
    """An error message, and in `hint` advice to the user (may be empty).

    Both are one line without a final full stop.
    """

    hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint

    @property
    def text(self) -> str:
        """`message: hint`."""
        return f"{self}: {self.hint}" if self.hint else str(self)


class EndpointError(SipcError):
    """The endpoint cannot be reached or created; no byte was sent."""


class NotListening(EndpointError):
    """The socket exists, but no process accepts on it."""

    hint = "start a server there, or wait for one"


class ServerBusy(EndpointError):
    """A server listens, but its queue stayed full until the deadline."""

    hint = "try again later, or wait longer"


class OutOfResources(EndpointError):
    """This process, or the system, has no free descriptor or memory to connect with."""

    hint = "raise the descriptor limit, or try again later"


class PathNotFound(EndpointError):
    """No file has that name."""

    hint = "check the path, start a server there, or wait for one"


class NotASocket(EndpointError):
    """The file is not a stream endpoint, or no endpoint can have that name."""

    hint = "choose another path"


class PermissionDenied(EndpointError):
    """The system refuses access."""

    hint = "check the owner and mode of the path and of its parent directories"


class Cancelled(EndpointError):
    """The work was cancelled before it began."""


class SpawnFailed(EndpointError):
    """A server could not be started, or exited before it listened."""

    hint = "run the command by hand to see why it fails"


class AddressInUse(EndpointError):
    """Another server listens on the path."""

    hint = "stop that server first, or choose another path"


class Shortage(SipcError):
    """No process or descriptor is free for a handler, until another one ends."""


class TimedOut(SipcError):
    """Connected, but the exchange was not complete in time."""

    hint = "allow more time, or find out why the server is slow"


class ExpectationFailed(SipcError):
    """A response, or a measurement, is not as expected."""

    hint = "check the server's response, or change the expectation"


class ProtocolError(SipcError):
    """The bytes received are not valid Simple-IPC."""

    hint = "check that the peer speaks Simple-IPC"


class IncompleteMessage(ProtocolError):
    """The stream ended before the message's flush packet."""

    hint = "the peer failed or was stopped: check its log"


class PeerClosed(SipcError):
    """The peer has closed the connection and reads no more; its data can still be read."""

    hint = "check the peer's log"
