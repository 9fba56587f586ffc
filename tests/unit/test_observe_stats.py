"""Counts of the bytes and packets on connections."""

from __future__ import annotations

import pytest

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.observe import TransferStats


class Script:
    """A stream that accepts all bytes and returns given ones, in small pieces."""

    def __init__(self, wire: bytes = b"", piece: int = 1 << 20) -> None:
        self.wire = wire
        self.piece = piece

    def read(self, buffer, deadline) -> int:
        piece, self.wire = self.wire[: self.piece], self.wire[self.piece :]
        buffer[: len(piece)] = piece
        return len(piece)

    def write(self, buffers) -> int:
        return sum(map(len, buffers))

    def shutdown(self) -> None:
        pass

    close = shutdown


def totals(stats: TransferStats) -> tuple[int, ...]:
    sent, received = stats.sent, stats.received
    return sent.payload, sent.packets, received.payload, received.packets


def drain(stream) -> None:
    while stream.read(bytearray(1 << 20), Deadline(None)):
        pass


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_only_payload_and_packets_are_counted(piece):
    stats = TransferStats()
    wire = b"0008ping0004000ahello!"
    stream = stats.observe(Script(wire + b"0000" + b"0005x", piece))
    stream.write([b"0006", b"hi"])
    assert totals(stats) == (2, 1, 0, 0)
    drain(stream)
    assert totals(stats) == (2, 1, 10, 3), "an empty packet counts; bytes after the flush do not"


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_malformed_bytes_are_not_counted(piece):
    stats = TransferStats()
    drain(stats.observe(Script(b"0005xzzzz0005y0005z", piece)))
    assert totals(stats) == (0, 0, 1, 1)


def test_an_incomplete_packet_counts_as_bytes_and_not_as_a_packet():
    stats = TransferStats()
    stats.observe(Script()).write([b"0009", b"hel"])
    assert totals(stats) == (3, 0, 0, 0)


def test_counts_are_the_sums_over_all_connections_and_ended_ones_count_once():
    stats = TransferStats()
    for _ in range(3):
        stream = stats.observe(Script(b"0005x0000"))
        stream.write([b"0006hi0000"])
        drain(stream)
        stream.shutdown()
        stream.close()
    still_open = stats.observe(Script())
    still_open.write([b"0005x"])
    assert totals(stats) == (7, 4, 3, 3)


def test_the_times_of_the_first_connection_and_byte_are_kept():
    stats = TransferStats()
    assert (stats.connected, stats.first_byte) == (None, None)
    stream = stats.observe(Script(b"0000"))
    assert 0 <= stats.connected <= stats.elapsed()
    assert stats.first_byte is None
    stream.write([b"0000"])
    assert stats.first_byte is None, "what is sent is no answer"
    drain(stream)
    first = stats.first_byte
    assert stats.connected <= first <= stats.elapsed()
    other = stats.observe(Script(b"0000"))
    drain(other)
    assert stats.first_byte == first
