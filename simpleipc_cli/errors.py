"""All the errors this package raises on purpose.

    SipcError                    FAILURE: anything without a class of its own
    |-- EndpointError            something about the path, before any byte was sent
    |   |-- NotListening         the socket is there, nobody accepts
    |   |   `-- Busy             somebody listens, but had no room until the deadline
    |   |-- PathNotFound         no such endpoint
    |   |-- InvalidPath          no stream endpoint is there, or can be there
    |   |-- NotPermitted         the system does not let us
    |   |-- GivenUp              we were told to stop before we had begun
    |   |-- SpawnFailed          a server was to be started for it, and could not be
    |   `-- InUse                another server is listening there
    |-- TimedOut                 connected, but not finished in time
    |-- NotAsExpected            all went well, but the outcome is not what was asked for
    |-- ProtocolError            what came is not Simple-IPC
    |   `-- CutOff               the message ended before its flush
    `-- PeerGone                 the other end no longer reads; what it wrote can still be read

Every error says what happened, and what the user can do about it (`remedy`).
"""

from __future__ import annotations


class SipcError(Exception):
    """What happened, and in `remedy` what to do about it (may be empty)."""

    hint = ""

    def __init__(self, what: str, hint: str = "") -> None:
        """`what` and `remedy` are one line each, without a final full stop."""
        super().__init__(what)
        if hint:
            self.hint = hint

    @property
    def text(self) -> str:
        """`what happened: what to do about it`."""
        return f"{self}: {self.hint}" if self.hint else str(self)


class EndpointError(SipcError):
    """The endpoint cannot be reached or made; no byte was sent."""

    hint = "see what is wrong with the path"


class NotListening(EndpointError):
    """A socket is there, but nobody accepts on it."""

    hint = "start a server there, or wait for one with --wait"


class ServerBusy(NotListening):
    """A server is there, but its queue stayed full until the deadline."""

    hint = "try again later, or wait longer with --wait"


class PathNotFound(EndpointError):
    """Nothing has that name."""

    hint = "check the path, start a server there, or wait for one with --wait"


class NotASocket(EndpointError):
    """What has that name is no stream endpoint, or no endpoint can have that name."""

    hint = "choose another path"


class PermissionDenied(EndpointError):
    """The system refuses access."""

    hint = "check owner and mode of the path and of the folders above it"


class Cancelled(EndpointError):
    """We were told to stop before we had begun."""


class SpawnFailed(EndpointError):
    """A server was to be started, and could not be, or ended before it listened."""

    hint = "start it by hand and see what is wrong with it"


class AddressInUse(EndpointError):
    """Another server is listening on the path."""

    hint = "stop that server first, or choose another path"


class TimedOut(SipcError):
    """Connected, but the exchange was not complete in time."""

    hint = "allow more time, or look at why the server takes so long"


class ExpectationFailed(SipcError):
    """All went well, but an answer, or a measurement, is not what was asked for."""

    hint = "look at what the server answers, or change what is expected"


class ProtocolError(SipcError):
    """The bytes that came are not what Simple-IPC allows there."""

    hint = "check that a Simple-IPC program is at the other end"


class IncompleteMessage(ProtocolError):
    """The stream ended before the message's flush packet."""

    hint = "the other end failed or was stopped: look at its log"


class PeerClosed(SipcError):
    """The other end has hung up and reads no more."""

    hint = "look at the other end's log"
