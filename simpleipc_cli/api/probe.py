"""The probe in the public API. A module of its own: `dataclasses` and `enum` load slowly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from simpleipc_cli import client
from simpleipc_cli.api.client import endpoint_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.api.client import StrPath
    from simpleipc_cli.errors import EndpointError

__all__ = ["ProbeResult", "State", "probe"]


class State(StrEnum):
    """The state of an endpoint, named as `sipc probe` prints it."""

    LISTENING = "listening"
    BUSY = "busy"
    """A server listens, but its queue stayed full."""
    NOT_LISTENING = "not listening"
    """The socket exists, but no process accepts on it."""
    PATH_NOT_FOUND = "path not found"
    INVALID_PATH = "invalid path"
    """The path is no stream endpoint, or no endpoint can have this name."""
    PERMISSION_DENIED = "permission denied"
    OTHER_ERROR = "other error"
    """Nothing is known about the endpoint: the probe itself failed."""


@dataclass(frozen=True)
class ProbeResult:
    """The result of probe()."""

    state: State
    pid: int | None
    """The process that called listen(); None if unknown."""
    uid: int | None
    """That process's user; None if unknown, and on Windows."""
    error: EndpointError | None
    """Why the connection failed; None if a server listens."""
    seconds: float
    """Seconds until the connection or the error."""


def probe(path: StrPath | None, *, timeout: float | None = 3.0) -> ProbeResult:
    """Check whether a server listens: connect, and close without sending a byte.

    path: the endpoint; None for the default one.
    timeout: seconds to wait for a free place in the queue of a busy server; None for no limit.

    Raises no error about the endpoint: the result contains it.
    """
    outcome = client.probe(endpoint_at(path).connect, timeout=timeout)
    peer = outcome.peer
    return ProbeResult(
        State(outcome.state),
        (peer.pid or None) if peer is not None else None,
        peer.uid if peer is not None and peer.uid >= 0 else None,
        outcome.error,
        outcome.seconds,
    )
