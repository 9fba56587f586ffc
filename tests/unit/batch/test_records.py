from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.batch.records import END, HOLD, NEED_DATA, RecordChunk, RecordSplitter


def tell_all(cutter: RecordSplitter) -> list[tuple[bytes, bool]]:
    pieces = []
    while isinstance(event := cutter.next_event(), RecordChunk):
        pieces.append((event.payload, event.ends_record))
    assert event in {NEED_DATA, END}
    return pieces


def cut(*chunks: bytes, separator: bytes = b"\n") -> list[tuple[bytes, bool]]:
    """All pieces of an input that comes in these chunks."""
    cutter = RecordSplitter(separator)
    pieces = []
    for chunk in chunks:
        cutter.receive_data(chunk)
        pieces += tell_all(cutter)
        assert cutter.next_event() is NEED_DATA
    cutter.end()
    pieces += tell_all(cutter)
    assert cutter.next_event() is END
    return pieces


def records(pieces: list[tuple[bytes, bool]]) -> list[bytes]:
    found, begun = [], b""
    for payload, ends_record in pieces:
        begun += payload
        if ends_record:
            found.append(begun)
            begun = b""
    assert not begun, "the last record has no end"
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
    assert cut(data) == [(record, True) for record in expected]
    assert cut(*(bytes([byte]) for byte in data)) == [(record, True) for record in expected]


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES)
def test_any_byte_can_separate(data, expected):
    swap = bytes.maketrans(b"\n\0", b"\0\n")
    pieces = cut(data.translate(swap), separator=b"\0")
    assert records(pieces) == [record.translate(swap) for record in expected]


lengths = st.sampled_from([0, 1, 2, HOLD - 2, HOLD - 1, HOLD, HOLD + 1, 3 * HOLD])
slices = st.lists(st.sampled_from([1, 2, 1000, HOLD - 1, HOLD, 2 * HOLD]), max_size=20)


@given(st.lists(lengths, max_size=6), slices, st.booleans())
def test_records_do_not_depend_on_how_the_input_is_sliced(lengths, slices, ended):
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
    assert records(cut(*(chunk for chunk in [*chunks, data] if chunk))) == expected


def test_a_short_record_is_passed_on_once_it_is_complete():
    cutter = RecordSplitter(b"\n")
    cutter.receive_data(b"x" * (HOLD - 1))
    assert tell_all(cutter) == []
    assert cutter.inside_record
    cutter.receive_data(b"\n")
    assert tell_all(cutter) == [(b"x" * (HOLD - 1), True)]
    assert not cutter.inside_record


def test_a_long_record_is_passed_on_as_it_is_read():
    cutter = RecordSplitter(b"\n")
    cutter.receive_data(b"x" * (HOLD - 1))
    assert tell_all(cutter) == []
    cutter.receive_data(b"y")
    assert tell_all(cutter) == [(b"x" * (HOLD - 1) + b"y", False)]
    assert cutter.inside_record
    cutter.receive_data(b"z")
    assert tell_all(cutter) == [(b"z", False)]
    cutter.receive_data(b"\nnext")
    assert tell_all(cutter) == [(b"", True)]
    assert cutter.inside_record
    cutter.end()
    assert tell_all(cutter) == [(b"next", True)]


def test_every_byte_is_searched_once():
    """Also in a record that comes byte by byte: searching all of it each time is quadratic."""
    searched = 0

    class Counted(bytes):
        def find(self, separator, start=0):
            nonlocal searched
            end = super().find(separator, start)
            searched += (len(self) if end < 0 else end + 1) - start
            return end

    cutter = RecordSplitter(b"\n")
    size = 0
    for chunk in [b"a"] * 1000 + [b"b" * 10_000] * 20 + [b"c\n" * 500, b"d" * 300 + b"\n" * 300]:
        size += len(chunk)
        cutter.receive_data(Counted(chunk))
        tell_all(cutter)
    assert searched == size
