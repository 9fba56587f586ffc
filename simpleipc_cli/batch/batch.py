"""The whole of it: records are read, sent, answered and delivered, all in one thread.

What keeps it free of deadlock: every open answer is read, whether it has its turn or not and
whether the output takes it or not, so that no server has to wait for us to get on with another.
Only an exchange that is the only one in flight waits for the output itself, as nobody else is
kept waiting by that. What keeps it small: nothing is begun while there is no room for its answer,
and the input is only read for what can go on.
"""

from __future__ import annotations

from simpleipc_cli.batch.connector import Exchange
from simpleipc_cli.batch.output import OrderedOutput, OutputFailed, WriteBuffer
from simpleipc_cli.batch.records import END, NEED_DATA, RecordChunk, RecordSplitter
from simpleipc_cli.batch.reorder import BufferUsage
from simpleipc_cli.client import write_nowait_to
from simpleipc_cli.errors import SipcError, TimedOut
from simpleipc_cli.transport import READ, WRITE, new_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from simpleipc_cli.batch.connector import Connector
    from simpleipc_cli.batch.output import Sink
    from simpleipc_cli.deadline import Deadline

    class Source(Protocol):
        """Where the records come from."""

        name: str

        def fileno(self) -> int:
            """The descriptor to poll."""

        def read_nowait(self, limit: int) -> bytes:
            """What is there, `limit` bytes at most; empty at the end.

            Raises BlockingIOError if nothing is there, SipcError.
            """


BUFFER_SIZE = 64 * 1024
"""Bytes moved at once, each way; as much of a request may wait in memory for each exchange."""

WINDOW = 1000
"""Most answers, complete or not, that are held for the oldest among them; at will."""

MAX_WAITING = 1 << 30
"""Bytes of waiting answers from which on no record is begun, to be kind to the disk; at will."""


class Batch:
    """Sends every record of an input as a request of its own and delivers the answers in order."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        messages: Sink,
        entrance: Connector,
        *,
        separator: bytes,
        jobs: int,
        descriptors: int,
        spool_folder: str,
        deadline: Deadline,
        describe: Callable[[int, SipcError], bytes],
    ) -> None:
        """`jobs` exchanges at most are in flight at once, `descriptors` opened at most.

        When a record fails, what `describe` makes of its number and error goes to `messages`.
        The deadline is for everything.
        """
        self._source = source
        self._sink = sink
        self._messages = WriteBuffer(messages)
        self._entrance = entrance
        self._jobs = jobs
        self._descriptors = descriptors
        self._deadline = deadline
        self._describe = describe

        self._stock = BufferUsage(spool_folder)
        self._outlet = WriteBuffer(sink)
        self._output = OrderedOutput(self._outlet, self._stock, separator)

        self._cutter = RecordSplitter(separator)
        self._input_is_ready = False
        self._input_over = False
        self._begun = 0  # records
        self._inside = False  # a record has begun, and its last piece has not been told
        self._current: Exchange | None = None  # whose record that is, while it wants it

        self._exchanges: dict[int, Exchange] = {}  # all in flight, by number, so in order
        self._connected: dict[int, Exchange] = {}  # those of them that are, by descriptor
        self._paused: Exchange | None = None
        self._poller = new_poller()
        self._buffer = memoryview(bytearray(BUFFER_SIZE))
        self._first_failure: tuple[int, SipcError] | None = None

    def run(self) -> SipcError | None:
        """Do it all; the failure of the first record, by number, that has failed.

        Raises SipcError when the output cannot be written to, which is the end.
        """
        try:
            while self._advance():
                if self._deadline.passed():
                    self._give_up()
                    break
                self._wait()
            self._messages.drain()
        except OutputFailed as failed:
            self._messages.drain()
            raise failed.error from None
        finally:
            self._close()
        return None if self._first_failure is None else self._first_failure[1]

    def _advance(self) -> bool:
        """Let go on what can without waiting; False when all is done."""
        self._take_records()
        self._admit()
        self._output.pump()
        self._messages.flush()
        return not (self._input_over and not self._exchanges and self._output.idle)

    def _close(self) -> None:
        for exchange in self._connected.values():
            assert exchange.stream is not None  # noqa: S101
            exchange.stream.close()
        self._output.close()
        self._poller.close()

    # -- records in --------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether another record may be begun."""
        if self._outlet.stuck or self._messages.stuck:
            return False
        stock, in_flight = self._stock, len(self._exchanges)
        # Each may yet need two: for its connection, and for an answer out of turn.
        descriptors = stock.files + 2 * (in_flight + 1)
        return not self._output or (
            in_flight < self._jobs
            and len(self._output) < WINDOW
            and stock.size < MAX_WAITING
            and descriptors <= self._descriptors
        )

    def _may_take(self) -> bool:
        """Whether what comes next in the input can be used."""
        if self._input_over:
            return False
        if not self._inside:
            return self._has_room()
        current = self._current
        return current is None or not current.writer.pending

    def _take_records(self) -> None:
        """Take as much of the input as there is room for."""
        while self._may_take():
            event = self._cutter.next_event()
            if isinstance(event, RecordChunk):
                self._on_piece(event)
            elif event is END:
                self._input_over = True
            elif event is NEED_DATA:
                if not self._input_is_ready:
                    return
                self._read_input()

    def _read_input(self) -> None:
        self._input_is_ready = False
        try:
            data = self._source.read_nowait(BUFFER_SIZE)
        except BlockingIOError:
            return  # another program was faster
        except SipcError as error:
            self._on_broken_input(error)
            return
        if data:
            self._cutter.receive_data(data)
        else:
            self._cutter.end()

    def _on_piece(self, piece: RecordChunk) -> None:
        is_first = not self._inside
        if is_first:
            self._current = self._begin()
        self._inside = not piece.ends_record
        exchange = self._current
        if exchange is None:
            return  # answered or failed by now: the rest of its record is dropped
        exchange.writer.write(piece.payload)
        if piece.ends_record:
            exchange.writer.finish()
            self._current = None
        if is_first:
            self._entrance.join(exchange)
            self._admit()
        else:
            self._send(exchange)

    def _begin(self) -> Exchange:
        self._begun += 1
        exchange = Exchange(self._output.begin(self._begun))
        self._exchanges[self._begun] = exchange
        return exchange

    def _on_broken_input(self, error: SipcError) -> None:
        """The record that was being read stays without its end, and so does its request."""
        self._input_over = True
        if self._current is not None:
            self._fail(self._current, error)
        elif self._inside:
            self._note(self._begun, error)
        elif self._cutter.inside_record:
            self._fail(self._begin(), error)
        else:
            self._note(self._begun + 1, error)

    # -- exchanges ---------------------------------------------------------------------

    def _admit(self) -> None:
        """Let in whoever can be connected."""
        for exchange in self._entrance.admit(bool(self._connected)):
            if exchange.stream is not None:
                self._connected[exchange.stream.fileno()] = exchange
                self._send(exchange)
            elif exchange.trouble is not None:
                self._fail(exchange, exchange.trouble)

    def _send(self, exchange: Exchange) -> None:
        """Write what the connection takes."""
        stream = exchange.stream
        if stream is None:
            return
        try:
            still_read = write_nowait_to(stream, exchange.writer)
        except SipcError as error:
            self._fail(exchange, error)
            return
        if not still_read:  # but it may have answered before
            exchange.writer.drop()
        self._watch(exchange)

    def _watch(self, exchange: Exchange) -> None:
        """Tell the poller what the exchange waits for."""
        assert exchange.stream is not None  # noqa: S101
        wanted = WRITE if exchange.writer.pending else 0
        if exchange is not self._paused:
            wanted |= READ
        if wanted:
            self._poller.register(exchange.stream.fileno(), wanted)
        else:  # its hang-up would be told again and again
            self._poller.unregister(exchange.stream.fileno())

    def _receive(self, exchange: Exchange) -> None:
        """Take what has come of an answer."""
        assert exchange.stream is not None  # noqa: S101
        reader = exchange.reader
        try:
            count = exchange.stream.read_nowait(self._buffer)
            if not count:
                reader.end()
            for payload in reader.feed(self._buffer[:count]):
                self._output.deliver(exchange.answer, payload)
        except BlockingIOError:
            pass
        except SipcError as error:
            self._fail(exchange, error)
        else:
            if reader.complete:
                self._land(exchange)

    def _fail(self, exchange: Exchange, error: SipcError) -> None:
        """The end of one record's exchange; what came of its answer stays."""
        self._land(exchange)
        self._note(exchange.answer.number, error)

    def _land(self, exchange: Exchange) -> None:
        """Hang up. What is not sent of the request is dropped."""
        exchange.answer.complete = True
        del self._exchanges[exchange.answer.number]
        if exchange is self._current:
            self._current = None
        if exchange is self._paused:
            self._paused = None
        stream = exchange.stream
        if stream is not None:
            del self._connected[stream.fileno()]
            self._poller.unregister(stream.fileno())
            stream.close()
            self._entrance.hurry()

    def _note(self, number: int, error: SipcError) -> None:
        """Tell of a failure, and remember the first by number."""
        self._messages.add(self._describe(number, error))
        if self._first_failure is None or number < self._first_failure[0]:
            self._first_failure = number, error

    # -- waiting -----------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for whatever can go on next, and let it."""
        self._pause_or_resume()
        may_take = self._may_take()
        if may_take and self._cutter.has_more:
            return
        source, sink, messages = self._source, self._sink, self._messages
        self._want(source.fileno(), READ if may_take else 0)
        self._want(sink.fileno(), WRITE if self._outlet else 0)
        self._want(messages.sink.fileno(), WRITE if messages else 0)
        for descriptor, what in self._poller.wait(self._time_left()):
            if descriptor == source.fileno():
                self._input_is_ready = True
            elif descriptor in self._connected:
                self._on_stream(self._connected[descriptor], what)

    def _want(self, descriptor: int, wanted: int) -> None:
        if wanted:
            self._poller.register(descriptor, wanted)
        else:
            self._poller.unregister(descriptor)

    def _time_left(self) -> float | None:
        times = (self._entrance.time_left(), self._deadline.remaining())
        return min((time for time in times if time is not None), default=None)

    def _on_stream(self, exchange: Exchange, what: int) -> None:
        if exchange.writer.pending:
            self._send(exchange)
        is_open = exchange.answer.number in self._exchanges
        if is_open and what & ~WRITE and exchange is not self._paused:
            self._receive(exchange)

    def _pause_or_resume(self) -> None:
        """The last exchange in flight waits for the output; see the module's first paragraph."""
        before, self._paused = self._paused, None
        if self._outlet.stuck and len(self._exchanges) == 1 == len(self._connected):
            (self._paused,) = self._connected.values()
        if self._paused is not before:
            for changed in (before, self._paused):
                if changed is not None:
                    self._watch(changed)

    # -- out of time -------------------------------------------------------------------

    def _give_up(self) -> None:
        """The time for everything is over: what is complete is delivered, the rest fails."""
        if self._exchanges:
            for exchange in list(self._exchanges.values()):
                connecting = exchange.trouble if exchange.stream is None else None
                self._fail(exchange, connecting or TimedOut("no complete answer in time"))
        elif self._may_take():
            nobody = None if self._begun else self._entrance.try_once()
            late = TimedOut(f"nothing more came from {self._source.name} in time")
            self._note(self._begun + 1, nobody or late)
        self._output.pump()
        if self._output.oldest is not None or self._outlet:
            late = TimedOut("the output did not take the answers in time")
            self._note(self._output.oldest or self._begun, late)
