"""The process at the other end of a connection, as each system describes it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import types

import pytest
from helpers.xnu import XnuSocket

from simpleipc_cli.transport import reports_users
from simpleipc_cli.transport.unix import peer
from simpleipc_cli.transport.unix.peer import (
    decode_sockpeercred,
    decode_unpcbid,
    decode_xucred,
    peer_of,
)

GROUPS = [20, *range(100, 115)]


def numbers(found) -> tuple[int, int, int]:
    return found.pid, found.uid, found.gid


def xucred(*, version: int = 0, groups: int = 16, end: bytes = b"") -> bytes:
    """struct xucred of sys/ucred.h: u_int, uid_t, short, gid_t[16]; FreeBSD adds a union."""
    return struct.pack("@IIh16I", version, 501, groups, *GROUPS) + end


@pytest.mark.parametrize(
    ("raw", "size", "pid"),
    [
        (xucred(), 76, 0),
        (xucred(end=struct.pack("4xi4x", 4711)), 88, 4711),
        (xucred(end=struct.pack("i", 4711)), 80, 4711),
        (xucred(end=bytes(12)), 88, 0),
    ],
    ids=["macOS", "FreeBSD", "FreeBSD, 32 bit", "FreeBSD without a pid"],
)
def test_macos_and_freebsd_describe_the_user_in_a_struct_xucred(raw, size, pid):
    assert len(raw) == size
    assert numbers(decode_xucred(raw)) == (pid, 501, 20)


def test_a_user_without_groups_has_an_unknown_group():
    assert numbers(decode_xucred(xucred(groups=0))) == (0, 501, -1)


@pytest.mark.parametrize("raw", [b"", bytes(75), bytes(12), bytes(77), xucred(version=1)])
def test_no_user_is_guessed_from_an_unknown_structure(raw):
    """The uid 0, of root, least of all."""
    with pytest.raises(OSError, match="unknown way"):
        decode_xucred(raw)


def test_netbsd_describes_pid_uid_and_gid():
    assert numbers(decode_unpcbid(struct.pack("iII", 4711, 501, 20))) == (4711, 501, 20)


def test_openbsd_describes_uid_gid_and_pid():
    assert numbers(decode_sockpeercred(struct.pack("IIi", 501, 20, 4711))) == (4711, 501, 20)


@pytest.mark.parametrize("number", [2**31, 2**32 - 2])
def test_a_large_uid_is_not_negative(number):
    for decode, raw in (
        (decode_unpcbid, struct.pack("iII", 1, number, number)),
        (decode_sockpeercred, struct.pack("IIi", number, number, 1)),
        (decode_xucred, struct.pack("@IIh16I", 0, number, 16, number, *[0] * 15)),
    ):
        assert numbers(decode(raw))[1:] == (number, number)


class Scripted:
    """A socket on which getsockopt() returns what a system would return."""

    def __init__(self, options) -> None:
        self._options = options

    def fileno(self) -> int:
        return 5

    def getsockopt(self, level: int, option: int, size: int = 0):
        found = self._options[level, option]
        if isinstance(found, int):
            return found
        assert size >= len(found)
        return found


@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("darwin", {(0, 1): xucred(), (0, 2): 4711}),
        ("freebsd", {(0, 1): xucred(end=struct.pack("4xi4x", 4711))}),
        ("netbsd", {(0, 3): struct.pack("iII", 4711, 501, 20)}),
        ("openbsd", {(socket.SOL_SOCKET, 0x1022): struct.pack("IIi", 501, 20, 4711)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_system_is_asked_with_its_own_option(system, options, monkeypatch):
    monkeypatch.setattr(peer, "_PLATFORM", system)
    assert reports_users()
    assert numbers(peer_of(Scripted(options))) == (4711, 501, 20)


def test_on_macos_the_user_of_a_peer_that_has_closed_is_known_but_not_its_pid(monkeypatch):
    monkeypatch.setattr(peer, "_PLATFORM", "darwin")
    one, other = (XnuSocket(fileno=end.detach()) for end in socket.socketpair())
    assert numbers(peer_of(one)) == (os.getpid(), os.geteuid(), os.getegid())
    other.close()
    assert numbers(peer_of(one)) == (0, os.geteuid(), os.getegid())
    one.close()


def c_library(status: int) -> types.SimpleNamespace:
    def getpeereid(_descriptor, uid, gid):
        uid._obj.value, gid._obj.value = 501, 20
        ctypes.set_errno(errno.ENOTCONN if status else 0)
        return status

    return types.SimpleNamespace(getpeereid=getpeereid)


def test_another_systems_c_library_is_asked(monkeypatch):
    monkeypatch.setattr(peer, "_PLATFORM", "aix")
    monkeypatch.setattr(peer, "_c_library", lambda: c_library(0))
    assert reports_users()
    assert numbers(peer_of(Scripted({}))) == (0, 501, 20)
    monkeypatch.setattr(peer, "_c_library", lambda: c_library(-1))
    with pytest.raises(OSError, match="not connected"):
        peer_of(Scripted({}))


def test_on_another_system_the_peer_may_be_unknown(monkeypatch):
    monkeypatch.setattr(peer, "_PLATFORM", "unknown")
    assert not reports_users(), "this C library has getpeereid()"
    assert numbers(peer_of(Scripted({}))) == (0, -1, -1)


def test_another_error_is_no_closed_peer(monkeypatch):
    monkeypatch.setattr(peer, "_PLATFORM", "darwin")

    class Denied(Scripted):
        def getsockopt(self, level, option, size=0):
            if option == 2:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            return super().getsockopt(level, option, size)

    with pytest.raises(OSError, match="not permitted"):
        peer_of(Denied({(0, 1): xucred()}))
