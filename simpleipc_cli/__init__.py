"""Simple-IPC, git's protocol between local processes, for Python programs.

    send("demo.sock", b"ping")                      one request; returns the response

    with connect("demo.sock") as connection:        a request and a response of any size
        for piece in pieces:
            connection.write(piece)
        connection.finish()
        for piece in connection:
            ...

    probe("demo.sock").state is State.LISTENING     whether a server listens
    ensure_running("demo.sock", "my-daemon")        start a server, unless one listens

    Server("demo.sock", callback).serve_forever()   answer requests by callback(request)

Times are seconds, None is no limit. The path None is the default endpoint, that of the command
`sipc`. All errors are subclasses of SipcError; `hint` says what to do about one. Other names than
these are internal.
"""

from __future__ import annotations

from simpleipc_cli.lazy import lazy_exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.api.client import Connection, connect, ensure_running, send
    from simpleipc_cli.api.probe import ProbeResult, State, probe
    from simpleipc_cli.api.server import Server
    from simpleipc_cli.errors import (
        AddressInUse,
        Cancelled,
        EndpointError,
        ExpectationFailed,
        IncompleteMessage,
        NotASocket,
        NotListening,
        OutOfResources,
        PathNotFound,
        PeerClosed,
        PermissionDenied,
        ProtocolError,
        ServerBusy,
        Shortage,
        SipcError,
        SpawnFailed,
        TimedOut,
    )
    from simpleipc_cli.handlers.callback_streams import AsyncReply, AsyncRequest, Reply, Request

__all__ = [
    "AddressInUse",
    "AsyncReply",
    "AsyncRequest",
    "Cancelled",
    "Connection",
    "EndpointError",
    "ExpectationFailed",
    "IncompleteMessage",
    "NotASocket",
    "NotListening",
    "OutOfResources",
    "PathNotFound",
    "PeerClosed",
    "PermissionDenied",
    "ProbeResult",
    "ProtocolError",
    "Reply",
    "Request",
    "Server",
    "ServerBusy",
    "Shortage",
    "SipcError",
    "SpawnFailed",
    "State",
    "TimedOut",
    "connect",
    "ensure_running",
    "probe",
    "send",
]

_EXPORTS = {
    **dict.fromkeys(__all__, "errors"),
    **dict.fromkeys(("Connection", "connect", "ensure_running", "send"), "api.client"),
    **dict.fromkeys(("ProbeResult", "State", "probe"), "api.probe"),
    **dict.fromkeys(
        ("AsyncReply", "AsyncRequest", "Reply", "Request"), "handlers.callback_streams"
    ),
    "Server": "api.server",
}

__getattr__ = lazy_exports(__name__, _EXPORTS)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
