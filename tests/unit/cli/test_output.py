"""An output file is replaced only when it is complete, and its temporary file closed."""

from __future__ import annotations

import os

import pytest

from simpleipc_cli.cli import output
from simpleipc_cli.cli.output import open_output
from simpleipc_cli.cli.stdio import Output
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError

UNLIMITED = Deadline(None)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    before = open_descriptors()
    yield
    assert open_descriptors() <= before


@pytest.mark.parametrize("is_complete", [True, False])
def test_an_output_file_is_closed_and_replaces_the_old_one_only_when_it_is_complete(
    folder, is_complete
):
    (folder / "file").write_bytes(b"old")
    target = open_output(str(folder / "file"), UNLIMITED)
    target.open()
    target.write(memoryview(b"new"))
    if is_complete:
        target.commit()
    target.close()
    assert (folder / "file").read_bytes() == (b"new" if is_complete else b"old")
    assert os.listdir(folder) == ["file"]


def test_an_output_file_that_cannot_be_replaced_is_closed_and_removed(folder):
    target = open_output(str(folder / "file"), UNLIMITED)
    target.open()
    (folder / "file").mkdir()
    with pytest.raises(SipcError, match="cannot write to"):
        target.commit()
    target.close()
    assert os.listdir(folder) == ["file"]


def test_with_a_deadline_as_many_bytes_are_written_at_once_as_a_writable_pipe_takes(monkeypatch):
    monkeypatch.setattr(output.system, "PIPE_BUF", 512)
    written = []
    reader, writer = os.pipe()

    def write(descriptor: int, data) -> int:
        written.append(len(data))
        return original(descriptor, data)

    original = os.write
    monkeypatch.setattr("os.write", write)
    Output(writer, "the pipe", Deadline(3600.0)).write(memoryview(b"x" * 1200))
    monkeypatch.undo()
    assert written == [512, 512, 176]
    assert os.read(reader, 4096) == b"x" * 1200
    os.close(reader)
    os.close(writer)
