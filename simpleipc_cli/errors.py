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

    remedy = ""

    def __init__(self, what: str, remedy: str = "") -> None:
        """`what` and `remedy` are one line each, without a final full stop."""
        super().__init__(what)
        if remedy:
            self.remedy = remedy

    @property
    def text(self) -> str:
        """`what happened: what to do about it`."""
        return f"{self}: {self.remedy}" if self.remedy else str(self)


class EndpointError(SipcError):
    """The endpoint cannot be reached or made; no byte was sent."""

    remedy = "see what is wrong with the path"


class NotListening(EndpointError):
    """A socket is there, but nobody accepts on it."""

    remedy = "start a server there, or wait for one with --wait"


class Busy(NotListening):
    """A server is there, but its queue stayed full until the deadline."""

    remedy = "try again later, or wait longer with --wait"


class PathNotFound(EndpointError):
    """Nothing has that name."""

    remedy = "check the path, start a server there, or wait for one with --wait"


class InvalidPath(EndpointError):
    """What has that name is no stream endpoint, or no endpoint can have that name."""

    remedy = "choose another path"


class NotPermitted(EndpointError):
    """The system refuses access."""

    remedy = "check owner and mode of the path and of the folders above it"


class GivenUp(EndpointError):
    """We were told to stop before we had begun."""


class SpawnFailed(EndpointError):
    """A server was to be started, and could not be, or ended before it listened."""

    remedy = "start it by hand and see what is wrong with it"


class InUse(EndpointError):
    """Another server is listening on the path."""

    remedy = "stop that server first, or choose another path"


class TimedOut(SipcError):
    """Connected, but the exchange was not complete in time."""

    remedy = "allow more time, or look at why the server takes so long"


class NotAsExpected(SipcError):
    """All went well, but an answer, or a measurement, is not what was asked for."""

    remedy = "look at what the server answers, or change what is expected"


class ProtocolError(SipcError):
    """The bytes that came are not what Simple-IPC allows there."""

    remedy = "check that a Simple-IPC program is at the other end"


class CutOff(ProtocolError):
    """The stream ended before the message's flush packet."""

    remedy = "the other end failed or was stopped: look at its log"


class PeerGone(SipcError):
    """The other end has hung up and reads no more."""

    remedy = "look at the other end's log"
