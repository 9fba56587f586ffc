"""More room in pipes."""

from __future__ import annotations

import fcntl
import os

from simpleipc_cli.system.pipes import grow_pipe


def room(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)


def test_a_pipe_gets_room_for_a_mebibyte():
    reader, writer = os.pipe()
    before = room(writer)
    grow_pipe(reader)
    assert room(writer) == max(before, 1 << 20)
    os.close(reader)
    os.close(writer)


def test_a_larger_pipe_keeps_its_size():
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 << 20)
    except PermissionError:
        pass
    before = room(writer)
    grow_pipe(writer)
    assert room(writer) >= before
    os.close(reader)
    os.close(writer)


def test_other_files_are_not_changed(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        grow_pipe(file.fileno())
