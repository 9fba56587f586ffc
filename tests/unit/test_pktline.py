from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from dulwich.errors import GitProtocolError
from dulwich.protocol import PktLineParser, pkt_line
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simpleipc_cli.errors import ProtocolError
from simpleipc_cli.pktline import (
    FLUSH,
    FLUSH_PACKET,
    MAX_PACKET,
    MAX_PAYLOAD,
    NEED_DATA,
    Data,
    Decoder,
    Event,
    encode,
)

Packet = bytes | Event


def decode(slices: Iterable[bytes | bytearray]) -> tuple[list[Packet], bytes, str]:
    """Return all events of a decoder: packets, flushes, an incomplete packet, an error."""
    decoder = Decoder()
    packets: list[Packet] = []
    part = b""
    for data in slices:
        decoder.receive_data(data)
        try:
            for event in iter(decoder.next_event, NEED_DATA):
                if event is FLUSH:
                    packets.append(FLUSH)
                    continue
                assert isinstance(event, Data)
                assert event.payload or event.ends_packet, "only an empty packet has no bytes"
                part += event.payload
                if event.ends_packet:
                    packets.append(part)
                    part = b""
        except ProtocolError as error:
            return packets, part, str(error)
    return packets, part, ""


def join(pieces: Iterable[bytes | bytearray | memoryview]) -> bytes:
    return b"".join(pieces)


def singly(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def pattern(size: int) -> bytes:
    """Bytes that show when any of them is lost, added or moved."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# Decoding in three ways

AFTER = b"0006xy0000"
AFTER_DECODED: list[Packet] = [b"xy", FLUSH]

WAYS = {
    "whole": lambda data: ([data], []),
    "byte by byte": lambda data: (singly(data), []),
    "with more packets after it": lambda data: ([data + AFTER], AFTER_DECODED),
}
three_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

ACCEPTED: dict[str, tuple[bytes, list[Packet]]] = {
    "flush": (b"0000", [FLUSH]),
    "two flushes": (b"00000000", [FLUSH, FLUSH]),
    "one byte": (b"0005a", [b"a"]),
    "several packets": (b"0005a0006bc0007def0000", [b"a", b"bc", b"def", FLUSH]),
    "lower-case length": (b"000eten  bytes", [b"ten  bytes"]),
    "upper-case length": (b"000Eten  bytes", [b"ten  bytes"]),
    "largest packet": (b"fff0" + pattern(65516), [pattern(65516)]),
    "length in both cases": (b"00fF" + pattern(251), [pattern(251)]),
    "empty packet": (b"0004", [b""]),
    "empty packets among others": (b"00040005a000400040000", [b"", b"a", b"", b"", FLUSH]),
    "payload that looks like packets": (b"0010000000010005", [b"000000010005"]),
    "payload of any bytes": (b"0104" + bytes(range(256)), [bytes(range(256))]),
}


@three_ways
@pytest.mark.parametrize(("data", "packets"), ACCEPTED.values(), ids=ACCEPTED)
def test_packets_are_decoded(data, packets, way):
    slices, more = way(data)
    assert decode(slices) == ([*packets, *more], b"", "")


REFUSED = {
    "delim": b"0001",
    "response-end": b"0002",
    "3": b"0003",
    **{f"{length:04x}": b"%04x" % length for length in range(0xFFF1, 0x10000)},
    "upper-case FFF1": b"FFF1",
    "upper-case FFFF": b"FFFF",
    "plus sign": b"+0f5",
    "plus zero": b"+000",
    "minus sign": b"-004",
    "minus zero": b"-000",
    "0x": b"0x0e",
    "0X": b"0X0E",
    "0o": b"0o17",
    "underscore": b"0_0e",
    "space in front": b" 00f",
    "space after it": b"00f ",
    "spaces": b"    ",
    "tab": b"\t00f",
    "newline": b"00f\n",
    "no-break space": b"\xa000f",
    "form feed": b"\x0c00f",
    "full-width digit": "\uff10".encode() + b"5",
    "Arabic digits": "\u0660\u0665".encode(),
    "superscript digits": b"00\xb2\xb3",
    "NULs": b"\0\0\0\0",
    "NUL after it": b"005\0",
    "high bytes": b"\xff\xff\xff\xff",
    "g": b"00g0",
    "quote": b"00'5",
    "HTTP": b"GET ",
}

each_refused = pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED)


@each_refused
def test_malformed_lengths_are_refused(header):
    for way in WAYS.values():
        slices, _ = way(header)
        packets, part, error = decode(slices)
        assert (packets, part) == ([], b"")
        assert error


@each_refused
def test_the_error_names_the_bytes_their_offset_and_what_was_expected(header):
    for before in (b"", b"0006ab", b"0000"):
        for slices in ([before + header], singly(before + header), [before, header]):
            error = decode(slices)[2]
            assert ascii(header)[2:-1] in error
            assert re.search(rf"at byte {len(before)}\b", error)
            assert "expected 0000, or 0004 to fff0" in error
            assert error.isascii()
            assert error.isprintable()


@pytest.mark.parametrize(
    ("header", "name"), [(b"0001", "delim"), (b"0002", "response-end")], ids=["0001", "0002"]
)
def test_the_error_names_packets_of_other_protocols(header, name):
    assert name in decode([header])[2]


def test_packets_before_a_malformed_one_are_returned_first():
    assert decode([b"0006ab0000" + b"oops" + b"0005c"])[:2] == ([b"ab", FLUSH], b"")


# The properties of a decoder, its memory and its copies


def test_the_decoder_is_inside_a_packet_until_the_packet_is_complete():
    decoder = Decoder()
    inside = []
    for byte in singly(b"0006ab0000"):
        decoder.receive_data(byte)
        while decoder.next_event() is not NEED_DATA:
            pass
        inside.append(decoder.inside_packet)
    assert inside == [True] * 5 + [False] + [True] * 3 + [False]


def test_offset_and_unread_bytes_include_all_buffers():
    decoder = Decoder()
    decoder.receive_data(b"0005a00")
    assert (decoder.offset, decoder.unread) == (0, 7)
    decoder.next_event()
    assert (decoder.offset, decoder.unread) == (5, 2)
    assert decoder.next_event() is NEED_DATA
    decoder.receive_data(b"00after!")
    assert decoder.next_event() is FLUSH
    assert (decoder.offset, decoder.unread) == (9, 6)


def test_data_may_not_be_added_before_all_events_are_read():
    decoder = Decoder()
    decoder.receive_data(b"0005a")
    with pytest.raises(AssertionError, match="not been used up"):
        decoder.receive_data(b"0005b")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1000, 100_000])
def test_payload_is_not_copied_and_returned_once_per_packet_and_slice(size):
    packets = [pattern(length) for length in (1, 100, 1, MAX_PAYLOAD, 3)]
    data = join(piece for packet in packets for piece in encode(packet))
    buffers = [bytearray(data[start : start + size]) for start in range(0, len(data), size)]
    decoder = Decoder()
    lengths = []
    for buffer in buffers:
        decoder.receive_data(buffer)
        events = list(iter(decoder.next_event, NEED_DATA))
        assert all(event.payload.obj is buffer for event in events)
        lengths += [len(event.payload) for event in events]
    assert sum(lengths) == sum(map(len, packets))
    assert len(lengths) <= len(packets) + len(buffers)


def test_a_buffer_may_be_reused_once_all_events_are_read():
    buffer = bytearray(3)
    decoder = Decoder()
    payload = b""
    for start in range(0, 21, 3):
        buffer[:] = b"0008ping0009world0000"[start : start + 3]
        decoder.receive_data(buffer)
        for event in iter(decoder.next_event, NEED_DATA):
            payload += event.payload if isinstance(event, Data) else b"!"
        buffer[:] = b"???"
    assert payload == b"pingworld!"


def test_memory_does_not_grow_with_the_bytes_decoded():
    packet = bytearray(join(encode(bytes(MAX_PAYLOAD))))
    decoder = Decoder()
    tracemalloc.start()
    try:
        for _ in range(50):
            for start in range(0, MAX_PACKET, 5000):
                decoder.receive_data(memoryview(packet)[start : start + 5000])
                while decoder.next_event() is not NEED_DATA:
                    pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.offset == 50 * MAX_PACKET
    assert peak < MAX_PACKET


# Encoding

ENCODED = {
    "nothing": (b"", b""),
    "one byte": (b"a", b"0005a"),
    "a word": (b"hello", b"0009hello"),
    "six bytes": (b"bytes!", b"000abytes!"),
    "a hundred": (b"x" * 100, b"0068" + b"x" * 100),
    "length of letters": (b"x" * 0xABC8, b"abcc" + b"x" * 0xABC8),
}


@pytest.mark.parametrize(("payload", "data"), ENCODED.values(), ids=ENCODED)
def test_payload_is_encoded(payload, data):
    assert join(encode(payload)) == data


@pytest.mark.parametrize(
    ("size", "headers"),
    [
        (0, []),
        (1, [b"0005"]),
        (65515, [b"ffef"]),
        (65516, [b"fff0"]),
        (65517, [b"fff0", b"0005"]),
        (2 * 65516 - 1, [b"fff0", b"ffef"]),
        (2 * 65516, [b"fff0", b"fff0"]),
        (2 * 65516 + 1, [b"fff0", b"fff0", b"0005"]),
    ],
)
def test_packets_are_filled_before_the_next_begins(size, headers):
    payload = pattern(size)
    pieces = encode(payload)
    assert pieces[::2] == headers
    assert join(pieces[1::2]) == payload
    assert all(pieces[1::2])


@pytest.mark.parametrize("size", [1, 65516, 65517, 200_000])
@pytest.mark.parametrize("kind", [bytes, bytearray], ids=["bytes", "bytearray"])
@pytest.mark.parametrize("wrap", [lambda it: it, memoryview], ids=["itself", "memoryview"])
def test_encoding_copies_nothing(size, kind, wrap):
    payload = kind(size)
    assert all(piece.obj is payload for piece in encode(wrap(payload))[1::2])


# Properties

payloads = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([65515, 65516, 65517, 131_032, 131_033, 200_000]).map(pattern),
)
packet_lists = st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=12)
streams = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.binary(min_size=1, max_size=40).map(lambda payload: join(encode(payload))),
        st.sampled_from(list(REFUSED.values())),
        st.sampled_from([b"0000", b"0004", b"000A", b"00", b"0005", b"fff0"]),
    ),
    max_size=8,
).map(join)


@st.composite
def slicings(draw, data: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """Bytes, and the same bytes cut anywhere, also into nothing."""
    whole = draw(data)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return whole, [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]


@settings(deadline=None)
@given(st.data(), payloads)
def test_any_payload_in_any_slices_is_decoded(data, payload):
    wire = join(encode(payload)) + FLUSH_PACKET
    _, slices = data.draw(slicings(st.just(wire)))
    packets, part, error = decode(slices)
    assert (packets.pop(), part, error) == (FLUSH, b"", "")
    assert join(packets) == payload


@settings(deadline=None)
@given(slicings(streams))
def test_any_bytes_are_decoded_the_same_in_any_slices(sliced):
    whole, slices = sliced
    assert decode(slices) == decode([whole]) == decode(singly(whole))


@settings(deadline=None)
@given(slicings(st.binary(max_size=60)))
def test_any_bytes_are_decoded_as_packets_or_refused(sliced):
    whole, slices = sliced
    assert decode(slices) == decode([whole])


# Comparison with dulwich


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=MAX_PAYLOAD))
def test_dulwich_encodes_a_payload_to_the_same_bytes(payload):
    assert join(encode(payload)) == pkt_line(payload)


@settings(deadline=None)
@given(packet_lists)
def test_packets_that_dulwich_encodes_are_decoded(packets):
    wire = join(map(pkt_line, packets))
    assert decode([wire])[0] == [FLUSH if packet is None else packet for packet in packets]


@settings(deadline=None)
@given(streams)
def test_dulwich_decodes_packets_to_the_same_payload(stream):
    assume(b"fff" not in stream.lower())  # dulwich takes packets longer than git's longest
    theirs: list[Packet] = []
    parser = PktLineParser(lambda packet: theirs.append(FLUSH if packet is None else packet))
    refused = False
    try:
        parser.parse(stream)
    except GitProtocolError:
        refused = True
    packets, _, error = decode([stream])
    assert (packets, bool(error)) == (theirs, refused)
