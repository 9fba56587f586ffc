"""Clients of a listener that stops: those that connected before, and those that connect later."""

from __future__ import annotations

import os
import socket

import pytest
from helpers.wire import connect, message

from simpleipc_cli.transport import listen, listener_from_fd


def test_a_client_of_a_stopped_listeners_socket_is_refused(endpoint):
    """Under a bind mount, for example, the name stays. A refused client may try again."""
    listener = listen(str(endpoint), mode=0o600, backlog=5)
    held = os.open(endpoint, os.O_PATH)
    early = [connect(f"/proc/self/fd/{held}") for _ in range(3)]
    listener.stop_listening()
    for _ in range(10):
        with pytest.raises(ConnectionRefusedError):
            connect(f"/proc/self/fd/{held}")
    for client in early:
        client.sendall(message(b"hello"))
        accepted = listener.accept()
        assert accepted.peek_nowait()
        accepted.close()
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    for client in early:
        client.close()
    os.close(held)


def test_a_passed_socket_accepts_connections_after_the_stop(endpoint):
    with socket.socket(socket.AF_UNIX) as kept:
        kept.bind(str(endpoint))
        kept.listen()
        listener = listener_from_fd(os.dup(kept.fileno()))
        assert listener.is_externally_owned
        early = connect(endpoint)
        listener.stop_listening()
        assert listener.owns_path()
        late = connect(endpoint)
        listener.close()
        kept.accept()[0].close()
        kept.accept()[0].close()
        early.close()
        late.close()
    assert endpoint.exists()
