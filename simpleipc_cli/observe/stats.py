"""Count what passes connections, and when; to be read while they are in use."""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from simpleipc_cli.errors import ProtocolError
from simpleipc_cli.observe.observer import ObservedStream, StreamObserver
from simpleipc_cli.pktline import FLUSH, NEED_DATA, Data, Decoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.transport import Stream


class Traffic:
    """Counts of one direction, of all connections."""

    __slots__ = ("_lock", "packets", "payload")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self.payload = 0
        """Bytes."""
        self.packets = 0
        """Complete packets, without flushes."""

    def add(self, payload: int, packets: int) -> None:
        with self._lock:
            self.payload += payload
            self.packets += packets


class TransferStats:
    """Counts all connections together. Times are seconds since the start."""

    def __init__(self, started_at: float | None = None) -> None:
        """`started_at` is a time of the monotonic clock; None for now."""
        self._started_at = monotonic() if started_at is None else started_at
        self.sent = Traffic()
        self.received = Traffic()
        self.connected: float | None = None
        """Time of the first connection."""
        self.first_byte: float | None = None
        """Time of the first byte received."""

    def elapsed(self) -> float:
        return monotonic() - self._started_at

    def observe(self, stream: Stream) -> Stream:
        """Return the stream to use instead of `stream`, which is counted."""
        if self.connected is None:
            self.connected = self.elapsed()
        return ObservedStream(stream, _Counter(self))


class _Counter(StreamObserver):
    """Counts one connection."""

    def __init__(self, stats: TransferStats) -> None:
        self._stats = stats
        self._sent = _Direction(stats.sent)
        self._received = _Direction(stats.received)

    def on_sent(self, data: memoryview) -> None:
        self._sent.feed(data)

    def on_received(self, data: memoryview) -> None:
        if self._stats.first_byte is None:
            self._stats.first_byte = self._stats.elapsed()
        self._received.feed(data)


class _Direction:
    """Counts one direction, up to its flush or the first malformed packet."""

    def __init__(self, traffic: Traffic) -> None:
        self._decoder = Decoder()
        self._has_ended = False
        self._traffic = traffic

    def feed(self, data: memoryview) -> None:
        if self._has_ended:
            return
        payload = packets = 0
        self._decoder.receive_data(data)
        try:
            while (event := self._decoder.next_event()) is not NEED_DATA:
                if event is FLUSH:
                    self._has_ended = True
                    break
                if isinstance(event, Data):
                    payload += len(event.payload)
                    packets += event.ends_packet
        except ProtocolError:
            self._has_ended = True
        self._traffic.add(payload, packets)
