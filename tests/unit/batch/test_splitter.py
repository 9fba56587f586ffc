from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.batch.batch import MAX_HELD, RecordSplitter


def all_chunks(splitter: RecordSplitter) -> list[tuple[bytes, bool]]:
    return list(iter(splitter.next_chunk, None))


def split(*slices: bytes, separator: bytes = b"\n") -> list[tuple[bytes, bool]]:
    """Return all chunks of an input that arrives in these slices."""
    splitter = RecordSplitter(separator)
    chunks = []
    for data in filter(None, slices):
        splitter.feed(data)
        chunks += all_chunks(splitter)
        assert splitter.needs_data
    splitter.feed(b"")
    chunks += all_chunks(splitter)
    assert splitter.input_ended
    assert not splitter.needs_data
    assert splitter.next_chunk() is None
    return chunks


def records(chunks: list[tuple[bytes, bool]]) -> list[bytes]:
    found, record = [], b""
    for payload, ends_record in chunks:
        record += payload
        if ends_record:
            found.append(record)
            record = b""
    assert not record, "the last record has no end"
    return found


CASES = {
    "nothing": (b"", []),
    "a record": (b"one\n", [b"one"]),
    "without an end": (b"one", [b"one"]),
    "several": (b"one\ntwo\nthree", [b"one", b"two", b"three"]),
    "empty ones": (b"\n\na\n\n", [b"", b"", b"a", b""]),
    "an empty one": (b"\n", [b""]),
    "other bytes": (b"a\0b\r\n\xff\n", [b"a\0b\r", b"\xff"]),
}


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES)
def test_records_end_at_separators_and_at_the_end(data, expected):
    assert split(data) == [(record, True) for record in expected]
    assert split(*(bytes([byte]) for byte in data)) == [(record, True) for record in expected]


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES)
def test_any_byte_can_be_the_separator(data, expected):
    swap = bytes.maketrans(b"\n\0", b"\0\n")
    chunks = split(data.translate(swap), separator=b"\0")
    assert records(chunks) == [record.translate(swap) for record in expected]


lengths = st.sampled_from(
    [0, 1, 2, MAX_HELD - 2, MAX_HELD - 1, MAX_HELD, MAX_HELD + 1, 3 * MAX_HELD]
)
slices = st.lists(st.sampled_from([1, 2, 1000, MAX_HELD - 1, MAX_HELD, 2 * MAX_HELD]), max_size=20)


@given(st.lists(lengths, max_size=6), slices, st.booleans())
def test_records_do_not_depend_on_the_slices_of_the_input(lengths, slices, ended):
    expected = [bytes([65 + number]) * length for number, length in enumerate(lengths)]
    data = b"".join(record + b"\n" for record in expected)
    if not ended and expected:
        data = data[:-1]
        if not expected[-1]:
            expected.pop()
    chunks = []
    for size in slices:
        chunks.append(data[:size])
        data = data[size:]
    assert records(split(*chunks, data)) == expected


def test_a_short_record_is_returned_once_it_is_complete():
    splitter = RecordSplitter(b"\n")
    splitter.feed(b"x" * (MAX_HELD - 1))
    assert all_chunks(splitter) == []
    assert splitter.inside_record
    splitter.feed(b"\n")
    assert all_chunks(splitter) == [(b"x" * (MAX_HELD - 1), True)]
    assert not splitter.inside_record


def test_a_long_record_is_returned_as_it_is_read():
    splitter = RecordSplitter(b"\n")
    splitter.feed(b"x" * (MAX_HELD - 1))
    assert all_chunks(splitter) == []
    splitter.feed(b"y")
    assert all_chunks(splitter) == [(b"x" * (MAX_HELD - 1) + b"y", False)]
    assert splitter.inside_record
    splitter.feed(b"z")
    assert all_chunks(splitter) == [(b"z", False)]
    splitter.feed(b"\nnext")
    assert all_chunks(splitter) == [(b"", True)]
    assert splitter.inside_record
    splitter.feed(b"")
    assert all_chunks(splitter) == [(b"next", True)]


def test_every_byte_is_searched_for_a_separator_only_once():
    """Also in a record that arrives byte by byte: a search of all of it each time is quadratic."""
    searched = 0

    class Counted(bytes):
        def find(self, separator, start=0):
            nonlocal searched
            end = super().find(separator, start)
            searched += (len(self) if end < 0 else end + 1) - start
            return end

    splitter = RecordSplitter(b"\n")
    size = 0
    for chunk in [b"a"] * 1000 + [b"b" * 10_000] * 20 + [b"c\n" * 500, b"d" * 300 + b"\n" * 300]:
        size += len(chunk)
        splitter.feed(Counted(chunk))
        all_chunks(splitter)
    assert searched == size
