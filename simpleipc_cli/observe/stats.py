"""Count what passes connections, and when; cheap enough to be read while they are in use."""

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
    """Counts of one direction: payload in bytes, and complete packets without flushes."""

    __slots__ = ("packets", "payload")

    def __init__(self, payload: int = 0, packets: int = 0) -> None:
        self.payload = payload
        self.packets = packets

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.payload + other.payload, self.packets + other.packets)


class TransferStats:
    """Counts all connections together. Times are seconds since the start."""

    def __init__(self, started_at: float | None = None) -> None:
        """`started_at` is a time of the monotonic clock; None for now."""
        self._started_at = monotonic() if started_at is None else started_at
        self._lock = allocate_lock()
        self._open: set[_Counter] = set()
        self._closed = (Traffic(), Traffic())
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
        counter = _Counter(self)
        with self._lock:
            self._open.add(counter)
        return ObservedStream(stream, counter)

    def totals(self) -> tuple[Traffic, Traffic]:
        """Return what was sent and what was received until now."""
        with self._lock:
            sent, received = self._closed
            for counter in self._open:
                sent, received = sent + counter.sent.traffic, received + counter.received.traffic
        return sent, received

    def merge(self, counter: _Counter) -> None:
        """Add the counts of a closed connection, so that its counter can be freed."""
        with self._lock:
            if counter in self._open:
                self._open.remove(counter)
                sent, received = self._closed
                self._closed = (sent + counter.sent.traffic, received + counter.received.traffic)


class _Counter(StreamObserver):
    """Counts one connection."""

    def __init__(self, stats: TransferStats) -> None:
        self._stats = stats
        self.sent = _Direction()
        self.received = _Direction()

    def on_sent(self, data: memoryview) -> None:
        self.sent.feed(data)

    def on_received(self, data: memoryview) -> None:
        if self._stats.first_byte is None:
            self._stats.first_byte = self._stats.elapsed()
        self.received.feed(data)

    def on_close(self) -> None:
        self._stats.merge(self)


class _Direction:
    """Counts one direction, up to its flush or the first malformed packet."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._ended = False
        self.traffic = Traffic()

    def feed(self, data: memoryview) -> None:
        if self._ended:
            return
        decoder, traffic = self._decoder, self.traffic
        decoder.receive_data(data)
        try:
            while (event := decoder.next_event()) is not NEED_DATA:
                if event is FLUSH:
                    self._ended = True
                    return
                if isinstance(event, Data):
                    traffic.payload += len(event.payload)
                    traffic.packets += event.ends_packet
        except ProtocolError:
            self._ended = True
