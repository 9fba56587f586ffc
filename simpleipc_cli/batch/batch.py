"""The event loop of `send --lines`: reads and sends records, receives and writes responses.

It cannot deadlock: it reads all responses at once, even out of order and while the output is
blocked, so that no server waits for another exchange. If only one exchange is in flight, it waits
for the output, as no other exchange depends on it. Memory is limited: a record is sent only if
there is space for its response, and input is read only when it can be sent.
"""

from __future__ import annotations

from simpleipc_cli.batch.connector import RecordExchange
from simpleipc_cli.batch.reorder import BufferUsage, OrderedOutput, OutputFailed, WriteBuffer
from simpleipc_cli.errors import SipcError, TimedOut
from simpleipc_cli.transport import READ, WRITE, new_poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from simpleipc_cli.batch.connector import Connector
    from simpleipc_cli.batch.reorder import Sink
    from simpleipc_cli.deadline import Deadline

    class Source(Protocol):
        """The source of the records."""

        name: str

        def fileno(self) -> int:
            """Return the descriptor to poll."""

        def read_nowait(self, limit: int) -> bytes:
            """Return at most `limit` bytes; empty at the end.

            Raises BlockingIOError if nothing is available, SipcError.
            """


BUFFER_SIZE = 64 * 1024
"""Maximum number of bytes per read or write, and of a request in memory."""

MAX_HELD = 64 * 1024
"""An incomplete record of at least this size, a full packet, is returned in pieces."""

MAX_RESPONSES = 1000
"""Maximum number of responses from the oldest incomplete one on (tunable)."""

MAX_WAITING = 1 << 30
"""No record is started while more bytes of responses wait, to limit disk use (tunable)."""


class Batch:
    """Sends each record of an input as a request, and writes the responses in order."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        messages: Sink,
        connector: Connector,
        *,
        separator: bytes,
        jobs: int,
        descriptors: int,
        spool_folders: Sequence[str],
        deadline: Deadline,
        describe: Callable[[int, SipcError], bytes],
    ) -> None:
        """At most `jobs` exchanges are in flight, and at most `descriptors` descriptors are open.

        When a record fails, `describe(number, error)` is written to `messages`. The deadline
        applies to the whole batch.
        """
        self._source = source
        self._messages = WriteBuffer(messages)
        self._connector = connector
        self._jobs = jobs
        self._max_descriptors = descriptors
        self._deadline = deadline
        self._describe = describe

        self._usage = BufferUsage(*spool_folders)
        self._buffer = WriteBuffer(sink)
        self._output = OrderedOutput(self._buffer, self._usage, separator)

        self._splitter = RecordSplitter(separator)
        self._input_is_ready = False
        self._input_ended = False
        self._started = 0  # number of started records
        self._inside = False  # whether the last chunk of a started record is missing
        self._current: RecordExchange | None = None  # while it accepts chunks of its record

        self._exchanges: dict[int, RecordExchange] = {}  # all, by record number, in order
        self._connected: dict[int, RecordExchange] = {}  # by descriptor
        self._paused: RecordExchange | None = None
        self._poller = new_poller()
        self._read_buffer = memoryview(bytearray(BUFFER_SIZE))
        self._first_failure: tuple[int, SipcError] | None = None

    def run(self) -> SipcError | None:
        """Process the whole input; return the error of the failed record with the lowest number.

        Raises SipcError if the output cannot be written to.
        """
        try:
            while self._advance():
                if self._deadline.expired():
                    self._abort()
                    break
                self._wait()
            self._messages.flush()
        except OutputFailed as failed:
            self._messages.flush()
            raise failed.error from None
        finally:
            self._close()
        return None if self._first_failure is None else self._first_failure[1]

    def _advance(self) -> bool:
        """Do all work that is possible without waiting; return False at the end of the batch."""
        self._read_records()
        self._connect_ready()
        self._output.write_nowait()
        self._messages.flush_nowait()
        return not (self._input_ended and not self._exchanges and self._output.is_idle)

    def _close(self) -> None:
        for exchange in self._connected.values():
            if exchange.stream is not None:
                exchange.stream.close()
        self._output.close()
        self._poller.close()

    # -- input -------------------------------------------------------------------------

    def _has_space(self) -> bool:
        """Return whether another record may be started."""
        if self._buffer.is_full or self._messages.is_full:
            return False
        usage, in_flight, responses = self._usage, len(self._exchanges), self._output.responses
        # An exchange may need two: for its connection, and for the spool of its response.
        descriptors = usage.files + 2 * (in_flight + 1)
        return not responses or (
            in_flight < self._jobs
            and len(responses) < MAX_RESPONSES
            and usage.size < MAX_WAITING
            and descriptors <= self._max_descriptors
        )

    def _wants_input(self) -> bool:
        """Return whether the next chunk can be sent."""
        if self._input_ended:
            return False
        if not self._inside:
            return self._has_space()
        return self._current is None or not self._current.pending

    def _read_records(self) -> None:
        """Read as much of the input as can be sent."""
        while self._wants_input():
            chunk = self._splitter.next_chunk()
            if chunk is not None:
                self._on_chunk(*chunk)
            elif self._splitter.input_ended:
                self._input_ended = True
            elif self._input_is_ready:
                self._read_input()
            else:
                return

    def _read_input(self) -> None:
        self._input_is_ready = False
        try:
            self._splitter.feed(self._source.read_nowait(BUFFER_SIZE))
        except BlockingIOError:
            pass  # another process has read it
        except SipcError as error:
            self._on_input_error(error)

    def _on_chunk(self, payload: bytes, ends_record: bool) -> None:
        is_first = not self._inside
        self._inside = not ends_record
        if is_first:
            self._current = self._new_exchange()
        exchange = self._current
        if exchange is None:
            return  # already answered or failed: the rest of its record is dropped
        exchange.writer.write(payload)
        if ends_record:
            exchange.writer.finish()
            self._current = None
        if is_first:
            self._connector.enqueue(exchange)
            self._connect_ready()
        elif exchange.stream is not None:
            self._send(exchange)

    def _new_exchange(self) -> RecordExchange:
        self._started += 1
        exchange = RecordExchange(self._output.new_response(self._started))
        self._exchanges[self._started] = exchange
        return exchange

    def _on_input_error(self, error: SipcError) -> None:
        """Fail the record that is being read: its request must not appear complete."""
        self._input_ended = True
        if self._current is not None:
            self._fail(self._current, error)
        elif self._inside:
            self._record_failure(self._started, error)
        elif self._splitter.inside_record:
            self._fail(self._new_exchange(), error)
        else:
            self._record_failure(self._started + 1, error)

    # -- exchanges ---------------------------------------------------------------------

    def _connect_ready(self) -> None:
        for exchange in self._connector.connect_ready(bool(self._connected)):
            if exchange.stream is not None:
                self._connected[exchange.fileno()] = exchange
                self._send(exchange)
            elif exchange.last_error is not None:
                self._fail(exchange, exchange.last_error)

    def _send(self, exchange: RecordExchange) -> None:
        try:
            exchange.write_nowait()
        except SipcError as error:
            self._fail(exchange, error)
        else:
            self._register(exchange)

    def _register(self, exchange: RecordExchange) -> None:
        """Register the events that the exchange waits for, if any."""
        reads = exchange is not self._paused
        # With no events it must not be registered: HANGUP would be reported repeatedly.
        self._poll(exchange.fileno(), READ * reads | WRITE * bool(exchange.pending))

    def _receive(self, exchange: RecordExchange) -> None:
        try:
            for payload in exchange.read_nowait(self._read_buffer):
                self._output.deliver(exchange.response, payload)
        except BlockingIOError:
            pass
        except SipcError as error:
            self._fail(exchange, error)
        else:
            if exchange.reader.complete:
                self._close_exchange(exchange)

    def _fail(self, exchange: RecordExchange, error: SipcError) -> None:
        """End an exchange; keep the received part of its response."""
        self._close_exchange(exchange)
        self._record_failure(exchange.response.number, error)

    def _close_exchange(self, exchange: RecordExchange) -> None:
        """Close the connection; drop the rest of the request."""
        exchange.response.complete = True
        del self._exchanges[exchange.response.number]
        if exchange is self._current:
            self._current = None
        if exchange is self._paused:
            self._paused = None
        if exchange.stream is not None:
            del self._connected[exchange.fileno()]
            self._poller.unregister(exchange.fileno())
            exchange.stream.close()
            self._connector.reset_backoff()

    def _record_failure(self, number: int, error: SipcError) -> None:
        self._messages.add(self._describe(number, error))
        if self._first_failure is None or number < self._first_failure[0]:
            self._first_failure = number, error

    # -- waiting -----------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for events, and process them."""
        self._pause_or_resume()
        wants_input = self._wants_input()
        if wants_input and not self._splitter.needs_data:
            return
        source, messages = self._source, self._messages
        self._poll(source.fileno(), READ * wants_input)
        self._poll(self._buffer.sink.fileno(), WRITE * bool(self._buffer))
        self._poll(messages.sink.fileno(), WRITE * bool(messages))
        timeout = self._deadline.capped(self._connector.remaining()).remaining()
        for descriptor, events in self._poller.wait(timeout):
            if descriptor == source.fileno():
                self._input_is_ready = True
            elif descriptor in self._connected:
                self._on_stream_event(self._connected[descriptor], events)

    def _poll(self, descriptor: int, events: int) -> None:
        if events:
            self._poller.register(descriptor, events)
        else:
            self._poller.unregister(descriptor)

    def _on_stream_event(self, exchange: RecordExchange, events: int) -> None:
        if exchange.pending:
            self._send(exchange)
        is_open = exchange.response.number in self._exchanges
        if is_open and events & ~WRITE and exchange is not self._paused:
            self._receive(exchange)

    def _pause_or_resume(self) -> None:
        """Make an exchange wait for the output if it is the only one: see the module's top."""
        before, self._paused = self._paused, None
        if self._buffer.is_full and len(self._exchanges) == 1 == len(self._connected):
            (self._paused,) = self._connected.values()
        if self._paused is not before:
            for changed in (before, self._paused):
                if changed is not None:
                    self._register(changed)

    # -- timeout -----------------------------------------------------------------------

    def _abort(self) -> None:
        """After the deadline: write the complete responses, and fail the other records."""
        if self._exchanges:
            for exchange in list(self._exchanges.values()):
                not_connected = exchange.last_error if exchange.stream is None else None
                self._fail(exchange, not_connected or TimedOut("no complete response in time"))
        elif self._wants_input():
            not_listening = None if self._started else self._connector.check()
            late = TimedOut(f"no more data arrived from {self._source.name} in time")
            self._record_failure(self._started + 1, not_listening or late)
        self._output.write_nowait()
        if not self._output.is_idle:
            responses = self._output.responses
            late = TimedOut("the output did not take the responses in time")
            self._record_failure(responses[0].number if responses else self._started, late)


class RecordSplitter:
    """Splits a stream of bytes, which arrives in any pieces, into chunks of records.

    A record ends at its separator, which is not part of it, or at the end of the input. A short
    record is returned as one chunk when it is complete, so that no connection is open while a user
    types the line. A long record is returned in pieces, so that it need not fit into memory.
    """

    __slots__ = ("_data", "_held", "_position", "_separator", "_started", "input_ended")

    def __init__(self, separator: bytes) -> None:
        """`separator` is one byte."""
        self._separator = separator
        self._data = b""
        self._position = 0
        self._held = bytearray()  # the start of a record of which no chunk was returned
        self._started = False  # whether a chunk of the incomplete record was returned
        self.input_ended = False

    @property
    def inside_record(self) -> bool:
        """Whether the input so far ends within a record."""
        return self._started or bool(self._held)

    @property
    def needs_data(self) -> bool:
        """Whether next_chunk() needs more data from feed()."""
        return not self.input_ended and self._position >= len(self._data)

    def feed(self, data: bytes) -> None:
        """Add input; empty data at its end. Call it only when `needs_data` is true."""
        self._data = data
        self._position = 0
        self.input_ended = not data

    def next_chunk(self) -> tuple[bytes, bool] | None:
        """Return the next bytes of a record, and whether they are its last ones.

        Return None if more data is needed or, if `input_ended` is true, at the end.
        """
        data, start = self._data, self._position
        end = data.find(self._separator, start)
        if end >= 0:
            self._position = end + 1
            return self._chunk(data[start:end], True)
        self._position = len(data)
        if start < len(data):
            if self._started or len(self._held) + len(data) - start >= MAX_HELD:
                return self._chunk(data[start:], False)
            self._held += data[start:]
        return self._chunk(b"", True) if self.input_ended and self.inside_record else None

    def _chunk(self, payload: bytes, ends_record: bool) -> tuple[bytes, bool]:
        self._started = not ends_record
        if self._held:
            payload = bytes(self._held) + payload
            self._held.clear()
        return payload, ends_record
