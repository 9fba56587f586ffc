"""Messages to a service manager that cannot be reached, or expects none."""

from __future__ import annotations

import socket

import pytest

from simpleipc_cli.server.systemd import Notifier


@pytest.mark.parametrize(
    "name",
    ["{}/nobody", "{}/notes", "{}/stream", "@sipc-nobody", "vsock:2:1234", "x", "/" + "x" * 200],
)
def test_a_missing_service_manager_is_reported_once(folder, name):
    (folder / "notes").touch()
    said: list[str] = []
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(folder / "stream"))
        stream.listen()
        manager = Notifier(
            {"NOTIFY_SOCKET": name.format(folder), "WATCHDOG_USEC": "1"}, said.append
        )
        manager.ready("listening")
        manager.tick()
        manager.stopping("stopping")
        manager.close()
    assert len(said) == 1
    assert "service manager" in said[0]
    assert "check NOTIFY_SOCKET" in said[0]


@pytest.mark.parametrize(
    "more",
    [
        {"WATCHDOG_USEC": "50000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "often"},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "9" * 30},
        {},
    ],
    ids=["another's", "zero", "negative", "nonsense", "empty", "huge", "none"],
)
def test_no_keep_alive_is_due_without_a_watchdog(folder, more):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "notify"))
        listening.setblocking(False)
        said: list[str] = []
        manager = Notifier({"NOTIFY_SOCKET": str(folder / "notify"), **more}, said.append)
        assert manager.remaining() is None
        manager.tick()
        manager.close()
        with pytest.raises(BlockingIOError):
            listening.recv(1000)
    assert said == []


def test_a_keep_alive_is_due_twice_within_the_timeout_of_the_watchdog(folder):
    manager = Notifier({"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "7200000000"}, print)
    assert manager.remaining() == 0
    manager.tick()
    assert 3500 < manager.remaining() <= 3600
    manager.close()
