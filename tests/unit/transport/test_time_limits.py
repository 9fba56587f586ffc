"""The kernel's time limits for sockets, whose structure differs between systems."""

from __future__ import annotations

import socket
import struct

import pytest
from helpers.waiting import TIMEOUT

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import TimedOut
from simpleipc_cli.server.systemd import Notifier
from simpleipc_cli.transport.unix import stream
from simpleipc_cli.transport.unix.stream import UnixStream, timeval_code

SO_RCVTIMEO_NEW = 66
SO_SNDTIMEO_NEW = 67


@pytest.mark.parametrize(
    ("option", "code"),
    [(20, "l"), (21, "l"), (SO_RCVTIMEO_NEW, "q"), (SO_SNDTIMEO_NEW, "q"), (0x1006, "l")],
)
def test_a_32_bit_system_with_64_bit_times_has_64_bit_numbers(option, code):
    assert timeval_code(option) == code


def test_the_kernel_accepts_the_64_bit_structure(monkeypatch):
    """Linux has this option on every machine."""
    monkeypatch.setattr(stream._socket, "SO_RCVTIMEO", SO_RCVTIMEO_NEW)
    monkeypatch.setattr(stream, "_TIMEVAL_CODE", timeval_code(SO_RCVTIMEO_NEW))
    one, other = (UnixStream(end) for end in socket.socketpair())
    with pytest.raises(TimedOut):
        one.read(bytearray(10), Deadline(0.02))
    other.write([b"abc"])
    assert one.read(bytearray(10), Deadline(TIMEOUT)) == 3
    one.close()
    other.close()


def test_messages_to_a_service_manager_are_limited_with_the_64_bit_structure(folder, monkeypatch):
    monkeypatch.setattr(stream._socket, "SO_SNDTIMEO", SO_SNDTIMEO_NEW)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        said = []
        notifier = Notifier({"NOTIFY_SOCKET": str(folder / "notify")}, said.append)
        found = notifier._socket.getsockopt(socket.SOL_SOCKET, SO_SNDTIMEO_NEW, 16)
        assert struct.unpack("=qq", found) == (2, 0)
        notifier.ready("here")
        assert manager.recv(100) == b"READY=1\nSTATUS=here"
        notifier.close()
    assert said == []
