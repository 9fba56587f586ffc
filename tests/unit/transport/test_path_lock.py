"""Locks while system calls fail: no lock stays, and no error replaces another."""

from __future__ import annotations

import errno
import os

import pytest

from simpleipc_cli.errors import AddressInUse, EndpointError
from simpleipc_cli.process import PidFile
from simpleipc_cli.system.posix import is_at_path
from simpleipc_cli.transport import StartLock
from simpleipc_cli.transport.unix.lock import ParentFolder, PathLock


def fail(*_arguments, **_named):
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.fixture
def parent(endpoint):
    with ParentFolder(str(endpoint)) as parent:
        yield parent


def descriptors() -> set[str]:
    """The open descriptors; those that threads of other tests have left may be closed later."""
    return set(os.listdir("/proc/self/fd"))


def test_a_file_that_cannot_be_identified_is_not_taken_for_another_file(folder, monkeypatch):
    with open(folder / "file", "w") as file:
        assert is_at_path(file.fileno(), str(folder / "file"))
        assert not is_at_path(file.fileno(), str(folder / "missing"))
        assert not is_at_path(file.fileno(), str(folder / "file" / "below"))
        (folder / "link").symlink_to("file")
        assert not is_at_path(file.fileno(), str(folder / "link")), "another file, that leads to it"
        monkeypatch.setattr(os, "stat", fail)
        with pytest.raises(OSError, match="Cannot allocate"):
            is_at_path(file.fileno(), str(folder / "file"))


def test_a_lock_whose_file_cannot_be_checked_is_removed_at_its_release(parent, folder, monkeypatch):
    before = descriptors()
    lock = PathLock(parent, lambda: False)
    lock.__enter__()
    monkeypatch.setattr(os, "stat", fail)
    lock.__exit__(None)
    assert os.listdir(folder) == []
    assert descriptors() <= before


def test_a_lock_that_cannot_be_checked_is_not_taken(parent, folder, monkeypatch):
    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        with pytest.raises(OSError, match="Cannot allocate"):
            PathLock(parent, lambda: False).__enter__()
    assert os.listdir(folder) == []
    assert descriptors() <= before


def test_an_error_while_the_lock_is_removed_does_not_replace_another_error(parent, monkeypatch):
    before = descriptors()
    lock = PathLock(parent, lambda: False)
    lock.__enter__()
    monkeypatch.setattr(os, "unlink", fail)
    lock.__exit__(AddressInUse)
    assert descriptors() <= before


def test_an_error_while_the_lock_is_removed_is_raised(parent, monkeypatch):
    before = descriptors()
    lock = PathLock(parent, lambda: False)
    lock.__enter__()
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(OSError, match="Cannot allocate"):
        lock.__exit__(None)
    assert descriptors() <= before


def test_a_start_lock_that_cannot_be_checked_is_an_error(endpoint, monkeypatch):
    before = descriptors()
    lock = StartLock(str(endpoint))
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        with pytest.raises(EndpointError, match=rf"cannot lock {lock.path}: cannot allocate"):
            lock.take()
    assert descriptors() <= before


def test_a_pid_file_that_cannot_be_checked_is_removed(folder, monkeypatch):
    before = descriptors()
    file = PidFile(str(folder / "pid"))
    file.__enter__()
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        file.__exit__(None, None, None)
    assert os.listdir(folder) == []
    assert descriptors() <= before
