"""The limit on open descriptors."""

from __future__ import annotations

import resource
import sys

import pytest

from simpleipc_cli.system import count_open_fds, fd_limit, get_fd_limits, set_fd_limit
from simpleipc_cli.system.fd_limit import DescriptorLimit


def test_a_start_that_hangs_does_not_block_other_users_of_the_limit(monkeypatch):
    """The disk of a program may never respond; the event loop must not wait for it."""
    monkeypatch.setattr(fd_limit, "_MAX_START", 0.01)
    monkeypatch.setattr(fd_limit, "set_fd_limit", lambda _limit: True)
    limit = DescriptorLimit()
    limit.maximum = limit.original + 1
    with limit:
        assert not limit.raise_to_maximum()
        with limit as soft_limit:
            assert soft_limit is None, "starts go on"
    assert limit.raise_to_maximum()


def test_without_permission_to_ask_the_usual_limit_is_assumed(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(resource, "getrlimit", refuse)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert get_fd_limits() == (1024, 1024)
    assert not set_fd_limit(1024)
    limit = DescriptorLimit()
    assert not limit.raise_to_maximum()
    assert not limit.is_raised


class MacLimits:
    """The limits of macOS: the hard one is infinite, but not every soft one is accepted."""

    def __init__(self, maximum: int, soft: int) -> None:
        self._maximum = maximum
        self.soft = soft

    def get(self, _number: int) -> tuple[int, int]:
        return self.soft, resource.RLIM_INFINITY

    def set(self, _number: int, limits: tuple[int, int]) -> None:
        if not 0 <= limits[0] <= self._maximum:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = limits[0]


@pytest.mark.parametrize(
    ("maximum", "soft", "found"),
    [
        (10240, 256, 10240),
        (61440, 256, 32768),
        (245_760, 256, 131_072),
        (2_000_000, 256, 1 << 20),
        (5000, 256, 256),
        (61440, 61440, 61440),
        (10240, 10240, 10240),
    ],
)
def test_on_macos_the_highest_limit_that_is_accepted_is_found(maximum, soft, found, monkeypatch):
    limits = MacLimits(maximum, soft)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    limit = DescriptorLimit()
    assert (limit.original, limit.maximum) == (soft, found)
    assert limits.soft == soft, "it is raised only when it must be"
    assert limit.raise_to_maximum() is (found > soft)
    assert limits.soft == found


@pytest.mark.parametrize("listed", [["0", "1", "2"], ["0", "1", "2", "3"]])
def test_the_standard_streams_count_as_open_if_the_system_lists_no_others(listed, monkeypatch):
    """/dev/fd of FreeBSD lists no others, unless fdescfs(4) is mounted."""
    monkeypatch.setattr("os.listdir", lambda _: listed)
    assert count_open_fds() == 3
