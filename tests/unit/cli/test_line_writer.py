"""A log or trace that is not read, or does not fit on the disk, delays no request for long."""

from __future__ import annotations

import os

import pytest

from simpleipc_cli.cli import line_writer
from simpleipc_cli.cli.line_writer import MAX_LINE, LineWriter, open_trace
from simpleipc_cli.errors import SipcError


@pytest.fixture
def fifo(folder, monkeypatch):
    """A named pipe with its reading end; the writer waits no time for its reader."""
    monkeypatch.setattr(line_writer, "_TIMEOUT", 0)
    path = str(folder / "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def fill(writer: LineWriter) -> int:
    """Write lines until some are lost; return how many were written."""
    written = 0
    while not writer._lost:
        writer.write("x" * 1000)
        written += 1
    return written - 1


def test_lines_are_appended_and_cut_to_the_size_of_an_atomic_write_to_a_pipe(folder):
    (folder / "log").write_text("before\n")
    writer = LineWriter(str(folder / "log"))
    writer.write("short \udcff")
    writer.write("x" * 5000)
    writer.close()
    assert (folder / "log").read_text() == f"before\nshort \\udcff\n{'x' * (MAX_LINE - 1)}\n"


@pytest.mark.parametrize(("kind", "sizes"), [("pipe", [512] * 8), ("file", [MAX_LINE])])
def test_where_a_writable_pipe_takes_512_bytes_a_long_line_is_written_in_pieces(
    fifo, folder, kind, sizes, monkeypatch
):
    monkeypatch.setattr(line_writer.system, "PIPE_BUF", 512)
    written = []
    write = os.write
    monkeypatch.setattr(
        "os.write", lambda number, data: written.append(len(data)) or write(number, data)
    )
    writer = LineWriter(fifo[0] if kind == "pipe" else str(folder / "log"))
    writer.write("x" * 5000)
    writer.close()
    monkeypatch.undo()
    assert written == sizes
    found = os.read(fifo[1], 1 << 20) if kind == "pipe" else (folder / "log").read_bytes()
    assert found == b"x" * (MAX_LINE - 1) + b"\n"


def test_lines_that_do_not_fit_into_a_full_pipe_are_lost_and_counted(fifo):
    path, reader = fifo
    writer = LineWriter(path)
    written = fill(writer)
    writer.write("lost")
    assert os.read(reader, 1 << 20) == (b"x" * 1000 + b"\n") * written
    writer.write("after")
    writer.close()
    assert os.read(reader, 1 << 20) == (
        b"(2 lines were lost: the log was full or not read)\nafter\n"
    )


def test_the_owner_of_the_writer_formats_the_count_of_lost_lines(fifo):
    path, reader = fifo
    writer = LineWriter(path)
    writer.format_lost = "{} lost".format
    fill(writer)
    os.read(reader, 1 << 20)
    writer.close()
    assert os.read(reader, 1 << 20) == b"1 lost\n"


def test_lines_lost_at_the_end_are_reported_to_the_owner(fifo):
    errors: list[SipcError] = []
    writer = LineWriter(fifo[0], kind="trace", on_error=errors.append)
    fill(writer)
    writer.close()
    (error,) = errors
    assert str(error) == f"{fifo[0]}: (1 lines were lost: the trace was full or not read)"


def test_an_error_is_reported_once_and_later_lines_are_tried(folder):
    errors: list[SipcError] = []
    writer = LineWriter("/dev/full", on_error=errors.append)
    for _ in range(3):
        writer.write("line")
    writer.close()
    (error,) = errors
    assert str(error) == "cannot write the log to /dev/full: No space left on device"


def test_after_a_partly_written_line_the_next_one_begins_a_new_line(folder, monkeypatch):
    writer = LineWriter(str(folder / "log"))
    write = os.write
    sizes = iter([5, 0])

    def full_disk(descriptor: int, data: bytes) -> int:
        size = next(sizes, None)
        if size == 0:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:size])

    monkeypatch.setattr(os, "write", full_disk)
    writer.write("partial line")
    writer.write("after")
    writer.close()
    lines = (folder / "log").read_text().splitlines()
    assert lines == ["parti", "(1 lines were lost: the log was full or not read)", "after"]


def test_a_file_is_closed_and_lines_after_that_are_dropped(folder):
    writer = LineWriter(str(folder / "log"))
    descriptor = writer._descriptor
    writer.close()
    assert not is_open(descriptor)
    writer.write("late")
    writer.close()
    assert (folder / "log").read_text() == ""


def test_the_writer_does_not_close_stderr():
    writer = LineWriter()
    writer.close()
    assert is_open(2)


def test_the_writer_reopens_a_renamed_file_at_its_path(folder):
    log = folder / "log"
    writer = LineWriter(str(log))
    old = writer._descriptor
    log.rename(folder / "old")
    writer.write("one")
    writer.reopen()
    writer.write("two")
    writer.close()
    assert ((folder / "old").read_text(), log.read_text()) == ("one\n", "two\n")
    assert not is_open(old)


def test_a_trace_closes_its_file(folder):
    errors: list[SipcError] = []
    trace = open_trace(errors.append, on_stderr=True, path=str(folder / "trace"))
    descriptors = [sink._descriptor for sink in trace._sinks]
    trace.close()
    assert [is_open(descriptor) for descriptor in descriptors] == [True, False]
    assert errors == []
