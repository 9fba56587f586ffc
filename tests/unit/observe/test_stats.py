"""Counts of what went over connections."""

from __future__ import annotations

import sys
import threading

import pytest

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.observe.stats import TransferStats


class Script:
    """A stream that takes all bytes and returns given ones, in small pieces."""

    def __init__(self, wire: bytes = b"", piece: int = 1 << 20) -> None:
        self.wire = wire
        self.piece = piece

    def read(self, buffer, deadline) -> int:
        piece, self.wire = self.wire[: self.piece], self.wire[self.piece :]
        buffer[: len(piece)] = piece
        return len(piece)

    def write(self, buffers) -> int:
        return sum(map(len, buffers))

    def shut_down(self) -> None:
        pass

    close = shut_down


def amounts(meter: TransferStats) -> tuple[int, ...]:
    sent, received = meter.amounts()
    return sent.payload, sent.packets, received.payload, received.packets


def drain(stream) -> None:
    while stream.read(bytearray(1 << 20), Deadline(None)):
        pass


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_payload_and_packets_are_counted_and_nothing_else(piece):
    meter = TransferStats()
    wire = b"0008ping0004000ahello!"
    stream = meter.watch(Script(wire + b"0000" + b"0005x", piece))
    stream.write([b"0006", b"hi"])
    assert amounts(meter) == (2, 1, 0, 0)
    drain(stream)
    assert amounts(meter) == (2, 1, 10, 3), "an empty packet counts; bytes after the flush do not"


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_malformed_bytes_count_for_nothing(piece):
    meter = TransferStats()
    drain(meter.watch(Script(b"0005xzzzz0005y0005z", piece)))
    assert amounts(meter) == (0, 0, 1, 1)


def test_half_a_packet_is_its_bytes_and_no_packet():
    meter = TransferStats()
    meter.watch(Script()).write([b"0009", b"hel"])
    assert amounts(meter) == (3, 0, 0, 0)


def test_connections_are_counted_together_and_ended_ones_once():
    meter = TransferStats()
    for _ in range(3):
        stream = meter.watch(Script(b"0005x0000"))
        stream.write([b"0006hi0000"])
        drain(stream)
        stream.shut_down()
        stream.close()
    still_open = meter.watch(Script())
    still_open.write([b"0005x"])
    assert amounts(meter) == (7, 4, 3, 3)


def test_no_reference_is_kept_to_a_closed_connection():
    meter = TransferStats()
    stream = meter.watch(Script())
    watcher = stream._watcher
    before = sys.getrefcount(watcher)
    stream.close()
    assert sys.getrefcount(watcher) < before


def test_the_times_of_the_first_connection_and_byte_are_kept():
    meter = TransferStats()
    assert (meter.connected, meter.first_byte) == (None, None)
    stream = meter.watch(Script(b"0000"))
    assert 0 <= meter.connected <= meter.now()
    assert meter.first_byte is None
    stream.write([b"0000"])
    assert meter.first_byte is None, "what is sent is no answer"
    drain(stream)
    first = meter.first_byte
    assert meter.connected <= first <= meter.now()
    other = meter.watch(Script(b"0000"))
    drain(other)
    assert meter.first_byte == first


def test_many_threads_lose_nothing():
    meter = TransferStats()

    def work():
        for _ in range(50):
            stream = meter.watch(Script(b"0005x0000", 1))
            stream.write([b"0005y", b"0000"])
            drain(stream)
            stream.close()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert amounts(meter) == (400, 400, 400, 400)
