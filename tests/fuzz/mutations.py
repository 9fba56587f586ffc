"""Messages, and random changes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from random import Random

from helpers.paths import WIRE

MAX_PAYLOAD = 65516
HEADERS = (
    *(b"0000", b"0001", b"0002", b"0003", b"0004", b"0005", b"000A", b"0100", b"1000"),
    *(b"fff0", b"FFF0", b"fff1", b"ffff", b"zzzz", b"PACK", bytes(4), b"00\xb25"),
    *(b"+0f5", b"0x0e", b"-004", b"0_0e", b" 00f", b"00f ", b"0\n00"),  # int() accepts some of them
)
LONG = (65515, 65516, 65517, 131_032, 131_033, 300_000)

Packets = list[bytes]


@cache
def recorded() -> tuple[Packets, ...]:
    """The conversations of real git programs, packet by packet."""
    return tuple(split(path.read_bytes()) for path in sorted(WIRE.glob("*.re[qs]*")))


def split(wire: bytes) -> Packets:
    packets, at = [], 0
    while at < len(wire):
        end = at + max(4, int(wire[at : at + 4], 16))
        packets.append(wire[at:end])
        at = end
    return packets


def encode(payload: bytes, random: Random) -> Packets:
    """Encode a payload in packets of random size, some of them empty, and a flush."""
    packets, at = [], 0
    few = random.random() < 0.7
    while at < len(payload):
        size = MAX_PAYLOAD if few else random.randint(1, min(MAX_PAYLOAD, 1 + len(payload) // 2))
        piece = payload[at : at + size]
        header = b"%04x" if random.random() < 0.9 else b"%04X"
        packets.append(header % (len(piece) + 4) + piece)
        if not few and random.random() < 0.1:
            packets.append(b"0004")
        at += size
    return [*packets, b"0000"]


def valid(random: Random, payload: bytes) -> Packets:
    """A valid message, most often with this payload."""
    draw = random.random()
    if draw < 0.02:
        return list(random.choice(recorded()))
    if draw < 0.04:
        return [b"0000"]
    if draw < 0.07:
        payload += random.randbytes(random.choice(LONG) - len(payload))
    elif draw < 0.3:
        payload += random.randbytes(random.randint(0, 3000))
    return encode(payload, random)


def mutate(random: Random, packets: Packets) -> bytes:
    """Change a message at random: its packets first, then its bytes."""
    packets = list(packets)
    for _ in range(random.choice((0, 1, 1, 2))):
        random.choice(PACKET_CHANGES)(random, packets)
    wire = bytearray(b"".join(packets))
    for _ in range(random.choice((0, 1, 1, 2))):
        random.choice(BYTE_CHANGES)(random, wire)
    return bytes(wire)


def change_length(random: Random, packets: Packets) -> None:
    at = random.randrange(len(packets))
    old = packets[at]
    header = random.choice(HEADERS)
    if random.random() < 0.5 and old != b"0000":
        header = b"%04x" % (len(old) + random.choice((-5, -4, -1, 1, 4, 5)) & 0xFFFF)
    packets[at] = header + old[4:]


def remove(random: Random, packets: Packets) -> None:
    if len(packets) > 1:
        del packets[random.randrange(len(packets))]


def remove_flush(random: Random, packets: Packets) -> None:
    if len(packets) > 1:
        packets.pop()


def duplicate(random: Random, packets: Packets) -> None:
    packets.insert(random.randrange(len(packets)), random.choice(packets))


def swap(random: Random, packets: Packets) -> None:
    one, other = random.randrange(len(packets)), random.randrange(len(packets))
    packets[one], packets[other] = packets[other], packets[one]


def insert_special(random: Random, packets: Packets) -> None:
    packets.insert(random.randint(0, len(packets)), b"%04x" % random.randint(0, 4))


def append(random: Random, packets: Packets) -> None:
    """Add bytes after the flush: noise, or another message."""
    packets.append(random.choice((b"0", b"0000", b"0009again0000", random.randbytes(50))))
    if random.random() < 0.05:
        packets.append(random.randbytes(400_000))


def flip(random: Random, wire: bytearray) -> None:
    if wire:
        wire[random.randrange(min(len(wire), random.choice((4, 40, 1 << 20))))] ^= (
            1 << random.randrange(8)
        )


def truncate(random: Random, wire: bytearray) -> None:
    del wire[random.randint(0, len(wire)) :]


def insert_bytes(random: Random, wire: bytearray) -> None:
    at = random.randint(0, len(wire))
    wire[at:at] = random.randbytes(random.randint(1, 8))


def delete_bytes(random: Random, wire: bytearray) -> None:
    at = random.randint(0, len(wire))
    del wire[at : at + random.randint(1, 8)]


def in_upper_case(random: Random, wire: bytearray) -> None:
    wire[:] = wire.upper()


PACKET_CHANGES: tuple[Callable[[Random, Packets], None], ...] = (
    *(change_length, remove, remove_flush, duplicate, swap, insert_special, append),
)
BYTE_CHANGES: tuple[Callable[[Random, bytearray], None], ...] = (
    *(flip, truncate, insert_bytes, delete_bytes, in_upper_case),
)


def pieces(random: Random, wire: bytes) -> list[bytes]:
    """Divide the bytes of a message at random places into pieces to write."""
    draw = random.random()
    if draw < 0.5 or not wire:
        return [wire] if wire else []
    if draw < 0.6 and len(wire) < 64:
        return [wire[at : at + 1] for at in range(len(wire))]
    limits = [random.randrange(len(wire)) for _ in range(random.randint(1, 4))]
    if draw < 0.7:
        limits = [4, len(wire) - 4]  # as git's client writes: a header, the payload, the flush
    limits = sorted({0, len(wire), *(limit for limit in limits if 0 < limit < len(wire))})
    return [wire[a:b] for a, b in pairwise(limits)]
