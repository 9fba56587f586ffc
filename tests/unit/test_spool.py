from __future__ import annotations

import os
import resource
from contextlib import closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleipc_cli.errors import SipcError
from simpleipc_cli.pktline import MAX_BUFFERS
from simpleipc_cli.spool import Spool, usable_folders


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    return tmp_path_factory.mktemp("spool")


@pytest.fixture
def spool(disk):
    with closing(Spool(str(disk))) as spool:
        yield spool


@contextmanager
def files_no_longer_than(size: int):
    """A disk that is full for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


kinds = st.sampled_from([bytes, bytearray, memoryview])
buffers = st.builds(lambda kind, data: kind(data), kinds, st.binary(max_size=50))
appends = st.lists(buffers, max_size=6)
takes = st.integers(0, 120)


@settings(deadline=None)
@given(steps=st.lists(st.one_of(appends, takes), max_size=20))
def test_a_spool_returns_bytes_in_the_order_in_which_they_were_stored(disk, steps):
    model = b""
    with closing(Spool(str(disk))) as spool:
        for step in steps:
            if isinstance(step, list):
                spool.append(step)
                model += b"".join(step)
            elif model:
                assert spool.take(step) == model[:step]
                model = model[step:]
            assert len(spool) == len(model)


def test_more_buffers_than_one_system_call_takes_are_stored(spool):
    buffers = [b"%d," % number for number in range(2 * MAX_BUFFERS + 1)]
    spool.append(buffers)
    assert spool.take(len(spool) + 1) == b"".join(buffers)


def test_storing_does_not_change_the_list_of_buffers(spool):
    buffers = [b"ab", b"c"]
    spool.append(buffers)
    assert buffers == [b"ab", b"c"]


def test_an_empty_spool_has_the_truth_value_false(spool):
    assert not spool
    spool.append([b"a"])
    assert spool
    spool.take(1)
    assert not spool


def test_the_file_of_a_spool_has_no_name(spool, disk):
    spool.append([b"secret"])
    assert list(disk.iterdir()) == []
    assert os.fstat(spool.descriptor()).st_nlink == 0


def test_child_processes_do_not_inherit_the_file_of_a_spool(spool):
    spool.append([b"secret"])
    assert not os.get_inheritable(spool.descriptor())


def test_the_file_of_a_spool_is_in_the_given_folder(spool, disk):
    spool.append([b"a"])
    assert os.fstat(spool.descriptor()).st_dev == disk.stat().st_dev
    assert os.readlink(f"/proc/self/fd/{spool.descriptor()}").startswith(f"{disk}/")


def test_the_file_is_truncated_when_the_spool_is_emptied(spool):
    spool.append([bytes(100_000)])
    spool.take(99_999)
    assert os.fstat(spool.descriptor()).st_size == 100_000
    spool.take(1)
    assert os.fstat(spool.descriptor()).st_size == 0
    spool.append([b"again"])
    assert os.fstat(spool.descriptor()).st_size == 5


def test_the_position_of_the_descriptor_is_the_first_stored_byte(spool):
    spool.append([b"the whole ", b"request"])
    for _ in range(2):
        assert os.read(spool.descriptor(), 100) == b"the whole request"


def test_an_empty_spool_also_has_a_descriptor(spool):
    assert os.read(spool.descriptor(), 1) == b""


def test_closing_a_spool_closes_its_descriptor(disk):
    spool = Spool(str(disk))
    spool.append([b"a"])
    descriptor = spool.descriptor()
    spool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert len(spool) == 0
    spool.close()


def test_a_spool_creates_no_file_before_the_first_byte():
    with closing(Spool("/nonexistent")) as spool:
        assert len(spool) == 0


def test_taking_from_an_empty_spool_needs_no_file():
    with closing(Spool("/nonexistent")) as spool:
        assert spool.take(10) == b""


def test_a_full_disk_is_an_error_with_a_remedy_and_stored_bytes_are_kept(spool, disk):
    spool.append([b"first "])
    with files_no_longer_than(10_000):
        with pytest.raises(SipcError) as caught:
            spool.append([b"x" * 6_000, b"y" * 6_000])
        assert len(spool) == 10_000
    assert str(disk) in str(caught.value)
    assert "File too large" in str(caught.value)
    assert "TMPDIR" in caught.value.hint
    assert spool.take(20_000) == (b"first " + b"x" * 6_000 + b"y" * 6_000)[:10_000]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_the_lack_of_a_writable_folder_is_an_error_with_a_remedy(tmp_path, name):
    (tmp_path / "file").touch()
    folder = str(tmp_path / name)
    with closing(Spool(folder)) as spool, pytest.raises(SipcError) as caught:
        spool.append([b"a"])
    assert folder in str(caught.value)
    assert "TMPDIR" in caught.value.hint


def test_a_spool_uses_the_first_writable_folder(tmp_path, disk):
    folders = [str(tmp_path / "missing"), str(disk), "/nonexistent"]
    assert usable_folders(folders) == folders[1:]
    assert not usable_folders(folders[::2])
    with closing(Spool(*folders)) as spool:
        spool.append([b"a"])
        assert os.readlink(f"/proc/self/fd/{spool.descriptor()}").startswith(f"{disk}/")


def test_a_file_that_cannot_be_read_back_is_an_error_with_a_remedy(spool, disk, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    spool.append([b"a"])
    monkeypatch.setattr("os.pread", fail)
    with pytest.raises(SipcError) as caught:
        spool.take(1)
    assert str(disk) in str(caught.value)
    assert "Input/output error" in str(caught.value)
    assert caught.value.hint
