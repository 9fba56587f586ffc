"""How much went over connections, and when; cheap enough to look at while it goes on."""

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
    """Of one direction: bytes of payload, and whole packets, flushes not counted."""

    __slots__ = ("packets", "payload")

    def __init__(self, payload: int = 0, packets: int = 0) -> None:
        """Nothing yet."""
        self.payload = payload
        self.packets = packets

    def __add__(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(self.payload + other.payload, self.packets + other.packets)


class TransferStats:
    """Counts all connections together. Times are seconds from the start."""

    def __init__(self, began: float | None = None) -> None:
        """`began` is the start on the monotonic clock, now if there was none."""
        self._began = monotonic() if began is None else began
        self._lock = allocate_lock()
        self._open: set[_Counter] = set()
        self._done = (Traffic(), Traffic())
        self.connected: float | None = None
        """When the first connection was there."""
        self.first_byte: float | None = None
        """When the first byte was received."""

    def now(self) -> float:
        """Seconds since the start."""
        return monotonic() - self._began

    def watch(self, stream: Stream) -> Stream:
        """The stream to use from now on."""
        if self.connected is None:
            self.connected = self.now()
        counter = _Counter(self)
        with self._lock:
            self._open.add(counter)
        return ObservedStream(stream, counter)

    def amounts(self) -> tuple[Traffic, Traffic]:
        """What was sent, and what was received, so far."""
        with self._lock:
            sent, received = self._done
            for counter in self._open:
                sent, received = sent + counter.went.amount, received + counter.came.amount
        return sent, received

    def merge_totals(self, counter: _Counter) -> None:
        """A connection has ended: keep its sums alone, however many there will be."""
        with self._lock:
            if counter in self._open:
                self._open.remove(counter)
                sent, received = self._done
                self._done = (sent + counter.went.amount, received + counter.came.amount)


class _Counter(StreamObserver):
    """Counts one connection."""

    def __init__(self, meter: TransferStats) -> None:
        self._meter = meter
        self.went = _Direction()
        self.came = _Direction()

    def sent(self, piece: memoryview) -> None:
        self.went.feed(piece)

    def received(self, piece: memoryview) -> None:
        if self._meter.first_byte is None:
            self._meter.first_byte = self._meter.now()
        self.came.feed(piece)

    def hung_up(self) -> None:
        self._meter.merge_totals(self)


class _Direction:
    """One direction of a connection; what is malformed, or behind the flush, is not counted."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._over = False
        self.amount = Traffic()

    def feed(self, piece: memoryview) -> None:
        if self._over:
            return
        decoder, amount = self._decoder, self.amount
        decoder.receive_data(piece)
        try:
            while (event := decoder.next_event()) is not NEED_DATA:
                if event is FLUSH:
                    self._over = True
                    return
                if isinstance(event, Data):
                    amount.payload += len(event.payload)
                    amount.packets += event.ends_packet
        except ProtocolError:
            self._over = True
