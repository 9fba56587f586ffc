"""The limit on open descriptors."""

from __future__ import annotations

from simpleipc_cli.system import fd_limit
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
