from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleipc_cli.pktline import MAX_BUFFERS, consume

KINDS = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}


def test_one_gathering_write_takes_as_many_buffers_as_the_system_allows():
    assert 1 <= MAX_BUFFERS <= os.sysconf("SC_IOV_MAX")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("count", range(8))
def test_advance_removes_exactly_the_given_number_of_bytes(kind, count):
    buffers = [kind(piece) for piece in (b"ab", b"c", b"", b"defg")]
    consume(buffers, count)
    assert b"".join(buffers) == b"abcdefg"[count:]


def test_advance_does_not_change_an_empty_list():
    buffers = []
    consume(buffers, 0)
    assert buffers == []


def test_remaining_bytes_are_not_copied():
    first, second = bytearray(b"first"), bytearray(b"second")
    buffers = [first, second]
    consume(buffers, 2)
    assert buffers[0].obj is first
    assert buffers[1] is second


def test_no_buffer_is_left_when_all_bytes_are_written():
    buffers = [b"ab", b"", b"c", b""]
    consume(buffers, 3)
    assert buffers == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=6), max_size=10), st.data())
def test_steps_of_any_size_through_any_buffers_lose_no_bytes(pieces, data):
    left = b"".join(pieces)
    buffers = list(pieces)
    while left:
        count = data.draw(st.integers(1, len(left)))
        consume(buffers, count)
        left = left[count:]
        assert b"".join(buffers) == left
    assert not any(buffers)
