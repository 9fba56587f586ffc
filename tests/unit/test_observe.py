"""An observed stream: it reports the bytes on the socket, and does not change them."""

from __future__ import annotations

import _socket
import socket
import threading

import pytest

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PeerClosed, TimedOut
from simpleipc_cli.observe import ObservedStream
from simpleipc_cli.transport.base import Stream
from simpleipc_cli.transport.unix.stream import UnixStream


class NotingStream(ObservedStream):
    """Records all events."""

    def __init__(self, stream) -> None:
        super().__init__(stream)
        self.sent = b""
        self.received = b""
        self.events: list[str] = []

    def on_sent(self, data: memoryview) -> None:
        assert isinstance(data, memoryview)
        assert data
        self.sent += data

    def on_received(self, data: memoryview) -> None:
        assert isinstance(data, memoryview)
        assert data
        self.received += data

    def on_eof(self) -> None:
        self.events.append("end")

    def on_write_error(self, reason: str) -> None:
        self.events.append(f"write error: {reason}")

    def on_close(self) -> None:
        self.events.append("close")


@pytest.fixture
def pair():
    """An observed stream that notes its events, and the other end."""
    ours, theirs = socket.socketpair()
    stream = UnixStream(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, ours.detach()))
    with theirs:
        theirs.settimeout(30)
        yield NotingStream(stream), theirs
        stream.close()


def receive(theirs: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += theirs.recv(size - len(data))
    return data


def test_an_observed_stream_has_all_methods_of_a_stream():
    assert set(Stream.__abstractmethods__) <= set(vars(ObservedStream))


def test_an_observed_stream_returns_the_peer_of_its_stream(pair):
    stream, _ = pair
    inner = stream._stream
    assert stream.fileno() == inner.fileno() >= 0
    assert vars_of(stream.peer()) == vars_of(inner.peer())


def vars_of(peer) -> tuple[int, int, int]:
    return peer.pid, peer.uid, peer.gid


def test_a_short_write_is_reported_with_only_the_written_bytes(pair):
    stream, theirs = pair
    buffers = [bytes([number]) * 30_000 for number in range(100)]
    whole = b"".join(buffers)
    count = stream.write_nowait(buffers)
    assert 0 < count < len(whole), "the socket took all: the test needs more"
    assert stream.sent == whole[:count]
    with pytest.raises(BlockingIOError):
        stream.write_nowait(buffers)
    assert stream.sent == whole[:count]
    assert receive(theirs, count) == whole[:count]
    assert stream.events == []


@pytest.mark.parametrize("size", [1, 4, 5, 9, 10])
def test_written_bytes_are_reported_across_buffers(size):
    class Short:
        def write(self, buffers):
            return size

    stream = NotingStream(Short())
    assert stream.write([b"0009", memoryview(b"hello"), bytearray(b"0000")]) == size
    assert stream.sent == b"0009hello0000"[:size]


def test_writes_that_wait_are_reported_when_they_end(pair):
    stream, theirs = pair
    payload = bytes(1_000_000)
    got = []
    reader = threading.Thread(target=lambda: got.append(receive(theirs, len(payload))))
    reader.start()
    left = memoryview(payload)
    while left:
        left = left[stream.write([left]) :]
    reader.join()
    assert stream.sent == payload == got[0]


@pytest.mark.parametrize("now", [False, True])
def test_reads_and_then_the_end_of_the_stream_are_reported(pair, now):
    stream, theirs = pair
    buffer = bytearray(b"-" * 100)

    def read() -> int:
        return stream.read_nowait(buffer) if now else stream.read(memoryview(buffer), Deadline(30))

    theirs.sendall(b"hello")
    assert stream.peek_nowait()
    assert stream.received == b"", "a peek is not reported"
    assert read() == 5
    assert buffer.startswith(b"hello-")
    assert stream.received == b"hello"
    theirs.close()
    assert read() == 0
    assert stream.events == ["end"]


def test_a_read_without_bytes_is_not_reported(pair):
    stream, _ = pair
    with pytest.raises(BlockingIOError):
        stream.read_nowait(bytearray(1))
    with pytest.raises(TimedOut):
        stream.read(bytearray(1), Deadline(0))
    with pytest.raises(BlockingIOError):
        stream.peek_nowait()
    assert (stream.received, stream.events) == (b"", [])


def test_a_refused_write_is_reported_and_raised(pair):
    stream, theirs = pair
    theirs.close()
    for write in (stream.write, stream.write_nowait):
        with pytest.raises(PeerClosed):
            write([b"x"])
    assert stream.sent == b""
    assert stream.events == ["write error: the peer has closed the connection"] * 2


def test_closing_is_reported_before_it_happens():
    """An end that a reading thread sees afterwards is not reported as the peer's."""

    class Felt:
        def shutdown(self) -> None:
            stream.events.append("felt")

        close = shutdown

    stream = NotingStream(Felt())
    stream.shutdown()
    stream.close()
    assert stream.events == ["close", "felt", "close", "felt"]


def test_close_and_shut_down_reach_the_observed_stream(pair):
    stream, theirs = pair
    stream.shutdown()
    assert stream.read(bytearray(1), Deadline(30)) == 0
    assert theirs.recv(1) == b""
    stream.close()
    assert stream.fileno() == -1
