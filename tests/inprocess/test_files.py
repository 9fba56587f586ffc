"""Files that are read and written without waiting, on Linux and Windows."""

from __future__ import annotations

import os
import threading

import pytest
from helpers.waiting import TIMEOUT

from simpleipc_cli.transport import READ, WRITE, new_file_reader, new_file_writer, new_poller

MUCH = b"".join(b"%7d " % number for number in range(250_000))
"""Two megabytes: more than any pipe holds. Text, as pipes made by Python are on Windows."""


@pytest.fixture
def pipe():
    ends = os.pipe()
    open_ends = set(ends)

    def close(end):
        open_ends.discard(end)
        os.close(end)

    yield *ends, close
    for end in open_ends:
        os.close(end)


@pytest.fixture
def poller():
    made = new_poller()
    yield made
    made.close()


def wait_for(poller, file, wanted):
    poller.register(file.fileno(), wanted)
    for _ in range(1000):  # a wait may end early
        if poller.wait(TIMEOUT / 1000):
            break
    else:
        raise AssertionError("nothing can be done")
    poller.unregister(file.fileno())


def read_all(poller, reader, limit=1000):
    pieces = []
    while True:
        wait_for(poller, reader, READ)
        try:
            piece = reader.read_nowait(limit)
        except BlockingIOError:
            continue
        assert len(piece) <= limit
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def write_all(poller, writer, data):
    left = memoryview(data)
    while left := left[writer.write_nowait(left) :]:
        wait_for(poller, writer, WRITE)


def test_a_file_is_read_completely(pipe, poller):
    theirs, ours, close = pipe
    reader = new_file_reader(theirs)
    os.write(ours, b"x" * 3000)
    wait_for(poller, reader, READ)
    assert reader.read_nowait(10) == b"x" * 10
    os.write(ours, b"y")
    close(ours)
    assert read_all(poller, reader) == b"x" * 2990 + b"y"
    assert read_all(poller, reader) == b""


def test_a_reader_waits_for_bytes(pipe, poller):
    theirs, ours, _ = pipe
    reader = new_file_reader(theirs)
    poller.register(reader.fileno(), READ)
    assert poller.wait(0.0) == []
    assert poller.wait(0.01) == []
    os.write(ours, b"x")
    wait_for(poller, reader, READ)
    assert reader.read_nowait(10) == b"x"
    os.write(ours, b"z")  # else the fixture might wait for a pending read


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, poller):
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    reader = new_file_reader(file)
    wait_for(poller, reader, READ)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.read_nowait(10)
    os.close(file)


def test_writing_to_a_slow_reader_does_not_block_and_keeps_the_order(pipe, poller):
    theirs, ours, close = pipe
    writer = new_file_writer(ours)
    left, got = memoryview(MUCH), bytearray()
    while taken := writer.write_nowait(left):
        left = left[taken:]
    assert left
    poller.register(writer.fileno(), WRITE)
    assert poller.wait(0.0) == []

    def read():
        while piece := os.read(theirs, 1 << 16):
            got.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    write_all(poller, writer, left)
    close(ours)
    reader.join()
    assert got == MUCH


def test_written_bytes_arrive_at_once(pipe, poller):
    theirs, ours, _ = pipe
    writer = new_file_writer(ours)
    for word in (b"one", b"two"):
        write_all(poller, writer, word)
        assert os.read(theirs, 100) == word


def test_all_bytes_are_written_to_a_regular_file(tmp_path, poller):
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0))
    write_all(poller, new_file_writer(file), MUCH)
    os.close(file)
    assert (tmp_path / "file").read_bytes() == MUCH


def test_writing_without_a_reader_is_an_error(pipe, poller):
    theirs, ours, close = pipe
    writer = new_file_writer(ours)
    close(theirs)
    with pytest.raises(OSError, match=r"Broken pipe|Invalid argument"):
        write_all(poller, writer, b"x")
