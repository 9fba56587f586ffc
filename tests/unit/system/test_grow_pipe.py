"""Enlarging pipes."""

from __future__ import annotations

import fcntl
import os

import pytest

from simpleipc_cli.system import grow_pipe


def size_of(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)


def test_a_pipe_is_enlarged_to_a_mebibyte():
    reader, writer = os.pipe()
    before = size_of(writer)
    grow_pipe(reader)
    assert size_of(writer) == max(before, 1 << 20)
    os.close(reader)
    os.close(writer)


def test_a_larger_pipe_keeps_its_size():
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 << 20)
    except PermissionError:
        pass
    before = size_of(writer)
    grow_pipe(writer)
    assert size_of(writer) >= before
    os.close(reader)
    os.close(writer)


def test_other_files_are_not_changed(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        grow_pipe(file.fileno())


@pytest.mark.parametrize("name", ["F_GETPIPE_SZ", "F_SETPIPE_SZ"])
def test_without_the_calls_of_linux_a_pipe_keeps_its_size(name, monkeypatch):
    reader, writer = os.pipe()
    before = size_of(writer)
    with monkeypatch.context() as lacking:
        lacking.delattr(fcntl, name)
        grow_pipe(writer)
    assert size_of(writer) == before
    os.close(reader)
    os.close(writer)
