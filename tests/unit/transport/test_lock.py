"""The lock on starting a server: one holder at a time, even if holders are killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.command import needs_root
from helpers.users import NOBODY, become
from helpers.waiting import TIMEOUT

from simpleipc_cli.errors import EndpointError, PathNotFound, PermissionDenied
from simpleipc_cli.transport import StartLock


@pytest.fixture
def path(endpoint):
    return str(endpoint)


def test_one_process_holds_the_lock_and_leaves_no_file(path, folder):
    first, second = StartLock(path), StartLock(path)
    assert first.take()
    assert not second.take()
    first.release()
    assert os.listdir(folder) == []
    assert second.take()
    first.release()  # a second call has no effect
    assert not first.take()
    second.release()
    assert os.listdir(folder) == []


def test_endpoints_of_one_folder_have_separate_locks(path):
    one, other = StartLock(path), StartLock(path + "2")
    assert one.take()
    assert other.take()
    one.release()
    other.release()


def test_a_lock_file_that_another_process_made_is_not_removed(path, folder):
    removed, new = StartLock(path), StartLock(path)
    assert removed.take()
    os.unlink(removed.path)
    assert new.take()
    removed.release()
    assert not removed.take()
    new.release()
    assert os.listdir(folder) == []


def test_a_lock_file_that_a_killed_process_left_is_reused(path, folder):
    lock = StartLock(path)
    open(lock.path, "w").close()
    assert lock.take()
    lock.release()
    assert os.listdir(folder) == []


def test_a_lock_in_a_missing_folder_is_an_error(folder):
    with pytest.raises(PathNotFound, match="there is no folder"):
        StartLock(f"{folder}/missing/sock").take()


def test_a_file_with_content_is_not_used_as_a_lock(path):
    lock = StartLock(path)
    with open(lock.path, "w") as file:
        file.write("precious")
    with pytest.raises(EndpointError, match="in the way"):
        lock.take()
    assert os.path.getsize(lock.path) == 8


@needs_root
def test_the_lock_file_left_by_another_user_does_not_prevent_a_start(path, folder):
    folder.chmod(0o1777)
    with become(1234):
        left = StartLock(path)
        assert left.take()
    with become(NOBODY):
        lock = StartLock(path)
        assert lock.take()
        lock.release()
    left.release()
    assert os.listdir(folder) == []


@needs_root
def test_the_error_names_a_file_of_another_user_at_the_path_of_the_lock(path, folder):
    folder.chmod(0o1777)
    with become(NOBODY):
        lock = StartLock(path)
    os.close(os.open(lock.path, os.O_CREAT, 0o600))
    with become(NOBODY), pytest.raises(PermissionDenied, match=f"{lock.path}: permission denied"):
        lock.take()


# Takes the lock repeatedly; while it holds it, mkdir() must not find the folder.
TAKES = """
import os, sys, time
from simpleipc_cli.transport import StartLock
path, rounds = sys.argv[1], int(sys.argv[2])
for _ in range(rounds):
    lock = StartLock(path)
    while not lock.take():
        time.sleep(0)
    os.mkdir(path + ".alone")
    os.rmdir(path + ".alone")
    lock.release()
"""


def test_no_two_processes_hold_the_lock_at_once(path, folder):
    command = [sys.executable, "-c", TAKES, path, "300"]
    takers = [subprocess.Popen(command) for _ in range(4)]
    assert [taker.wait(TIMEOUT) for taker in takers] == [0] * 4
    assert os.listdir(folder) == []
