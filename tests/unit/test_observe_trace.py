"""The lines of a trace, for bytes that arrive in any slices."""

from __future__ import annotations

import _socket
import os
import re
import socket
import threading
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PeerClosed
from simpleipc_cli.observe import MAX_PAYLOAD_SHOWN, Tracer
from simpleipc_cli.transport import Peer
from simpleipc_cli.transport.unix.stream import UnixStream

FULL = b"fff0" + b"x" * 65516


class Script:
    """A stream that accepts all bytes, and returns given ones."""

    def __init__(self) -> None:
        self.next = b""
        self.gone = False

    def peer(self) -> Peer:
        return Peer(7, 8, 9)

    def read(self, buffer, deadline) -> int:
        buffer[: len(self.next)] = self.next
        return len(self.next)

    def write(self, buffers) -> int:
        if self.gone:
            raise PeerClosed("the peer has closed the connection")
        return sum(map(len, buffers))

    write_nowait = write

    def shutdown(self) -> None:
        pass

    close = shutdown


class Lines:
    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


class Traced:
    """A traced script, and the lines without time and name."""

    def __init__(self, path: str = "/sock") -> None:
        self.raw: list[str] = []
        self.script = Script()
        tracer = Tracer(Lines(self.raw))
        self.stream = tracer.observe(self.script, "12-1", "connected to", path)

    @property
    def lines(self) -> list[str]:
        found = [re.fullmatch(r"\S+ 12-1 (.*)", line) for line in self.raw]
        assert all(found), self.raw
        return [match[1] for match in found]

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.script.next = piece
            assert self.stream.read(bytearray(len(piece)), Deadline(None)) == len(piece)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            assert self.stream.write([piece]) == len(piece)


def slices(wire: bytes, how: str) -> list[bytes]:
    if how == "whole":
        return [wire]
    size = 1 if how == "byte by byte" else 7
    return [wire[at : at + size] for at in range(0, len(wire), size)]


each_slicing = pytest.mark.parametrize("how", ["whole", "byte by byte", "by seven"])

WIRES = {
    "a message": (
        b"0008ping0000",
        ['0008 (8 bytes): "ping"', "0000: flush"],
    ),
    "an empty message": (b"0000", ["0000: flush"]),
    "an empty packet": (b"00040000", ["0004 (4 bytes): empty", "0000: flush"]),
    "upper-case lengths": (b"000Ahello!0000", ['000a (10 bytes): "hello!"', "0000: flush"]),
    "hostile payload": (
        b'0016\n> "\\\x1b[2J\xe2\x80\xae\r\0ab\x7fc',
        [r'0016 (22 bytes): "\n> \"\\\x1b[2J\xe2\x80\xae\r\x00ab\x7fc"'],
    ),
    "as much as is shown": (
        b"0084" + b"y" * 128,
        [f'0084 (132 bytes): "{"y" * 128}"'],
    ),
    "more than is shown": (
        b"0085" + b"y" * 129,
        [f'0085 (133 bytes): "{"y" * 128}" and 1 left out'],
    ),
    "a full packet": (
        FULL,
        [f'fff0 (65520 bytes): "{"x" * 128}" and 65388 left out'],
    ),
    "bytes after the flush": (
        b"00000006hi0000",
        [
            "0000: flush",
            '0006 (6 bytes) after the flush: "hi"',
            "0000 after the flush: flush",
        ],
    ),
}


@each_slicing
@pytest.mark.parametrize(("wire", "expected"), WIRES.values(), ids=WIRES)
def test_every_packet_has_a_line(wire, expected, how):
    traced = Traced()
    traced.receive(*slices(wire, how))
    traced.send(*slices(wire, how))
    assert traced.lines == [
        '= connected to "/sock": pid=7 uid=8 gid=9',
        *(f"< received {line}" for line in expected),
        *(f"> sent {line}" for line in expected),
    ]


MALFORMED = {
    "not hex": (b"0005xzzzz", "bad packet length 'zzzz' at byte 5"),
    "a delim": (b"0005x0001", "a delim packet (0001) at byte 5"),
    "too long": (b"0005xfff1", "packet length 'fff1' at byte 5"),
    "escapes": (b"0005x\x1b[2J", r"bad packet length '\x1b[2J' at byte 5"),
}


@each_slicing
@pytest.mark.parametrize(("wire", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_bytes_are_reported_and_later_bytes_shown(wire, expected, how):
    traced = Traced()
    traced.receive(*slices(wire, how))
    assert traced.lines[1] == '< received 0005 (5 bytes): "x"'
    assert traced.lines[2].startswith(f"< received malformed: {expected}")
    traced.receive(b"\x1bmore")
    assert traced.lines[3:] == [r'< received not decoded (5 bytes): "\x1bmore"']
    traced.receive(b"")
    traced.stream.close()
    assert traced.lines[4:] == [
        "< received end of stream",
        f"= closed: sent bytes=0 packets=0, received bytes={len(wire) + 5} packets=1",
    ]


def test_bytes_after_malformed_ones_in_the_same_read_are_shortened():
    traced = Traced()
    traced.receive(b"zzzz" + b"y" * 1000)
    assert traced.lines[2] == (
        f'< received not decoded (1000 bytes): "{"y" * MAX_PAYLOAD_SHOWN}"'
        f" and {1000 - MAX_PAYLOAD_SHOWN} left out"
    )


STOPS = {
    "before the first byte": (b"", "without a flush, after 0 bytes"),
    "between packets": (b"0005x", "without a flush, after 5 bytes"),
    "inside a length": (b"0005x00", "inside a packet's length, after 7 bytes"),
    "after a length": (b"0005x0009", "inside a packet of 9 bytes, 5 missing, after 9 bytes"),
    "inside a payload": (b"0005x0009hel", "inside a packet of 9 bytes, 2 missing, after 12 bytes"),
    "inside a packet after the flush": (
        b"00000009h",
        "inside a packet of 9 bytes after the flush, 4 missing, after 9 bytes",
    ),
}


@each_slicing
@pytest.mark.parametrize(("wire", "expected"), STOPS.values(), ids=STOPS)
def test_a_truncated_message_is_reported_with_its_offset(wire, expected, how):
    traced = Traced()
    traced.receive(*slices(wire, how))
    before = len(traced.lines)
    traced.receive(b"")
    assert traced.lines[before:] == [f"< received truncated: end of stream {expected}"]


@each_slicing
@pytest.mark.parametrize(("wire", "expected"), list(STOPS.values())[1:], ids=list(STOPS)[1:])
def test_a_message_that_is_sent_unfinished_is_reported(wire, expected, how):
    traced = Traced()
    traced.send(*slices(wire, how))
    before = len(traced.lines)
    traced.stream.shutdown()
    traced.stream.close()
    assert traced.lines[before] == f"> sent unfinished: {expected}"
    assert traced.lines[before + 1].startswith(f"= closed: sent bytes={len(wire)} ")
    assert len(traced.lines) == before + 2, "closed is said once"


def test_closing_the_stream_is_not_reported_as_the_end_of_the_peer():
    traced = Traced()
    traced.stream.shutdown()
    traced.receive(b"")
    assert traced.lines[1:] == ["= closed: sent bytes=0 packets=0, received bytes=0 packets=0"]


def test_an_end_after_a_complete_message_is_not_reported_as_a_truncated_message():
    traced = Traced()
    traced.receive(b"0000", b"")
    assert traced.lines[2:] == ["< received end of stream"]


def test_a_refused_write_has_a_line():
    traced = Traced()
    traced.script.gone = True
    with pytest.raises(PeerClosed):
        traced.stream.write([b"0000"])
    assert traced.lines[1:] == ["> not sent: the peer has closed the connection"]


def test_bytes_received_before_closing_are_still_reported():
    traced = Traced()
    traced.stream.shutdown()
    traced.send(b"0005x")
    assert traced.lines[-1] == '> sent 0005 (5 bytes): "x"'


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_the_time_is_local_with_its_zone_to_the_microsecond(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        before = datetime.now().astimezone()
        expected = Traced().raw[0].split(" ", 1)[0]
        after = datetime.now().astimezone()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d", expected)
    assert before <= datetime.fromisoformat(expected) <= after
    assert datetime.fromisoformat(expected).utcoffset() == before.utcoffset()


@pytest.mark.parametrize("path", ["x" * 4000, "\udcff" * 4000, "\n\u202e" * 900])
def test_no_line_is_longer_than_an_atomic_write_to_a_pipe(path):
    traced = Traced(path)
    traced.receive(b"0fa4" + os.urandom(4000), b"\xff\xff\xff\xff" + b"\xff" * 9000)
    assert max(map(len, traced.raw)) < 4096
    assert all(line.isascii() and line.isprintable() for line in traced.raw)
    assert '"...: pid=7' in traced.raw[0]


@given(st.binary(max_size=400), st.lists(st.integers(1, 20), max_size=40))
def test_any_bytes_in_any_slices_give_the_same_lines_and_never_an_error(wire, cuts):
    whole, sliced = Traced(), Traced()
    whole.receive(wire)
    pieces, rest = [], wire
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    sliced.receive(*filter(None, [*pieces, rest]))
    for traced in (whole, sliced):
        traced.receive(b"")
        traced.stream.close()

    def decoded(lines):
        return [line for line in lines if "not decoded" not in line]

    if wire:
        assert decoded(whole.lines) == decoded(sliced.lines)


@pytest.fixture
def pair():
    """A traced socket and the other end, which is small."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream = UnixStream(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, ours.detach()))
    lines: list[str] = []
    with theirs:
        theirs.settimeout(30)
        yield Tracer(Lines(lines)).observe(stream, "1-1", "connected to", ""), theirs, lines
        stream.close()


def write_all(stream, wire: bytes) -> threading.Thread:
    """Another thread that writes, and waits for room."""

    def work() -> None:
        left = memoryview(wire)
        try:
            while left:
                left = left[stream.write([left]) :]
        except PeerClosed:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_write_that_waits_for_room_is_reported_in_full(pair):
    stream, theirs, lines = pair
    wire = FULL * 20 + b"0000"
    thread = write_all(stream, wire)
    received = b""
    while len(received) < len(wire):
        received += theirs.recv(1 << 20)
    thread.join()
    assert received == wire
    assert len(lines) == 22
    assert lines[-1].endswith("> sent 0000: flush")


@pytest.mark.parametrize("closer", ["we", "the other end"])
def test_a_write_that_waits_for_room_ends_when_one_end_closes(pair, closer):
    stream, theirs, lines = pair
    thread = write_all(stream, FULL * 20)
    assert theirs.recv(1) == b"f", "it has begun"
    if closer == "we":
        stream.shutdown()
    else:
        theirs.close()
    thread.join(30)
    assert not thread.is_alive()
    if closer == "the other end":
        assert lines[-1].endswith("> not sent: the peer has closed the connection")
