"""The stream for systems other than Linux: on Linux, and on sockets that behave as XNU's.

tests/inprocess/test_streams.py has the tests that are the same for all streams.
"""

from __future__ import annotations

import _socket
import os
import socket
import threading

import pytest
from helpers.procfs import is_in_syscall
from helpers.streams import fill, read_all, write_all
from helpers.waiting import TIMEOUT, wait_until
from helpers.xnu import XnuSocket

from simpleipc_cli.deadline import Deadline
from simpleipc_cli.errors import PeerClosed, SipcError, TimedOut
from simpleipc_cli.transport.unix.portable_stream import PortableStream

SMALL = 4096  # bytes of a buffer in the kernel


@pytest.fixture(params=[_socket.socket, XnuSocket], ids=["linux", "xnu"])
def pair(request):
    """Both ends of a connection with small buffers."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    streams = [PortableStream(request.param(fileno=end.detach())) for end in ends]
    yield streams
    for stream in streams:
        stream.close()


class Running:
    """A call in a thread, and what it returns or raises."""

    def __init__(self, call, *arguments) -> None:
        self.result: object = None
        self._call, self._arguments = call, arguments
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call(*self._arguments)
        except SipcError as error:
            self.result = error

    def wait_until_it_sleeps(self) -> None:
        identity = self._thread.native_id
        wait_until(lambda: is_in_syscall(identity, "poll"), "the call to wait in poll(2)")

    def join(self) -> object:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        return self.result


def test_a_socket_is_made_non_blocking_whatever_its_mode_was(pair):
    for stream in pair:
        assert not os.get_blocking(stream.fileno())


def test_bytes_one_at_a_time_arrive_in_order(pair):
    one, other = pair
    data = os.urandom(3000)
    running = Running(lambda: [one.write([data[i : i + 1]]) for i in range(len(data))])
    found = b""
    while len(found) < len(data):
        buffer = bytearray(1)
        assert other.read(buffer, Deadline(TIMEOUT)) == 1
        found += buffer
    assert found == data
    assert running.join() == [1] * len(data)


def test_buffers_larger_than_the_sockets_are_written_in_parts(pair):
    one, other = pair
    data = os.urandom(100 * SMALL)
    running = Running(lambda: (write_all(one, data), one.shutdown()))
    assert read_all(other) == data
    running.join()


def test_a_write_sleeps_until_a_slow_reader_reads(pair):
    one, other = pair
    filled = fill(one)
    running = Running(one.write, [b"y" * 10])
    running.wait_until_it_sleeps()
    left = filled
    while left:
        left -= other.read(bytearray(left), Deadline(TIMEOUT))
    assert running.join() == 10
    buffer = bytearray(20)
    assert other.read(buffer, Deadline(TIMEOUT)) == 10
    assert buffer[:10] == b"y" * 10


def test_a_read_sleeps_until_a_slow_writer_writes(pair):
    one, other = pair
    for deadline in (Deadline(None), Deadline(3600)):
        running = Running(other.read, bytearray(10), deadline)
        running.wait_until_it_sleeps()
        one.write([b"abc"])
        assert running.join() == 3


def test_a_read_and_a_write_sleep_at_the_same_time(pair):
    one, other = pair
    filled = fill(one)
    writing = Running(one.write, [b"y"])
    reading = Running(one.read, bytearray(10), Deadline(None))
    writing.wait_until_it_sleeps()
    reading.wait_until_it_sleeps()
    other.write([b"abc"])
    assert reading.join() == 3
    left = filled + 1
    while left:
        left -= other.read(bytearray(left), Deadline(TIMEOUT))
    assert writing.join() == 1


@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_the_end_of_the_peer_ends_the_calls_that_sleep(pair, how):
    one, other = pair
    fill(one)
    writing = Running(one.write, [b"y"])
    reading = Running(one.read, bytearray(10), Deadline(None))
    writing.wait_until_it_sleeps()
    reading.wait_until_it_sleeps()
    getattr(other, how)()
    assert reading.join() == 0
    assert isinstance(writing.join(), PeerClosed)


def test_a_deadline_ends_a_read_that_sleeps_and_one_of_a_peer_that_never_stops(pair):
    one, other = pair
    with pytest.raises(TimedOut):
        other.read(bytearray(10), Deadline(0.01))
    write_all(one, b"more")
    with pytest.raises(TimedOut):
        other.read(bytearray(10), Deadline(0.0))


def test_a_write_that_must_not_wait_does_not_wait(pair):
    """On XNU, MSG_DONTWAIT alone would not prevent it."""
    one, _ = pair
    fill(one)
    for buffers in ([b"y"], [b"y", b"z"]):
        with pytest.raises(BlockingIOError):
            one.write_nowait(buffers)
