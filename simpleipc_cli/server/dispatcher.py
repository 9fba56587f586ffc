"""Run exchanges: on the event loop, and on worker threads if they could block.

Passing a request to another thread takes longer than a short exchange: both threads then compete
for Python's interpreter lock at every system call. So the main thread runs all exchanges that
cannot block. An exchange gets a worker thread when it must wait for something that cannot be polled
(a disk, the exit of a process that ignores signals), or when it moves many bytes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from queue import Empty, SimpleQueue
from time import monotonic

from simpleipc_cli.deadline import NEVER, Deadline
from simpleipc_cli.server.context import Log, Outcome, RequestRecord, ServerContext
from simpleipc_cli.server.exchange import Exchange
from simpleipc_cli.server.exchange_state import IoBuffers, RequestBuffer, Timeouts, timeout_limits
from simpleipc_cli.server.handler import RequestInfo
from simpleipc_cli.server.quick_exchange import QuickExchange
from simpleipc_cli.transport import Peer, Stream, new_poller

_UNKNOWN_PEER = Peer(-1, -1, -1)
_JOIN_TIMEOUT = 5.0  # seconds to wait for threads that are about to end (tunable)
_SLOW_FOR = 10.0  # seconds after output that waited in which there are no quick ones (tunable)


class WorkerThreads:
    """Threads that run exchanges to their end. They start when needed, and stay."""

    def __init__(self, *, log: Log, on_over: Callable[[Exchange], None]) -> None:
        """The threads call `on_over` with each exchange that is over."""
        self._log = log
        self._on_over = on_over
        self._queue: SimpleQueue[Exchange | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unfinished: set[Exchange] = set()  # all until they are over; guarded by the lock
        self._has_hung = False  # whether a thread hangs in an exchange
        self._has_warned = False

    @property
    def is_starved(self) -> bool:
        """Whether exchanges are queued, but no thread has started."""
        return bool(self._unfinished) and not self._threads

    @property
    def is_ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def submit(self, exchange: Exchange) -> None:
        with self._lock:
            self._unfinished.add(exchange)
        self._queue.put(exchange)
        self.add_thread()

    def add_thread(self) -> None:
        """Start a thread if there are fewer threads than exchanges. Call it in the main thread."""
        if len(self._threads) >= len(self._unfinished):
            return
        thread = threading.Thread(target=self._run, daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # the server tries again later
            if not self._has_warned:
                self._has_warned = True
                hint = "raise the limits of processes and memory, or lower --threads"
                self._log.warning(f"{error}: {hint}")
            return
        self._threads.append(thread)

    def abort_queued(self) -> None:
        """Abort the queued exchanges, on this thread, as there is no other."""
        try:
            while (exchange := self._queue.get_nowait()) is not None:
                self._run_one(exchange)
        except Empty:
            pass

    def take_unfinished(self) -> tuple[Exchange, ...]:
        """Return the exchanges of threads that hang. These threads then ignore them."""
        with self._lock:
            hung = tuple(self._unfinished)
            self._unfinished.clear()
        self._has_hung = self._has_hung or bool(hung)
        return hung

    def close(self) -> None:
        """End all threads that do not hang. Call it when all exchanges are aborting."""
        for _ in self._threads:
            self._queue.put(None)
        deadline = Deadline(0.0 if self._has_hung else _JOIN_TIMEOUT)
        for thread in self._threads:
            thread.join(deadline.remaining())

    def _run(self) -> None:
        while (exchange := self._queue.get()) is not None:
            try:
                self._run_one(exchange)
            except Exception as error:  # internal error: the thread must continue
                self._log.warning(f"unexpected {type(error).__name__} in a thread: {error}")
            del exchange  # free its memory while the thread waits

    def _run_one(self, exchange: Exchange) -> None:
        try:
            with closing(new_poller()) as poller:
                exchange.attach_to_thread(poller)
                while not exchange.is_over:
                    due = exchange.due
                    poller.dispatch(None if due == NEVER else max(0.0, due - monotonic()))
                    if not exchange.is_over and monotonic() >= exchange.due:
                        exchange.resume()
        except OSError as error:  # for example, no memory to poll
            exchange.end_after_defect(f"cannot wait for events: {error.strerror}")
        except Exception as error:
            exchange.end_after_defect(repr(error))
        with self._lock:
            if exchange not in self._unfinished:
                return
            self._unfinished.remove(exchange)
        self._on_over(exchange)


class Dispatcher:
    """Tracks all requests from their first byte to their end. Only the main thread uses it."""

    def __init__(self, context: ServerContext, on_done: Callable[[], None]) -> None:
        """When a request has ended, any thread may call `on_done`."""
        self._context = context
        self._on_done = on_done
        self._counters = context.counters
        self._needs_peer = context.handler.needs_peer or context.log.needs_peer
        self._timeout_limits = timeout_limits(context.config)
        self._pid = os.getpid()
        self.threads = WorkerThreads(log=context.log, on_over=self._finish)

        self.queue: deque[tuple[Stream, int, RequestRecord]] = deque()
        """Requests beyond the concurrency limit: stream, its descriptor, record."""
        self._on_loop: set[Exchange] = set()
        self._has_quick = QuickExchange.is_possible(context)
        self._quick: set[QuickExchange] = set()
        self._quick_from = 0.0  # monotonic time from which quick exchanges are made
        self._free_buffers: list[IoBuffers] = []
        # Else a request is read by a worker thread, or through what observes the stream.
        self._may_read_first = context.observe is None and not context.config.whole_request
        self._is_draining = False
        self._is_aborting = False
        self._is_starting = False

        self._lock = threading.Lock()
        self._in_flight = 0  # guarded by the lock
        self._last_active = monotonic()  # when a request last ended; guarded by the lock
        self.due = NEVER
        """Monotonic time at which to call resume_due() if no event occurs."""
        self.unanswered = 0
        """Requests that have not ended."""

    def idle_since(self) -> float | None:
        """Return the time since when there is no request; None while there is one."""
        with self._lock:
            return None if self.unanswered else self._last_active

    def stats(self, *, idle: int) -> dict[str, int]:
        """Return all counters; see Counters.as_dict()."""
        with self._lock:
            queued = self.unanswered - self._in_flight
            counters = self._context.counters
            return counters.as_dict(in_flight=self._in_flight, queued=queued, idle=idle)

    def submit(self, stream: Stream) -> bool:
        """Start or enqueue the request on a connection; return False if the client has closed it.

        Raises BlockingIOError if the client has sent nothing, OSError if the peer is unknown, and
        SipcError. The caller then still owns the connection.
        """
        can_start = not self.queue and self._can_start()
        may_read = can_start and self._may_read_first and not self._is_draining
        buffers = self._take_buffers() if may_read else None
        if buffers is None:
            return stream.peek_nowait() and self._submit(stream, None, can_start=can_start)
        is_submitted = False
        try:
            buffers.received = stream.read_nowait(buffers.request)
            is_submitted = buffers.received > 0 and self._submit(stream, buffers, can_start=True)
        finally:
            if not is_submitted:
                self._free_buffers.append(buffers)
        return is_submitted

    def _submit(self, stream: Stream, buffers: IoBuffers | None, *, can_start: bool) -> bool:
        """Start or enqueue a request of which data has arrived; return True."""
        context = self._context
        peer = stream.peer() if self._needs_peer else _UNKNOWN_PEER
        self._counters.requests = number = self._counters.requests + 1
        descriptor = stream.fileno()
        request = RequestInfo(f"{self._pid}-{number}", peer)
        record = RequestRecord(request)
        if context.observe is not None:
            stream = context.observe(stream, request.id)
        with self._lock:
            self.unanswered += 1
            self._in_flight += can_start
        if can_start:
            self._start(stream, descriptor, record, buffers)
        else:
            self.queue.append((stream, descriptor, record))
        if number == context.config.max_requests:
            context.shutdown.is_requested = True
        return True

    def _take_buffers(self) -> IoBuffers | None:
        """Return buffers for a request; None if there is no memory for them."""
        try:
            return self._free_buffers.pop() if self._free_buffers else IoBuffers()
        except MemoryError:
            return None

    def _can_start(self) -> bool:
        """Return whether another request may be started now."""
        context = self._context
        is_free = self._in_flight + context.handler.stuck < context.config.max_concurrency
        return is_free and not self._is_aborting

    def start_queued(self) -> None:
        """Start queued requests, up to the concurrency limit."""
        if self._is_starting:
            return  # called from the loop below, as an exchange ended while it was started
        self._is_starting = True
        try:
            while self.queue and self._can_start():
                self._start(*self._take_from_queue())
        finally:
            self._is_starting = False

    def _take_from_queue(self) -> tuple[Stream, int, RequestRecord]:
        """Remove the oldest request from the queue, to start or to abort it."""
        stream, descriptor, record = self.queue.popleft()
        arrived_at, record.started_at = record.started_at, monotonic()
        record.queue_time = record.started_at - arrived_at
        with self._lock:
            self._in_flight += 1
        return stream, descriptor, record

    def _start(
        self,
        stream: Stream,
        descriptor: int,
        record: RequestRecord,
        buffers: IoBuffers | None = None,
    ) -> None:
        buffers = buffers or self._take_buffers()
        if buffers is None:
            record.set_failure(Outcome.INTERNAL_ERROR, "out of memory")
            stream.close()
            self._report(record)
            return
        received, buffers.received = buffers.received, 0
        if self._has_quick and not self._is_draining and record.started_at >= self._quick_from:
            quick = QuickExchange(self._context, self, stream, descriptor, record, buffers)
            self._quick.add(quick)
            quick.received = received
            if quick.start():
                return
            self._quick.remove(quick)
            received = quick.received
        exchange = self._new_exchange(stream, descriptor, record, buffers, received)
        if self._is_draining:
            exchange.on_shutdown()
        elif exchange.needs_thread:
            self._on_change(exchange)
        else:
            exchange.start()

    def _new_exchange(
        self,
        stream: Stream,
        descriptor: int,
        record: RequestRecord,
        buffers: IoBuffers,
        received: int,
    ) -> Exchange:
        config = self._context.config
        exchange = Exchange(
            context=self._context,
            on_change=self._on_change,
            stream=stream,
            stream_fd=descriptor,
            record=record,
            buffers=buffers,
            buffer=RequestBuffer(
                buffers.request, config.spool_folders, config.whole_request, config.quit_on
            ),
            timeouts=Timeouts(self._timeout_limits),
            poller=self._context.poller,
            needs_thread=config.whole_request,
        )
        exchange.buffer.received = received
        self._on_loop.add(exchange)
        return exchange

    def wait_for_run(self, quick: QuickExchange) -> None:
        """Have an exchange continue it when it is due."""
        self._context.handled.add(quick)
        self.due = min(self.due, quick.due)

    def continue_quick(self, quick: QuickExchange) -> Exchange:
        """Return the exchange that continues it."""
        self._quick.discard(quick)
        self._context.handled.discard(quick)
        exchange = self._new_exchange(
            quick.stream, quick.descriptor, quick.record, quick.buffers, quick.received
        )
        if quick.run is not None:
            exchange.adopt(quick.run, quick.written, quick.pieces)
        return exchange

    def finish_quick(self, quick: QuickExchange) -> None:
        """Free the resources of a quick exchange that has answered."""
        self._quick.discard(quick)
        self._context.handled.discard(quick)
        self._free_buffers.append(quick.buffers)
        self._report(quick.record)
        if self.queue:
            self.start_queued()

    def _on_change(self, exchange: Exchange) -> None:
        if exchange.is_over:
            self._on_loop.remove(exchange)
            self._finish(exchange)
            if self.queue:
                self.start_queued()
        elif exchange.needs_thread:
            self._on_loop.remove(exchange)
            exchange.unregister(*exchange.polled)
            self.threads.submit(exchange)
        elif exchange.due < self.due:
            self.due = exchange.due

    def resume_due(self, now: float) -> None:
        """Resume the exchanges whose timeouts may have expired."""
        self.due = NEVER
        for quick in tuple(self._quick):
            if quick.due <= now and quick.on_due():  # do not let the next output wait, too
                self._quick_from = now + _SLOW_FOR
        for exchange in tuple(self._on_loop):
            if exchange.due <= now:
                exchange.resume()
        due = [exchange.due for exchange in self._on_loop] + [quick.due for quick in self._quick]
        self.due = min(due, default=NEVER)

    def on_shutdown(self) -> None:
        """Enter the next phase of the shutdown."""
        self._is_draining = True
        self._is_aborting = self._context.shutdown.aborting.is_set()
        for quick in tuple(self._quick):
            quick.hand_over()  # so that it can be stopped before it is called
        for exchange in tuple(self._on_loop):
            exchange.on_shutdown()

    def abort_queued(self) -> None:
        """Close the connections of all requests that have not been started."""
        while self.queue:
            stream, _, record = self._take_from_queue()
            record.set_failure(Outcome.ABORTED, "the server stopped before the request was started")
            stream.close()
            self._report(record)
        if self.threads.is_starved:
            self.threads.abort_queued()

    def abandon(self) -> None:
        """End the requests whose threads hang, and kill their handlers."""
        for exchange in self.threads.take_unfinished():
            exchange.record.set_failure(Outcome.ABORTED, "its thread hangs")
            if (io := exchange.io) is not None:
                try:
                    io.run.kill()
                except OSError as error:
                    exchange.record.warnings.append(f"cannot kill the handler: {error.strerror}")
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        """Free the resources of an exchange. Any thread may call this."""
        self._free_buffers.append(exchange.buffers)
        self._context.handled.discard(exchange)
        self._report(exchange.record)

    def _report(self, record: RequestRecord) -> None:
        with self._lock:
            self.unanswered -= 1
            self._in_flight -= 1
            self._last_active = monotonic()
            counters = self._counters
            counters.outcomes[record.outcome] += 1
            counters.bytes_in += record.bytes_in
            counters.bytes_out += record.bytes_out
        if record.is_quit:
            self._context.shutdown.is_requested = True
        self._context.log.request(record)
        self._on_done()
