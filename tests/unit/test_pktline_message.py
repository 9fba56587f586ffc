from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from helpers.paths import WIRE
from hypothesis import given, settings
from hypothesis import strategies as st

from simpleipc_cli.errors import IncompleteMessage, ProtocolError
from simpleipc_cli.pktline import MAX_PAYLOAD, MessageReader, MessageWriter, consume, encode

TOKEN = b"builtin:0.29396.20261122T070917.133261Z:"

# The messages of git's programs, before git encoded them.
CONVERSATIONS: dict[str, list[bytes]] = {
    "ping.request": [b"ping"],
    "ping.response": [b"pong"],
    "big.request": [b"big"],
    "big.response": [b"".join(b"big: %075d\n" % row for row in range(10_000))],
    "unknown.request": [b"nonsense"],
    "unknown.response": [b"unhandled command: nonsense"],
    "quit.request": [b"quit"],
    "quit.response": [],
    "sendbytes-70000.request": [b"sendbytes " + b"Q" * 70_000],
    "sendbytes-70000.response": [b"rcvd:Q00070000\n"],
    "sendbytes-one-full-packet.request": [b"sendbytes " + b"Q" * 65_506],
    "sendbytes-one-full-packet.response": [b"rcvd:Q00065506\n"],
    "fsmonitor-query.request": [TOKEN + b"0"],
    "fsmonitor-query.response": [TOKEN + b"1\0", b"a\0d\0d/new\0"],
    "fsmonitor-query-later.request": [TOKEN + b"0"],
    "fsmonitor-query-later.response": [TOKEN + b"2\0", b"d/new\0d\0a\0"],
}
each_conversation = pytest.mark.parametrize(
    ("name", "writes"), CONVERSATIONS.items(), ids=CONVERSATIONS
)


def read(reader: MessageReader, *slices: bytes | bytearray) -> bytes:
    return b"".join(bytes(piece) for data in slices for piece in reader.feed(data))


def sliced(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def pending(writer: MessageWriter) -> bytes:
    return b"".join(writer.pending)


# The recorded conversations


def test_every_recorded_conversation_is_tested():
    recorded = {path.name for path in WIRE.iterdir() if path.suffix in {".request", ".response"}}
    assert recorded == set(CONVERSATIONS)


@each_conversation
def test_recorded_messages_of_git_are_read_in_slices_of_any_size(name, writes):
    wire = (WIRE / name).read_bytes()
    for size in (1, 3, 4, 4096, 65_519, 65_520, 65_521, 1 << 20):
        if len(wire) > 20_000 * size:
            continue  # many slices take seconds, and shorter messages test them
        reader = MessageReader()
        assert read(reader, *sliced(wire, size)) == b"".join(writes)
        reader.feed_eof()
        assert (reader.complete, reader.trailing_bytes, reader.inside_packet) == (
            True,
            0,
            False,
        )
        assert reader.payload_bytes == sum(map(len, writes))
        assert reader.packets == sum(len(encode(piece)) // 2 for piece in writes)


@each_conversation
def test_recorded_messages_of_git_are_written_byte_by_byte_the_same(name, writes):
    writer = MessageWriter()
    for payload in writes:
        writer.write(payload)
    writer.finish()
    assert pending(writer) == (WIRE / name).read_bytes()
    assert writer.payload_bytes == sum(map(len, writes))


# Reading

MESSAGE = b"0006ab0005c0000"
BETWEEN_PACKETS = {0, 6, 11}


@pytest.mark.parametrize("after", [b"!", b"0005x0000", b"0001", b"\0" * 1000])
def test_bytes_after_the_flush_are_counted_and_dropped(after):
    for slices in ([MESSAGE + after], [MESSAGE, after], sliced(MESSAGE + after, 1)):
        reader = MessageReader()
        assert read(reader, *slices) == b"abc"
        assert (reader.complete, reader.trailing_bytes) == (True, len(after))
        assert (reader.packets, reader.payload_bytes) == (2, 3)
        reader.feed_eof()


@pytest.mark.parametrize("size", range(len(MESSAGE)))
def test_a_truncated_message_is_never_complete(size):
    for slices in ([MESSAGE[:size]], sliced(MESSAGE[:size], 1)):
        reader = MessageReader()
        assert read(reader, *slices) == bytes(MESSAGE[at] for at in (4, 5, 10) if at < size)
        assert not reader.complete
        assert reader.inside_packet == (size not in BETWEEN_PACKETS)
        where = "inside a packet" if reader.inside_packet else "without a flush packet"
        with pytest.raises(IncompleteMessage, match=rf"{where}, after {size} bytes"):
            reader.feed_eof()


@pytest.mark.parametrize("wire", [b"0000", b"00040000"], ids=["flush alone", "empty packet"])
def test_an_empty_message_is_complete(wire):
    reader = MessageReader()
    assert list(reader.feed(wire)) == []
    reader.feed_eof()
    assert (reader.complete, reader.payload_bytes) == (True, 0)


def test_an_empty_packet_does_not_end_the_message():
    reader = MessageReader()
    assert list(reader.feed(b"0005a00040005b0000")) == [b"a", b"b"]
    assert (reader.packets, reader.payload_bytes) == (3, 2)


@pytest.mark.parametrize("bad", [b"0001", b"0002", b"0003", b"fff1", b"+0f5", b"oops"])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_payload_before_a_malformed_packet_is_delivered_before_the_error(bad, size):
    reader = MessageReader()
    delivered = bytearray()
    slices = sliced(b"0006ab0005c" + bad, size)
    with pytest.raises(ProtocolError, match="at byte 11") as caught:
        [delivered.extend(piece) for data in slices for piece in reader.feed(data)]
    assert delivered == b"abc"
    assert caught.type is ProtocolError
    assert not reader.complete


def test_payload_is_delivered_as_it_arrives_and_never_copied():
    reader = MessageReader()
    for data in map(bytearray, (b"0008p", b"in", b"g0008po", b"ng0000")):
        assert all(piece.obj is data for piece in reader.feed(data))
    assert reader.payload_bytes == 8


def test_memory_does_not_grow_with_the_message():
    packet = bytearray(b"".join(encode(bytes(MAX_PAYLOAD))))
    reader = MessageReader()
    tracemalloc.start()
    try:
        for _ in range(100):
            for piece in reader.feed(packet):
                assert piece
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.payload_bytes == 100 * MAX_PAYLOAD
    assert peak < MAX_PAYLOAD


# Writing


def test_no_bytes_are_pending_at_the_start():
    writer = MessageWriter()
    assert (pending(writer), writer.finished, writer.payload_bytes) == (b"", False, 0)


def test_an_empty_message_is_written_as_only_a_flush():
    writer = MessageWriter()
    writer.finish()
    assert (pending(writer), writer.finished) == (b"0000", True)


def test_an_empty_payload_is_written_as_no_packet():
    writer = MessageWriter()
    writer.write(b"")
    assert writer.pending == []


def test_payload_is_not_copied():
    payload = bytearray(100_000)
    writer = MessageWriter()
    writer.write(payload)
    assert sum(piece.obj is payload for piece in writer.pending[1::2]) == 2


@pytest.mark.parametrize("count", range(len(MESSAGE) + 1))
def test_unwritten_bytes_stay_pending(count):
    writer = MessageWriter()
    writer.write(b"ab")
    writer.write(b"c")
    writer.finish()
    consume(writer.pending, count)
    assert pending(writer) == MESSAGE[count:]
    consume(writer.pending, len(MESSAGE) - count)
    assert writer.pending == []


@pytest.mark.parametrize("count", range(12))
def test_more_payload_may_be_added_to_unwritten_bytes(count):
    writer = MessageWriter()
    writer.write(b"ab")
    writer.write(b"c")
    consume(writer.pending, count)
    writer.write(b"def")
    writer.finish()
    assert pending(writer) == b"0006ab0005c0007def0000"[count:]


# Both


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=8), st.data())
def test_a_message_written_in_any_steps_is_read_in_any_slices(payloads, data):
    writer = MessageWriter()
    for payload in payloads:
        writer.write(payload)
    writer.finish()
    wire = pending(writer)
    sent = b""
    while writer.pending:
        count = data.draw(st.integers(1, len(pending(writer))), label="written")
        sent += pending(writer)[:count]
        consume(writer.pending, count)
    assert sent == wire
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8), label="cuts"))
    reader = MessageReader()
    slices = [wire[start:end] for start, end in pairwise([0, *cuts, len(wire)])]
    assert read(reader, *slices) == b"".join(payloads)
    assert (reader.complete, reader.trailing_bytes) == (True, 0)
