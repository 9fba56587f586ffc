"""Inputs and outputs close what they opened, and nothing else."""

from __future__ import annotations

import os
import threading

import pytest
from helpers.waiting import wait_until

from simpleipc_cli.cli.output import open_output
from simpleipc_cli.cli.stdio import Input, open_input, read_whole
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import SipcError

UNLIMITED = Deadline(None)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def test_an_input_file_is_closed(folder):
    (folder / "file").write_bytes(b"hello")
    source = open_input(str(folder / "file"), UNLIMITED)
    assert bytes(source.read_first()) == b"hello"
    source.close()
    source.close()


def test_an_input_that_was_polled_is_closed_after_its_end(folder):
    (folder / "file").write_bytes(b"hello")
    source = open_input(str(folder / "file"), UNLIMITED)
    source.fileno()
    while source.read_nowait(10):
        pass
    source.close()


def test_a_file_that_is_read_whole_is_closed(folder):
    (folder / "file").write_bytes(b"hello")
    assert read_whole(str(folder / "file")) == b"hello"


def test_standard_input_is_not_closed():
    open_input("-", UNLIMITED).close()
    os.fstat(0)


def test_an_input_that_another_thread_reads_is_closed_after_that_read():
    reader, writer = os.pipe()
    source = Input(reader, "pipe", UNLIMITED, is_owned=True)
    received: list[bytes] = []

    def read() -> None:
        while data := bytes(source.read_more()):
            received.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(source._in_use.locked, "the thread to read")
    source.close()
    os.fstat(reader)
    os.write(writer, b"hello")
    thread.join(30)
    assert not thread.is_alive()
    os.close(writer)
    assert received == [b"hello"]


@pytest.mark.parametrize("is_complete", [True, False])
def test_an_output_file_is_closed_and_replaced_only_when_complete(folder, is_complete):
    (folder / "file").write_bytes(b"old")
    target = open_output(str(folder / "file"), UNLIMITED)
    target.open()
    target.write(memoryview(b"new"))
    if is_complete:
        target.commit()
    target.close()
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


@pytest.mark.parametrize("name", ["descriptor", "pipe"])
def test_an_output_that_is_no_file_is_closed(folder, name):
    reader, writer = os.pipe()
    if name == "pipe":
        path = str(folder / "fifo")
        os.mkfifo(path)
        os.close(reader)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    else:
        path = f"/dev/fd/{writer}"
    target = open_output(path, UNLIMITED)
    target.open()
    target.write(memoryview(b"hel"))
    assert target.write_nowait(memoryview(b"lo")) == 2
    target.commit()
    target.close()
    target.close()
    assert os.read(reader, 10) == b"hello"
    os.close(reader)
    os.close(writer)


def test_standard_output_is_not_closed():
    open_output(None, UNLIMITED).close()
    os.fstat(1)
