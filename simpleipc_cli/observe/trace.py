"""A trace: a line for every packet that went over a connection, either way.

    2025-11-22T13:45:01.123456+01:00 4711-1 = connected to "/run/sock": pid=99 uid=0 gid=0
    2025-11-22T13:45:01.123470+01:00 4711-1 > sent 0008 (8 bytes): "ping"
    2025-11-22T13:45:01.123481+01:00 4711-1 > sent 0000: flush
    2025-11-22T13:45:01.124002+01:00 4711-1 < received fff0 (65520 bytes): "aa" and 65514 left out
    2025-11-22T13:45:01.124015+01:00 4711-1 < received cut off: end of stream without a flush ...
    2025-11-22T13:45:01.124031+01:00 4711-1 = closed: sent bytes=12 packets=1, received ...

The time is local: right before the packet's last byte was given to the system, or right
after it was taken from it. So what one end sent stands before what the other received, if
both are traced. The length is the packet's, as on the wire. A line stays below LONGEST_LINE,
so that lines of programs that write to one file or pipe do not mix.
"""

from __future__ import annotations

from _thread import allocate_lock
from datetime import datetime

from simpleipc_cli.errors import ProtocolError
from simpleipc_cli.observe.observer import ObservedStream, StreamObserver
from simpleipc_cli.pktline import FLUSH, HEADER_SIZE, NEED_DATA, Data, Decoder
from simpleipc_cli.text import quoted
from simpleipc_cli.transport import WRITE, Poller, new_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simpleipc_cli.pktline import Buffer
    from simpleipc_cli.transport import Stream

PAYLOAD_SHOWN = 128
"""Bytes of a packet's payload that are shown, at will."""

MAX_LINE = 4096
"""Bytes, the newline included: as many a pipe takes in one piece (PIPE_BUF of Linux)."""

_PATH_SHOWN = 512  # bytes of a path, each of which may become four: well below LONGEST_LINE


class Tracer:
    """Makes traces of connections, all into one place."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """`write` takes a line without its newline, from any thread; it may not raise."""
        self._write = write

    def watch(self, stream: Stream, name: str, event: str, path: str) -> Stream:
        """The stream to use from now on.

        `name` is one word, this connection's own; `event` ("connected to") and `path` say what
        it is.
        """
        trace = _Trace(self._write, name)
        raw = path.encode("utf-8", "surrogateescape")
        shown = quoted(raw[:_PATH_SHOWN]) + ("..." if len(raw) > _PATH_SHOWN else "")
        peer = stream.peer()
        trace.tell(f"= {event} {shown}: pid={peer.pid} uid={peer.uid} gid={peer.gid}")
        return _TracedStream(stream, trace)


class _TracedStream(ObservedStream):
    """Keeps cause and effect in order: an answer is not told before what it answers.

    It could be where one thread writes and another reads, as what was sent is told after it
    was. So what is read waits to be told while somebody writes, and whoever writes does not
    wait for room meanwhile.
    """

    __slots__ = ("_order", "_poller", "_trace")

    def __init__(self, stream: Stream, trace: _Trace) -> None:
        super().__init__(stream, trace)
        self._trace = trace
        self._order = allocate_lock()
        self._poller: Poller | None = None

    def _was_read(self, buffer: Buffer, count: int) -> int:
        with self._order:
            return super()._was_read(buffer, count)

    def write(self, buffers: Sequence[Buffer]) -> int:
        while True:
            try:
                return self.write_nowait(buffers)
            except BlockingIOError:
                self._wait_for_room()

    def write_nowait(self, buffers: Sequence[Buffer]) -> int:
        with self._order:
            self._trace.before_send()
            return super().write_nowait(buffers)

    def _wait_for_room(self) -> None:
        if self._poller is None:
            self._poller = new_poller()
            self._poller.register(self.fileno(), WRITE)
        self._poller.wait(None)


class _Trace(StreamObserver):
    """One connection's."""

    def __init__(self, write: Callable[[str], None], name: str) -> None:
        self._write = write
        self._name = name
        self._sent = _Direction(self._tell_sent, "> sent")
        self._received = _Direction(self.tell, "< received")
        self._last_write = datetime.now().astimezone()
        self._over = False

    def tell(self, text: str) -> None:
        self._tell_at(datetime.now().astimezone(), text)

    def _tell_sent(self, text: str) -> None:
        self._tell_at(self._last_write, text)

    def _tell_at(self, time: datetime, text: str) -> None:
        self._write(f"{time.isoformat(timespec='microseconds')} {self._name} {text}")

    def before_send(self) -> None:
        self._last_write = datetime.now().astimezone()

    def sent(self, piece: memoryview) -> None:
        self._sent.feed(piece)

    def received(self, piece: memoryview) -> None:
        self._received.feed(piece)

    def end_received(self) -> None:
        if not self._over:  # else it was us who ended it
            self._received.end()

    def refused(self, why: str) -> None:
        if not self._over:
            self._tell_sent(f"> not sent: {why}")

    def hung_up(self) -> None:
        if self._over:
            return
        self._over = True
        self._last_write = datetime.now().astimezone()
        for direction in (self._sent, self._received):
            direction.give_up()
        self.tell(f"= closed: sent {self._sent.count}, received {self._received.count}")


class _Direction:
    """What goes one way, packet by packet."""

    def __init__(self, tell: Callable[[str], None], mark: str) -> None:
        self._tell = tell
        self._mark = mark
        self._decoder = Decoder()
        self._length = 0  # of the packet that is coming; 0 between packets
        self._begin = bytearray()  # of its payload
        self._complete = False  # the flush has come
        self._known = True  # it has been told how this direction ended, or nothing is to be told
        self._broken = False
        self._bytes = 0
        self._packets = 0

    @property
    def count(self) -> str:
        """How much it was; flushes are no packets here."""
        return f"bytes={self._bytes} packets={self._packets}"

    def feed(self, piece: memoryview) -> None:
        """Tell of what these bytes complete."""
        self._bytes += len(piece)
        if self._broken:
            self._tell_unknown(piece)
            return
        decoder = self._decoder
        decoder.receive_data(piece)
        self._known = False
        try:
            while (event := decoder.next_event()) is not NEED_DATA:
                if event is FLUSH:
                    self._tell(f"{self._mark} 0000{self._place}: flush")
                    self._complete = True
                elif isinstance(event, Data):
                    self._take(event)
        except ProtocolError as error:
            self._broken = self._known = True
            self._tell(f"{self._mark} malformed{self._place}: {error}")
            self._tell_unknown(piece[len(piece) - decoder.unread :])

    def _take(self, event: Data) -> None:
        """A part of a packet, told once it is whole."""
        payload = event.payload
        if not self._length:
            self._length = HEADER_SIZE + len(payload) + self._decoder.missing
        room = PAYLOAD_SHOWN - len(self._begin)
        if room > 0:
            self._begin += payload[:room]
        if event.ends_packet:
            self._packets += 1
            length, self._length = self._length, 0
            shown = _cut(self._begin, length - HEADER_SIZE) if self._begin else "empty"
            self._begin.clear()
            self._tell(f"{self._mark} {length:04x} ({length} bytes){self._place}: {shown}")

    def _tell_unknown(self, piece: memoryview) -> None:
        """Behind something malformed nobody knows where packets begin."""
        if piece:
            shown = _cut(piece[:PAYLOAD_SHOWN], len(piece))
            self._tell(f"{self._mark} not understood ({len(piece)} bytes): {shown}")

    def end(self) -> None:
        """The stream has ended."""
        if self._broken or (self._complete and not self._decoder.inside_packet):
            self._tell(f"{self._mark} end of stream")
        else:
            self._tell(f"{self._mark} cut off: end of stream {self._where}")
        self._known = True

    def give_up(self) -> None:
        """Nothing more will be sent or received here: name a message that is not complete."""
        if not self._known and (not self._complete or self._decoder.inside_packet):
            self._tell(f"{self._mark} unfinished: {self._where}")

    @property
    def _place(self) -> str:
        return " behind the flush" if self._complete else ""

    @property
    def _where(self) -> str:
        """Where in the message it stopped."""
        missing = self._decoder.missing
        if missing:
            length = self._length or HEADER_SIZE + missing
            where = f"inside a packet of {length} bytes{self._place}, {missing} missing"
        elif self._decoder.inside_packet:
            where = f"inside a packet's length{self._place}"
        else:
            where = "without a flush"
        return f"{where}, after {self._bytes} bytes"


def _cut(begin: bytes | bytearray | memoryview, size: int) -> str:
    """Bytes of which there are `size` in all."""
    left = size - len(begin)
    return quoted(begin) + (f" and {left} left out" if left else "")
